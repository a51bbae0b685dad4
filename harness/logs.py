"""Follow what a pod prints, from its first line to its last, each line once.

A connection may drop, a container may restart, a pod may be deleted: the log is read again from
its start, and lines that were seen before are dropped by the kubelet's timestamps, which differ
for every line of a container.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime

import urllib3
from kubernetes.client.exceptions import ApiException

from harness.events import LogLine
from harness.kube import NAMESPACE, Kube, Object

# A worker is silent for as long as it works on an item; then the connection is looked at.
SILENT_SECONDS = 60.0
# How long a pod's status may lag behind the end of its container's log, and how often to look.
STATUS_SECONDS = 10.0
LOOK_SECONDS = 0.2


def parse(pod: str, restarts: int, raw: bytes) -> tuple[int, LogLine]:
    """One line as the kubelet has it with timestamps: when in ns since the epoch, and the line.

    Raises:
        ValueError: the line does not start with a timestamp.
    """
    stamp, _, text = raw.decode("utf-8", "backslashreplace").partition(" ")
    if not stamp.endswith("Z"):
        raise ValueError(f"no timestamp in {raw!r}")
    seconds, _, fraction = stamp[:-1].partition(".")
    at = int(datetime.fromisoformat(seconds + "+00:00").timestamp()) * 10**9
    at += int(fraction.ljust(9, "0")[:9] or 0)
    return at, LogLine(pod=pod, restarts=restarts, text=text, at=at / 1e9)


class PodLog:
    """The lines of one pod, over all instances of its container. Thread-safe."""

    def __init__(self, kube: Kube, pod: str, container: str, tell: Callable[[LogLine], None]):
        self._kube, self._pod, self._container, self._tell = kube, pod, container, tell
        self._seen: set[tuple[int, str]] = set()
        self._lock = threading.Lock()
        self._followed: dict[int, threading.Thread] = {}

    def follow(self, restarts: int) -> None:
        """Follow instance number `restarts` of the container in a thread, unless it is already."""
        if restarts in self._followed:
            return
        thread = threading.Thread(
            target=self._to_the_end, args=(restarts,), name=f"log {self._pod}/{restarts}"
        )
        thread.daemon = True
        self._followed[restarts] = thread
        thread.start()

    def join(self, seconds: float) -> bool:
        """Wait until every instance's log was read to its end; False when not in time."""
        for thread in list(self._followed.values()):
            thread.join(seconds)
        return not any(thread.is_alive() for thread in self._followed.values())

    def _to_the_end(self, restarts: int) -> None:
        while not self._kube.closed.is_set():
            ended = self._read(restarts, follow=True)
            # After its end the status lags behind; to read on at once would be to read the log of
            # the next instance as this one's.
            deadline = time.monotonic() + (STATUS_SECONDS if ended else 0.0)
            while True:
                count, over = self._status()
                if count > restarts or over:
                    self._read(restarts, previous=count > restarts)
                    return
                if time.monotonic() >= deadline or self._kube.closed.wait(LOOK_SECONDS):
                    break

    def _status(self) -> tuple[int, bool]:
        """Number of the newest instance, -1 while the API does not tell; and whether it ended."""
        try:
            pod = self._kube.ask(self._kube.core.read_namespaced_pod, self._pod, NAMESPACE)
        except ApiException as error:
            return -1, error.status == 404
        except urllib3.exceptions.HTTPError:
            return -1, False
        status = container_status(pod, self._container)
        final = pod["status"].get("phase") in ("Succeeded", "Failed")
        over = final or "terminated" in (status.get("state") or {})
        return int(status.get("restartCount", 0)), over

    def _read(self, restarts: int, *, follow: bool = False, previous: bool = False) -> bool:
        """Read a log from its start; False when the connection dropped before its end."""
        try:
            for raw in self._kube.stream(
                self._kube.core.read_namespaced_pod_log,
                self._pod,
                NAMESPACE,
                container=self._container,
                timestamps=True,
                follow=follow,
                previous=previous,
                read_seconds=SILENT_SECONDS,
            ):
                self._add(restarts, raw)
        except (ApiException, urllib3.exceptions.HTTPError, OSError):
            return False
        return True

    def _add(self, restarts: int, raw: bytes) -> None:
        try:
            at, line = parse(self._pod, restarts, raw)
        except ValueError:
            return  # cut off in the middle by a dropped connection; it is read again
        with self._lock:
            if (at, line.text) in self._seen:
                return
            self._seen.add((at, line.text))
        self._tell(line)


def container_status(pod: Object, container: str) -> Object:
    """The status of a pod's container; empty while the kubelet has reported none."""
    statuses = pod["status"].get("containerStatuses") or []
    found: Object = next((status for status in statuses if status["name"] == container), {})
    return found
