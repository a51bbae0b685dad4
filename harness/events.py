"""What happens in a run, as a stream of typed events.

No stage prints. The terminal view, the reports and the tests all read these.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.verdict import Verdict


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened.

    Attributes:
        at: when, in seconds since the Unix epoch, by this machine's clock.
    """

    at: float = field(default_factory=time.time)


@dataclass(frozen=True)
class StageStarted(Event):
    """A section of the run began; `command` is the document's own, where it has one."""

    stage: str
    title: str
    command: str = ""


@dataclass(frozen=True)
class StageFinished(Event):
    """A section of the run ended well after `seconds`."""

    stage: str
    seconds: float


@dataclass(frozen=True)
class Progress(Event):
    """One line on what a stage is doing now."""

    stage: str
    text: str


@dataclass(frozen=True)
class ManifestDiffers(Event):
    """A value applied that is not the document's.

    Attributes:
        file: name of the document's file.
        path: of the value in it, as ``spec.parallelism``.
        document: the document's value; None where it has none.
        applied: the value of this run.
    """

    file: str
    path: str
    document: object
    applied: object

    def __str__(self) -> str:
        return f"{self.file}: {self.path} {_shown(self.document)} -> {_shown(self.applied)}"


def _shown(value: object) -> str:
    return "(unset)" if value is None else str(value)


@dataclass(frozen=True)
class ItemSeeded(Event):
    """``rpush`` answered that the queue now holds `length` items."""

    item: str
    length: int


@dataclass(frozen=True)
class PodChanged(Event):
    """A pod of the Job is in another state: its phase, or why its container waits."""

    pod: str
    node: str
    state: str
    restarts: int = 0


@dataclass(frozen=True)
class LogLine(Event):
    """A line that a pod printed; `at` is the kubelet's time, not this machine's."""

    pod: str
    restarts: int
    text: str


@dataclass(frozen=True)
class QueueObserved(Event):
    """Lengths of ``job2`` and ``job2:processing``, read after a pod took an item."""

    waiting: int
    processing: int


@dataclass(frozen=True)
class ImageObtained(Event):
    """An image is in the engine, from ``engine``, ``registry`` or ``packages``."""

    name: str
    reference: str
    source: str


@dataclass(frozen=True)
class VersionFound(Event):
    """The version of something that the run stands on."""

    name: str
    version: str


@dataclass(frozen=True)
class Struck(Event):
    """A fault scenario broke something on purpose."""

    scenario: str
    text: str


@dataclass(frozen=True)
class JobEnded(Event):
    """The Job ended after `seconds`; with no overhead at all it had taken `ideal` seconds."""

    seconds: float
    ideal: float


@dataclass(frozen=True)
class VerdictReached(Event):
    """The run was judged."""

    verdict: Verdict


@dataclass(frozen=True)
class RunFailed(Event):
    """The run ended before a verdict: the kind of failure, its exit code, the sentence."""

    kind: str
    exit_code: int
    text: str


Emit = Callable[[Event], None]


class Recorder:
    """Keeps every event in the order of its arrival and hands it on. Thread-safe."""

    def __init__(self, *listeners: Emit) -> None:
        self.events: list[Event] = []
        self._listeners = listeners
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        """Record `event`, then tell the listeners."""
        with self._lock:
            self.events.append(event)
            for listener in self._listeners:
                listener(event)
