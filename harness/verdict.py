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
class Fault:
    """What a fault excuses.

    Attributes:
        items: those that a broken pod had in its hands; each may be started once more.
        pods: those that were broken; they need not succeed, nor print all their lines.
    """

    items: tuple[str, ...] = ()
    pods: frozenset[str] = frozenset()


NO_FAULT = Fault()


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
        excused: why something that looks wrong is right, one sentence each.
        completions_known: `once` counts completions and not starts.
    """

    seeded: int
    once: int
    starts: tuple[Start, ...]
    pods: tuple[str, ...]
    findings: tuple[Finding, ...]
    excused: tuple[str, ...] = ()
    completions_known: bool = False

    @property
    def holds(self) -> bool:
        """True when every rule holds."""
        return not self.findings

    def __str__(self) -> str:
        what = "completed once" if self.completions_known else "exactly once"
        if self.holds:
            clean = f"{self.once} of {self.seeded} items, each {what}"
            return "; ".join((clean, *self.excused))
        return f"{self.once} of {self.seeded} items {what}; " + " ".join(
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
    completed: Sequence[str] | None = None,
    fault: Fault = NO_FAULT,
) -> Verdict:
    """Judge a run.

    Without a fault each item is started exactly once. With one, what the broken pods held is
    started once more, because delivery is at least once; completions count once all the same.

    Args:
        seeded: the items pushed, an item as often as it was pushed.
        lines: everything that the Job's pods printed.
        pods: every pod of the Job, also one that was deleted.
        job: how the Job ended.
        queue: the queue after the Job.
        completed: the items of the completions that counted; None when they were not watched.
        fault: what was broken on purpose.
    """
    started = starts(lines)
    sound = [line for line in lines if line.pod not in fault.pods]
    findings = [
        *_items([*seeded, *fault.items], started),
        *_completions(seeded, completed),
        *_pods([pod for pod in pods if pod.name not in fault.pods], sound),
        *_sessions(sound),
        *_job(job),
        *_queue(queue),
    ]
    wanted, had = Counter(seeded), Counter(start.item for start in started)
    if completed is not None:
        had = Counter(completed)
    once = sum(count for item, count in wanted.items() if had[item] == count)
    return Verdict(
        seeded=len(seeded),
        once=once,
        starts=started,
        pods=tuple(pod.name for pod in pods),
        findings=tuple(findings),
        excused=tuple(
            f"{item!r} was started once more, because its first holder was broken before the end"
            for item in fault.items
        ),
        completions_known=completed is not None,
    )


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
        times = f"{_times(had[item])} ({where})" if where else _times(0)
        if item not in wanted:
            rule, text = "unknown-item", f"{item!r} was started {times} but never seeded."
        else:
            rule = "missing-item" if had[item] < wanted[item] else "repeated-item"
            text = f"{item!r} was seeded {_times(wanted[item])} but started {times}."
        findings.append(Finding(rule, text, item))
    return findings


def _completions(seeded: Sequence[str], completed: Sequence[str] | None) -> list[Finding]:
    if completed is None:
        return []
    wanted, had = Counter(seeded), Counter(completed)
    return [
        Finding(
            "lost-item" if had[item] < wanted[item] else "completed-again",
            f"{item!r} was seeded {_times(wanted[item])} but completed {_times(had[item])}.",
            item,
        )
        for item in dict.fromkeys([*seeded, *completed])
        if had[item] != wanted[item]
    ]


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
    return (
        "never"
        if count == 0
        else "once"
        if count == 1
        else "twice"
        if count == 2
        else f"{count} times"
    )


def clock(at: float) -> str:
    """A time of day in UTC with tenths of a second, as ``17:07:59.3``."""
    whole, tenth = divmod(round(at * 10), 10)
    seconds = whole % 86400
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{tenth}"
