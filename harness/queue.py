"""Fill `job2` with work items, and look at it.

The document types ``rpush`` into redis-cli; this sends the same commands with redis-py, over a
port-forward of the Kubernetes API, so no port is opened on this machine. Every answer is
checked: on a fresh cluster pushes were lost that nobody looked at.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from kubernetes.client.exceptions import ApiException

from harness.errors import TutorialFailure, UsageFailure
from harness.events import Emit, ItemSeeded
from harness.kube import Kube
from harness.verdict import QueueState

QUEUE = "job2"
REDIS_POD = "redis-master"
REDIS_PORT = 6379
ANSWER_SECONDS = 10.0
START_SECONDS = 30.0
PING_SECONDS = 0.1
DOCUMENT_ITEMS = (
    "apple",
    "banana",
    "cherry",
    "date",
    "fig",
    "grape",
    "lemon",
    "melon",
    "orange",
)


def read_items(path: Path) -> tuple[str, ...]:
    """Read work items: a JSON list of strings (``.json``), else one item a line.

    Raises:
        UsageFailure: unreadable, not UTF-8, no items, or an item that a log line can't show.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise UsageFailure(
            f"the items file {path} can't be read ({error.strerror}); check --items."
        ) from None
    except UnicodeDecodeError as error:
        raise UsageFailure(
            f"the items file {path} is not UTF-8 (byte {error.start}); save it as UTF-8."
        ) from None
    items = _from_json(path, text) if path.suffix == ".json" else _from_lines(text)
    if not items:
        raise UsageFailure(f"the items file {path} has no items; write one on each line.")
    for number, item in enumerate(items, 1):
        if "\n" in item:
            raise UsageFailure(
                f"item {number} of {path} has a newline in it, and the worker prints one line "
                "for each item; take it out."
            )
        if not item:
            raise UsageFailure(f"item {number} of {path} is empty; take it out.")
    return items


def _from_lines(text: str) -> tuple[str, ...]:
    lines = [line.removesuffix("\r") for line in text.removeprefix("\ufeff").split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return tuple(lines)


def _from_json(path: Path, text: str) -> tuple[str, ...]:
    try:
        items: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageFailure(
            f"the items file {path} is not JSON (line {error.lineno}); correct it."
        ) from None
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise UsageFailure(f"the items file {path} must be a JSON list of strings; correct it.")
    return tuple(items)


class ForwardedConnection(redis.Connection):
    """redis-py's connection to a pod, through the Kubernetes API."""

    def __init__(self, *, kube: Kube, pod: str, **options: Any) -> None:
        self._kube, self._pod = kube, pod
        super().__init__(**options)  # type: ignore[no-untyped-call]

    def _connect(self) -> Any:
        connection = self._kube.forward(self._pod, int(self.port))
        connection.settimeout(self.socket_timeout)
        return connection


def connect(kube: Kube, pod: str = REDIS_POD) -> redis.Redis:
    """A client of the Redis in `pod`."""
    pool = redis.ConnectionPool(
        connection_class=ForwardedConnection,
        kube=kube,
        pod=pod,
        host=pod,
        port=REDIS_PORT,
        socket_timeout=ANSWER_SECONDS,
    )
    return redis.Redis(connection_pool=pool)


@contextmanager
def _answered() -> Iterator[None]:
    """Tell that Redis did not answer as what it is for a person: a step that failed."""
    try:
        yield
    except (redis.RedisError, ApiException, OSError) as error:
        raise TutorialFailure(
            f"Redis in {REDIS_POD} did not answer ({error}); see its log in the diagnostics."
        ) from error


def wait_until_answering(client: redis.Redis, seconds: float = START_SECONDS) -> None:
    """Wait until Redis answers a PING: the document's pod has no probe, so Ready is not enough.

    Raises:
        TutorialFailure: not in time; says what it answered instead.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            client.ping()
        except (redis.RedisError, ApiException, OSError) as error:
            if time.monotonic() >= deadline:
                raise TutorialFailure(
                    f"a PONG of Redis in {REDIS_POD} was awaited for {seconds:.0f} s, but "
                    f"{error} was seen; see its log in the diagnostics."
                ) from error
            time.sleep(PING_SECONDS)
        else:
            return


def seed(client: redis.Redis, items: Sequence[str], emit: Emit) -> None:
    """Push the items onto an empty queue and read them back.

    Raises:
        TutorialFailure: Redis did not answer, answered with another length than the document
            shows, or the queue does not hold the items in the end.
    """
    with _answered():
        before = client.llen(QUEUE)
        if before:
            raise TutorialFailure(
                f"{QUEUE} already holds {before} items; use a fresh cluster, or `del {QUEUE}`."
            )
        for expected, item in enumerate(items, 1):
            length = client.rpush(QUEUE, item)
            if length != expected:
                raise TutorialFailure(
                    f"rpush {QUEUE} {item!r} answered {length} and not {expected}: "
                    "somebody else uses the queue; run it on a fresh cluster."
                )
            emit(ItemSeeded(item, expected))
        found = _texts(client.lrange(QUEUE, 0, -1))
    if found != tuple(items):
        raise TutorialFailure(
            f"{QUEUE} holds {found} after seeding {tuple(items)}; run it on a fresh cluster."
        )


def inspect(client: redis.Redis) -> QueueState:
    """What the queue holds now: waiting and in processing.

    Raises:
        TutorialFailure: Redis did not answer.
    """
    with _answered():
        return QueueState(
            waiting=_texts(client.lrange(QUEUE, 0, -1)),
            processing=_texts(client.lrange(f"{QUEUE}:processing", 0, -1)),
        )


def _texts(items: list[Any]) -> tuple[str, ...]:
    return tuple(bytes(item).decode("utf-8", "backslashreplace") for item in items)
