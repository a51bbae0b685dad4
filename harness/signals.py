"""SIGINT, SIGTERM and SIGHUP as an exception that arrives only where it does no harm."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from harness.errors import Interrupted

_shields = 0
_pending: int | None = None


def install() -> None:
    """From now on SIGINT, SIGTERM and SIGHUP raise `Interrupted` in the main thread."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, _handle)


def _handle(signum: int, _: FrameType | None) -> None:
    global _pending
    if _shields:
        _pending = signum
        return
    raise Interrupted(signum)


@contextmanager
def shield() -> Iterator[None]:
    """Keep a signal waiting until the block's end, for steps that must not be torn apart."""
    global _shields, _pending
    _shields += 1
    try:
        yield
    finally:
        _shields -= 1
    if _pending is not None and not _shields:
        signum, _pending = _pending, None
        raise Interrupted(signum)
