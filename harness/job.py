"""Watch the Job and its pods from its start to its end, and follow what the pods print."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import ClusterFailure, TutorialFailure
from harness.events import Emit, LogLine, PodChanged
from harness.kube import NAMESPACE, Expired, Kube, Object
from harness.logs import PodLog, container_status
from harness.verdict import JobOutcome, PodOutcome

JOB = "job-wq-2"
CONTAINER = "c"
# After the Job's end the pods' last lines are at most this far away.
LOG_SECONDS = 30.0
# A first crash may be a fault that the Job survives, as the document's OnFailure means it.
CRASHES = 2
NO_IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")


@dataclass(frozen=True)
class JobRun:
    """What was seen of a Job.

    Attributes:
        job: how it ended.
        pods: every pod that it ever had, in the order of their creation.
        lines: everything that they printed, in the order of time.
        ended: when the Job's end was seen, on the `time.monotonic` clock.
    """

    job: JobOutcome
    pods: tuple[PodOutcome, ...]
    lines: tuple[LogLine, ...]
    ended: float


def watch(
    kubeconfig: Path,
    *,
    emit: Emit,
    seconds: float,
    on_line: Callable[[LogLine], None] = lambda line: None,
    name: str = JOB,
) -> JobRun:
    """Watch a Job until it is Complete or Failed and all its pods' logs are read.

    Args:
        kubeconfig: of the cluster.
        emit: told of every pod's change and every line.
        seconds: deadline for the Job's end.
        on_line: called in this thread after each line.
        name: of the Job.

    Raises:
        TutorialFailure: a pod can't get its image or crashes again and again, or the deadline
            passed; says what was seen.
        ClusterFailure: the API refused.
    """
    with Kube(kubeconfig) as kube:
        return _Watch(kube, name, emit, on_line).run(seconds)


@dataclass
class _Watch:
    """Two watches and the logs' followers put what they see into one inbox; `run` empties it."""

    kube: Kube
    name: str
    emit: Emit
    on_line: Callable[[LogLine], None]
    inbox: queue.SimpleQueue[tuple[str, Object] | LogLine | BaseException] = field(
        default_factory=queue.SimpleQueue
    )
    pods: dict[str, Object] = field(default_factory=dict)
    logs: dict[str, PodLog] = field(default_factory=dict)
    lines: list[LogLine] = field(default_factory=list)
    shown: dict[str, PodChanged] = field(default_factory=dict)

    def run(self, seconds: float) -> JobRun:
        deadline = time.monotonic() + seconds
        batch, core = self.kube.batch, self.kube.core
        self._start("job", batch.list_namespaced_job, deadline, f"metadata.name={self.name}", "")
        label = f"batch.kubernetes.io/job-name={self.name}"
        self._start("pod", core.list_namespaced_pod, deadline, "", label)
        while (job := self._next(deadline, seconds)) is None:
            pass
        ended = time.monotonic()
        self._read_logs_to_the_end()
        pods = sorted(self.pods.values(), key=lambda pod: pod["metadata"]["creationTimestamp"])
        return JobRun(
            job=job,
            pods=tuple(outcome(pod) for pod in pods),
            lines=tuple(sorted(self.lines, key=lambda line: line.at)),
            ended=ended,
        )

    def _start(
        self, what: str, call: Callable[..., Any], deadline: float, fields: str, labels: str
    ) -> None:
        options = {"field_selector": fields, "label_selector": labels}

        def put_changes() -> None:
            try:
                for _, found in self.kube.watch(
                    call,
                    NAMESPACE,
                    deadline=deadline + LOG_SECONDS,
                    **{key: value for key, value in options.items() if value},
                ):
                    self.inbox.put((what, found))
            except Expired:
                return
            except BaseException as error:
                self.inbox.put(error)

        threading.Thread(target=put_changes, name=f"watch {what}", daemon=True).start()

    def _next(self, deadline: float, seconds: float) -> JobOutcome | None:
        try:
            message = self.inbox.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise TutorialFailure(
                f"the Job {self.name} was not complete within {seconds:.0f} s ({self._seen()}); "
                "see the pods' logs, or allow more time with --timeout."
            ) from None
        if isinstance(message, BaseException):
            raise message
        if isinstance(message, LogLine):
            self._line(message)
            return None
        what, found = message
        if what == "job":
            return job_outcome(found)
        self._pod(found)
        if problem := fatal(found, self._last_line(found)):
            raise TutorialFailure(problem)
        return None

    def _pod(self, pod: Object) -> None:
        name = pod["metadata"]["name"]
        self.pods[name] = pod
        change = PodChanged(
            pod=name,
            node=pod["spec"].get("nodeName", ""),
            state=pod_state(pod),
            restarts=int(container_status(pod, CONTAINER).get("restartCount", 0)),
            at=0.0,
        )
        if self.shown.get(name) != change:
            self.shown[name] = change
            self.emit(PodChanged(change.pod, change.node, change.state, change.restarts))
        log = self.logs.setdefault(name, PodLog(self.kube, name, CONTAINER, self.inbox.put))
        for restarts in instances(pod):
            log.follow(restarts)

    def _line(self, line: LogLine) -> None:
        self.lines.append(line)
        self.emit(line)
        self.on_line(line)

    def _last_line(self, pod: Object) -> str:
        name = pod["metadata"]["name"]
        return next((line.text for line in reversed(self.lines) if line.pod == name), "nothing")

    def _seen(self) -> str:
        pods = ", ".join(f"{change.pod} {change.state}" for change in self.shown.values())
        return f"pods: {pods or 'none'}; {len(self.lines)} lines"

    def _read_logs_to_the_end(self) -> None:
        """Take in what is on its way, so that the verdict sees every line and each pod's end."""
        deadline = time.monotonic() + LOG_SECONDS
        listed = self.kube.get(
            self.kube.core.list_namespaced_pod,
            NAMESPACE,
            label_selector=f"batch.kubernetes.io/job-name={self.name}",
        )
        for pod in listed["items"]:
            self._pod(pod)
        for name, log in self.logs.items():
            if not log.join(max(0.0, deadline - time.monotonic())):
                raise ClusterFailure(
                    f"the end of the log of {name} was awaited for {LOG_SECONDS:.0f} s; "
                    "see the diagnostics."
                )
        while not self.inbox.empty():
            message = self.inbox.get()
            if isinstance(message, LogLine):
                self._line(message)


