"""Follow what a pod prints, from its first line to its last, each line once.

A connection may drop, a container may restart, a pod may be deleted: the log is read again from
its start, and lines that were seen before are dropped by the kubelet's timestamps, which differ
for every line of a container.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime

import urllib3
from kubernetes.client.exceptions import ApiException

from harness.events import LogLine
from harness.kube import NAMESPACE, Kube, Object

# A worker is silent for as long as it works on an item; then the connection is looked at.
SILENT_SECONDS = 60.0


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
            self._read(restarts, follow=True)
            instance = self._instance()
            if instance is None or instance > restarts:
                # the kubelet keeps the log of the one instance before the present one
                self._read(restarts, previous=instance == restarts + 1)
                return
            self._kube.closed.wait(0.2)  # the stream ended under a container that goes on

    def _instance(self) -> int | None:
        """The instance that runs or is still to come; None when there will be none.

        Gives -1, less than any, while the API does not tell.
        """
        try:
            pod = self._kube.ask(self._kube.core.read_namespaced_pod, self._pod, NAMESPACE)
        except ApiException as error:
            return None if error.status == 404 else -1
        except urllib3.exceptions.HTTPError:
            return -1
        if pod["status"].get("phase") in ("Succeeded", "Failed"):
            return None
        status = container_status(pod, self._container)
        count = int(status.get("restartCount", 0))
        return count + 1 if "terminated" in status.get("state", {}) else count

    def _read(self, restarts: int, *, follow: bool = False, previous: bool = False) -> None:
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
            return  # dropped: whoever called looks at the pod and reads again

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
