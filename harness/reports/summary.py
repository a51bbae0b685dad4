"""A run's events folded into what every report says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from harness import events
from harness.verdict import Verdict

E = TypeVar("E", bound=events.Event)


@dataclass(frozen=True)
class PodSummary:
    """What one pod did: its node, its items in order, and its last state."""

    name: str
    node: str
    state: str
    items: tuple[str, ...]


@dataclass(frozen=True)
class Summary:
    """Everything that a report may say of a run.

    Attributes:
        verdict: None when the run ended before it.
        failure: why it ended before it.
        stages: seconds of each finished section, in order.
        job_seconds: from ``kubectl apply`` to the Job's end; None when it did not end.
        ideal_seconds: what the document's sleeping alone takes.
        differences: what was not as the document has it.
        images: what each image was and where it came from.
        versions: of the programs that the run stood on.
        pods: of the Job.
        lines: all that they printed.
        started: seconds since the epoch.
        seconds: of the whole run.
    """

    verdict: Verdict | None
    failure: events.RunFailed | None
    stages: tuple[tuple[str, float], ...]
    job_seconds: float | None
    ideal_seconds: float | None
    differences: tuple[events.ManifestDiffers, ...]
    images: tuple[events.ImageObtained, ...]
    versions: tuple[tuple[str, str], ...]
    pods: tuple[PodSummary, ...]
    lines: tuple[events.LogLine, ...]
    started: float
    seconds: float

    @property
    def clean(self) -> bool:
        """True when there is a verdict and it holds."""
        return self.verdict is not None and self.verdict.holds

    @property
    def over_ideal(self) -> float | None:
        """The Job's duration over its ideal."""
        if self.job_seconds is None or not self.ideal_seconds:
            return None
        return self.job_seconds / self.ideal_seconds


def summarise(stream: Sequence[events.Event]) -> Summary:
    """Fold a run's events; the last of a kind wins where there can be one only."""

    def every(kind: type[E]) -> list[E]:
        return [event for event in stream if isinstance(event, kind)]

    ends = every(events.JobEnded)
    verdicts = every(events.VerdictReached)
    failures = every(events.RunFailed)
    verdict = verdicts[-1].verdict if verdicts else None
    times = [event.at for event in stream if not isinstance(event, events.LogLine)]
    return Summary(
        verdict=verdict,
        failure=failures[-1] if failures else None,
        stages=tuple((stage.stage, stage.seconds) for stage in every(events.StageFinished)),
        job_seconds=ends[-1].seconds if ends else None,
        ideal_seconds=ends[-1].ideal if ends else None,
        differences=tuple(every(events.ManifestDiffers)),
        images=tuple(every(events.ImageObtained)),
        versions=tuple((found.name, found.version) for found in every(events.VersionFound)),
        pods=_pods(every(events.PodChanged), verdict),
        lines=tuple(every(events.LogLine)),
        started=min(times, default=0.0),
        seconds=max(times, default=0.0) - min(times, default=0.0),
    )


def _pods(changes: Sequence[events.PodChanged], verdict: Verdict | None) -> tuple[PodSummary, ...]:
    last = {change.pod: change for change in changes}
    starts = verdict.starts if verdict else ()
    return tuple(
        PodSummary(
            name=name,
            node=change.node,
            state=change.state,
            items=tuple(start.item for start in starts if start.pod == name),
        )
        for name, change in last.items()
    )
