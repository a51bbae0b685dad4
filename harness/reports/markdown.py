"""The verdict as Markdown, for a CI system's job summary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.reports.summary import Summary
from harness.verdict import clock


def render(summary: Summary) -> str:
    """The report as Markdown text."""
    return "\n\n".join(part for part in _parts(summary) if part) + "\n"


def _parts(summary: Summary) -> Iterable[str]:
    verdict = summary.verdict
    if summary.failure:
        yield f"## ❌ {summary.failure.kind} failure\n\n{cell(summary.failure.text)}"
    if verdict:
        yield f"## {'✅' if verdict.holds else '❌'} {verdict.once} of {verdict.seeded} items, " + (
            "each exactly once" if verdict.holds else "exactly once"
        )
        yield "\n".join(f"- {cell(finding.text)}" for finding in verdict.findings)
        yield _table(
            ("time (UTC)", "item", "pod"),
            [(clock(start.at), start.item, start.pod) for start in verdict.starts],
        )
    if summary.over_ideal is not None:
        yield (
            f"The Job took {summary.job_seconds:.1f} s, {summary.over_ideal:.2f} times the "
            f"{summary.ideal_seconds:.0f} s that its workers sleep."
        )
    yield _table(("stage", "seconds"), [(name, f"{s:.1f}") for name, s in summary.stages])
    yield _titled(
        "Not as the document has it", [f"`{difference}`" for difference in summary.differences]
    )
    yield _titled(
        "Stood on",
        [f"{name} {version}" for name, version in summary.versions]
        + [f"image {i.name}: `{i.reference}`, from {i.source}" for i in summary.images],
    )


def _titled(title: str, rows: Sequence[str]) -> str:
    return f"### {title}\n\n" + "\n".join(f"- {row}" for row in rows) if rows else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell(value) for value in line) + " |" for line in lines)


def cell(text: str) -> str:
    """Text that can't break a table or a list: bars and angle brackets escaped, one line."""
    for old, new in (("\\", "\\\\"), ("|", "\\|"), ("<", "&lt;"), ("\r", " "), ("\n", " ")):
        text = text.replace(old, new)
    return text