def instances(pod: Object) -> list[int]:
    """Numbers of the container's instances that have a log now: the present and the one before."""
    status = container_status(pod, CONTAINER)
    if not status:
        return []
    count = int(status.get("restartCount", 0))
    present = [count] if {"running", "terminated"} & set(status.get("state") or {}) else []
    before = [count - 1] if count and (status.get("lastState") or {}).get("terminated") else []
    return before + present


def pod_state(pod: Object, container: str = CONTAINER) -> str:
    """A pod's phase, or why its container waits, or that it is being deleted."""
    if pod["metadata"].get("deletionTimestamp"):
        return "Terminating"
    state = container_status(pod, container).get("state") or {}
    reason = (state.get("waiting") or {}).get("reason")
    return str(reason or pod["status"].get("phase", "Unknown"))


def fatal(pod: Object, last_line: str, container: str = CONTAINER) -> str | None:
    """Why a pod can't be expected to work any more, in a sentence with the remedy; else None."""
    name = pod["metadata"]["name"]
    status = container_status(pod, container)
    waiting = (status.get("state") or {}).get("waiting") or {}
    reason = waiting.get("reason", "")
    if reason in NO_IMAGE:
        image = next(c["image"] for c in pod["spec"]["containers"] if c["name"] == container)
        return (
            f"the pod {name} can't get its image {image} ({reason}: "
            f"{waiting.get('message', 'no message')}); check the image's name and its registry."
        )
    if reason.startswith("CreateContainer") and reason.endswith("Error"):
        return f"the pod {name} can't start ({reason}: {waiting.get('message')}); see its events."
    if reason == "CrashLoopBackOff" and int(status.get("restartCount", 0)) >= CRASHES:
        code = ((status.get("lastState") or {}).get("terminated") or {}).get("exitCode")
        return (
            f"the pod {name} crashes again and again (exit code {code}, last line: {last_line}); "
            "see its log."
        )
    return None


def job_outcome(job: Object) -> JobOutcome | None:
    """How a Job ended; None while it has not."""
    for condition in job["status"].get("conditions") or []:
        if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
            return JobOutcome(
                complete=condition["type"] == "Complete",
                reason=condition.get("reason", ""),
                message=condition.get("message", ""),
            )
    return None


def outcome(pod: Object) -> PodOutcome:
    """How a pod ended."""
    return PodOutcome(
        name=pod["metadata"]["name"],
        node=pod["spec"].get("nodeName", ""),
        phase=pod["status"].get("phase", "Unknown"),
        restarts=int(container_status(pod, CONTAINER).get("restartCount", 0)),
    )
