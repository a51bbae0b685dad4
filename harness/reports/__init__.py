"""What a run leaves behind for people and for machines to read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from harness.events import Event
from harness.reports import json_report, junit, markdown
from harness.reports.summary import Summary, summarise


def write(folder: Path, stream: Sequence[Event], items: tuple[str, ...]) -> Summary:
    """Write ``report.json``, ``junit.xml`` and ``verdict.md`` into `folder`.

    In a GitHub Actions job the Markdown is also appended to the job's summary.
    """
    summary = summarise(stream)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json_report.render(summary), encoding="utf-8")
    (folder / "junit.xml").write_text(junit.render(summary, items), encoding="utf-8")
    text = markdown.render(summary)
    (folder / "verdict.md").write_text(text, encoding="utf-8")
    if job_summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(job_summary).open("a", encoding="utf-8") as sink:
            sink.write(text)
    return summary
