"""What was completed, from Redis's own account of every command.

The pods' logs show that an item was started. That a completion counted shows only in Redis: its
MONITOR tells each command that a script ran, and `rediswq.py` runs ``SET NAME:completed_by:S n``
exactly when the completion of session S's lease n takes effect.
"""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import redis

from harness.errors import ClusterFailure

ARGUMENT = re.compile(rb'"((?:[^"\\]|\\.)*)"')
ESCAPE = re.compile(rb"\\(x[0-9a-f]{2}|.)", re.DOTALL)
ESCAPED = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"a": b"\a", b"b": b"\b"}
END_SECONDS = 10.0


@dataclass(frozen=True)
class Completion:
    """A completion that took effect.

    Attributes:
        item: the item.
        session: of the worker.
        at: Redis's time, seconds since the epoch.
    """

    item: str
    session: str
    at: float


def arguments(line: bytes) -> tuple[float, list[bytes]]:
    """A line of MONITOR: when, in seconds since the epoch, and the command's words."""
    return float(line.split(b" ", 1)[0]), [_plain(word) for word in ARGUMENT.findall(line)]


def _plain(word: bytes) -> bytes:
    def plain(match: re.Match[bytes]) -> bytes:
        code = match[1]
        return bytes.fromhex(code[1:].decode()) if len(code) == 3 else ESCAPED.get(code, code)

    return ESCAPE.sub(plain, word)


def completions(name: str, lines: Iterable[bytes]) -> tuple[Completion, ...]:
    """Every completion on the queue `name`, in order; a retry of one is the same one."""
    held = f"{name}:leased_by_session:".encode()
    completed = f"{name}:completed_by:".encode()
    items: dict[tuple[bytes, bytes], bytes] = {}
    found: list[Completion] = []
    for line in lines:
        at, words = arguments(line)
        match words:
            case [b"HSET", key, n, item] if key.startswith(held):
                items[key.removeprefix(held), n] = item
            case [b"SET", key, n, *_] if key.startswith(completed):
                session = key.removeprefix(completed)
                done = items.pop((session, n), None)
                if done is not None:
                    text = done.decode("utf-8", "backslashreplace")
                    found.append(Completion(text, session.decode(), at))
    return tuple(found)


class Monitor:
    """Redis's MONITOR, read in a thread from the moment this is made."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        pool: Any = client.connection_pool
        self._connection: Any = pool.connection_class(
            **{**pool.connection_kwargs, "socket_timeout": None}
        )
        self._connection.send_command("MONITOR")
        self._connection.read_response()
        self._lines: list[bytes] = []
        self._ended = threading.Event()
        self._mark = uuid.uuid4().hex.encode()
        threading.Thread(target=self._read, name="monitor", daemon=True).start()

    def _read(self) -> None:
        try:
            while True:
                line = self._connection.read_response(disable_decoding=True)
                if self._mark in line:
                    self._ended.set()
                    return
                self._lines.append(line)
        except (redis.RedisError, OSError):
            return

    def close(self) -> tuple[bytes, ...]:
        """Every line up to now.

        Raises:
            ClusterFailure: the connection was lost meanwhile, so that lines may be missing.
        """
        self._client.echo(self._mark)
        ended = self._ended.wait(END_SECONDS)
        self._connection.disconnect()
        if not ended:
            raise ClusterFailure(
                "Redis's MONITOR was lost during the run, so that completions can't be told; "
                "run it again."
            )
        return tuple(self._lines)
