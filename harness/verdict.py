"""Exactly once, or what went wrong: the judgement of a run.

Pure: from what was seeded, what the pods printed, how they and their Job ended and what the
queue holds at the end, to a verdict. The document's log shows that an item was *started*; that
it was completed shows in the queue, which holds nothing any more.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from harness.events import LogLine

# what worker.py prints, in the order in which it prints
SESSION = re.compile(r"Worker with sessionID: (?P<session>.+)")
INITIAL = re.compile(r"Initial queue state: empty=(?P<empty>True|False)")
WORKING = re.compile(r"Working on (?P<item>.*)", re.DOTALL)
WAITING = "Waiting for work"
CLOSING = "Queue empty, exiting"


@dataclass(frozen=True)
class Start:
    """A pod printed that it works on an item.

    Attributes:
        item: the item.
        pod: name of the pod.
        at: the kubelet's time, seconds since the epoch.
    """

    item: str
    pod: str
    at: float


@dataclass(frozen=True)
class PodOutcome:
    """How a pod of the Job ended: its phase is Succeeded, Failed, Running, Pending or Unknown."""

    name: str
    node: str
    phase: str
    restarts: int = 0


@dataclass(frozen=True)
class JobOutcome:
    """How the Job ended; `reason` and `message` are those of its last condition."""

    complete: bool
    reason: str = ""
    message: str = ""


@dataclass(frozen=True)
class QueueState:
    """What ``job2`` and ``job2:processing`` hold."""

    waiting: tuple[str, ...] = ()
    processing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """One rule that does not hold.

    Attributes:
        rule: its short name, stable, for machines: ``missing-item``.
        text: a sentence naming the item or pod, and times.
        item: the item concerned, where it is about one.
    """

    rule: str
    text: str
    item: str | None = None


@dataclass(frozen=True)
class Verdict:
    """The judgement.

    Attributes:
        seeded: number of items seeded.
        once: number of items, with multiplicity, that were started as often as seeded.
        starts: every start in the order of time.
        pods: names of the pods of the Job.
        findings: what does not hold; empty on a clean run.
    """

    seeded: int
    once: int
    starts: tuple[Start, ...]
    pods: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def holds(self) -> bool:
        """True when every rule holds."""
        return not self.findings

    def __str__(self) -> str:
        if self.holds:
            return f"{self.once} of {self.seeded} items, each exactly once"
        return f"{self.once} of {self.seeded} items exactly once; " + " ".join(
            finding.text for finding in self.findings
        )


def starts(lines: Sequence[LogLine]) -> tuple[Start, ...]:
    """Every `Working on` line as a start, in the order of time."""
    found = (
        Start(match["item"], line.pod, line.at)
        for line in lines
        if (match := WORKING.fullmatch(line.text))
    )
    return tuple(sorted(found, key=lambda start: start.at))


def judge(
    *,
    seeded: Sequence[str],
    lines: Sequence[LogLine],
    pods: Sequence[PodOutcome],
    job: JobOutcome,
    queue: QueueState,
) -> Verdict:
    """Judge a run.

    Args:
        seeded: the items pushed, an item as often as it was pushed.
        lines: everything that the Job's pods printed.
        pods: every pod of the Job, also one that was deleted.
        job: how the Job ended.
        queue: the queue after the Job.
    """
    started = starts(lines)
    findings = [
        *_items(seeded, started),
        *_pods(pods, lines),
        *_sessions(lines),
        *_job(job),
        *_queue(queue),
    ]
    wanted, had = Counter(seeded), Counter(start.item for start in started)
    once = sum(count for item, count in wanted.items() if had[item] == count)
    return Verdict(len(seeded), once, started, tuple(pod.name for pod in pods), tuple(findings))


def _items(seeded: Sequence[str], started: Sequence[Start]) -> list[Finding]:
    findings = []
    wanted = Counter(seeded)
    had = Counter(start.item for start in started)
    for item in dict.fromkeys([*seeded, *(start.item for start in started)]):
        if had[item] == wanted[item]:
            continue
        where = ", ".join(
            f"{start.pod} at {clock(start.at)}" for start in started if start.item == item
        )
        times = f"{_times(had[item])} ({where})" if where else "never"
        if item not in wanted:
            rule, text = "unknown-item", f"{item!r} was started {times} but never seeded."
        else:
            rule = "missing-item" if had[item] < wanted[item] else "repeated-item"
            text = f"{item!r} was seeded {_times(wanted[item])} but started {times}."
        findings.append(Finding(rule, text, item))
    return findings


def _pods(pods: Sequence[PodOutcome], lines: Sequence[LogLine]) -> list[Finding]:
    findings = []
    if not pods:
        findings.append(Finding("no-pods", "The Job has no pods."))
    for pod in pods:
        printed = [line.text for line in lines if line.pod == pod.name]
        for what, seen in (
            ("its session ID", any(SESSION.fullmatch(text) for text in printed)),
            ("the initial queue state", any(INITIAL.fullmatch(text) for text in printed)),
            (f"its closing line {CLOSING!r}", CLOSING in printed),
        ):
            if not seen:
                findings.append(Finding("incomplete-log", f"{pod.name} never printed {what}."))
        if pod.phase != "Succeeded":
            findings.append(
                Finding(
                    "pod-not-succeeded",
                    f"{pod.name} on {pod.node or 'no node'} ended as {pod.phase}.",
                )
            )
        if pod.restarts:
            findings.append(
                Finding("pod-restarted", f"{pod.name} was restarted {_times(pod.restarts)}.")
            )
    known = {pod.name for pod in pods}
    for name in dict.fromkeys(line.pod for line in lines if line.pod not in known):
        findings.append(Finding("unknown-pod", f"{name} printed lines but is no pod of the Job."))
    return findings


def _sessions(lines: Sequence[LogLine]) -> list[Finding]:
    holders: dict[str, list[str]] = {}
    for line in lines:
        if match := SESSION.fullmatch(line.text):
            holders.setdefault(match["session"], []).append(line.pod)
    return [
        Finding("shared-session", f"session {session} was printed by {' and '.join(pods)}.")
        for session, pods in holders.items()
        if len(pods) > 1
    ]


def _job(job: JobOutcome) -> list[Finding]:
    if job.complete:
        return []
    why = ": ".join(part for part in (job.reason, job.message) if part) or "no condition was set"
    return [Finding("job-not-complete", f"The Job is not Complete ({why}).")]


def _queue(queue: QueueState) -> list[Finding]:
    return [
        Finding("queue-not-empty", f"{key} still holds {', '.join(map(repr, items))}.")
        for key, items in (("job2", queue.waiting), ("job2:processing", queue.processing))
        if items
    ]


def _times(count: int) -> str:
    return "once" if count == 1 else "twice" if count == 2 else f"{count} times"


def clock(at: float) -> str:
    """A time of day in UTC with tenths of a second, as ``17:07:59.3``."""
    whole, tenth = divmod(round(at * 10), 10)
    seconds = whole % 86400
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{tenth}"
