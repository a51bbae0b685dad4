"""The JSON report: everything, for machines."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime

from harness.reports.summary import Summary

SCHEMA = 1


def render(summary: Summary) -> str:
    """The report as JSON text; `schema` counts up when a field changes its meaning."""
    verdict = summary.verdict
    document = {
        "schema": SCHEMA,
        "verdict": str(verdict) if verdict else None,
        "clean": summary.clean,
        "failure": asdict(summary.failure) if summary.failure else None,
        "items": {
            "seeded": verdict.seeded if verdict else None,
            "exactly_once": verdict.once if verdict else None,
        },
        "findings": [asdict(finding) for finding in verdict.findings] if verdict else [],
        "starts": [
            {"item": start.item, "pod": start.pod, "at": stamp(start.at)}
            for start in (verdict.starts if verdict else ())
        ],
        "pods": [asdict(pod) for pod in summary.pods],
        "started": stamp(summary.started),
        "seconds": round(summary.seconds, 3),
        "stages": [
            {"stage": name, "seconds": round(seconds, 3)} for name, seconds in summary.stages
        ],
        "job": {
            "seconds": _rounded(summary.job_seconds),
            "ideal_seconds": summary.ideal_seconds,
            "over_ideal": _rounded(summary.over_ideal),
        },
        "differences": [
            {"file": d.file, "path": d.path, "document": d.document, "applied": d.applied}
            for d in summary.differences
        ],
        "images": [
            {"name": image.name, "reference": image.reference, "source": image.source}
            for image in summary.images
        ],
        "versions": dict(summary.versions),
        "log": [
            {"pod": line.pod, "restarts": line.restarts, "at": stamp(line.at), "text": line.text}
            for line in summary.lines
        ],
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def stamp(at: float) -> str:
    """Seconds since the epoch as an ISO 8601 time in UTC with milliseconds."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
