"""The reports say what happened, in their formats, also for odd items and failed runs."""

import json
from dataclasses import replace
from io import StringIO
from xml.etree import ElementTree

import pytest
from rich.console import Console

from harness import events, reports
from harness.reports import json_report, junit, markdown
from harness.reports.summary import summarise
from harness.terminal import Lines, Walkthrough, told
from harness.verdict import JobOutcome, PodOutcome, QueueState, judge

ITEMS = ("apple", "<b>|", "apple")
T0 = 1_000_000.0


def lines(items):
    texts = [
        "Worker with sessionID: s1",
        "Initial queue state: empty=False",
        *(f"Working on {item}" for item in items),
        "Queue empty, exiting",
    ]
    return [events.LogLine("pod-a", 0, text, at=T0 + n) for n, text in enumerate(texts)]


def stream(items=ITEMS):
    verdict = judge(
        seeded=ITEMS,
        lines=lines(items),
        pods=[PodOutcome("pod-a", "n1", "Succeeded")],
        job=JobOutcome(True),
        queue=QueueState(),
    )
    return [
        events.StageStarted("engine", "Find", at=T0),
        events.StageFinished("engine", 1.5, at=T0 + 2),
        events.VersionFound("kubernetes", "v1.37.2", at=T0 + 2),
        events.ImageObtained("redis", "localhost/redis:1", "packages", at=T0 + 2),
        events.ManifestDiffers(
            file="job.yaml", path="spec.parallelism", document=2, applied=1, at=T0 + 2
        ),
        events.PodChanged("pod-a", "n1", "Running", at=T0 + 3),
        *lines(items),
        events.JobEnded(31.5, 30, at=T0 + 40),
        events.VerdictReached(verdict, at=T0 + 41),
    ]


FAILED = [
    events.StageStarted("engine", "Find", at=T0),
    events.RunFailed("cluster", 4, "a node \x1b is <not> ready; wait.", at=T0 + 1),
]


def test_the_json_report_has_everything():
    report = json.loads(json_report.render(summarise(stream())))
    assert report["clean"] is True
    assert report["verdict"] == "3 of 3 items, each exactly once"
    assert report["items"] == {"seeded": 3, "exactly_once": 3}
    assert [start["item"] for start in report["starts"]] == list(ITEMS)
    assert report["pods"][0]["items"] == list(ITEMS)
    assert report["stages"] == [{"stage": "engine", "seconds": 1.5}]
    assert report["job"] == {"seconds": 31.5, "ideal_seconds": 30, "over_ideal": 1.05}
    assert report["differences"][0]["path"] == "spec.parallelism"
    assert report["versions"] == {"kubernetes": "v1.37.2"}
    assert report["seconds"] == 41
    assert report["log"][0]["at"] == "1970-01-12T13:46:40.000+00:00"


def test_the_json_report_of_a_failed_run_names_the_failure():
    report = json.loads(json_report.render(summarise(FAILED)))
    assert report["clean"] is False
    assert report["verdict"] is None
    assert report["failure"]["exit_code"] == 4


def suite(of, items=ITEMS):
    return ElementTree.fromstring(junit.render(summarise(of), items))


def test_junit_has_a_case_for_each_item():
    found = suite(stream())
    names = [case.get("name") for case in found.iter("testcase")]
    assert names == ["apple", "<b>|", "every other rule holds"]
    assert (found.get("tests"), found.get("failures"), found.get("errors")) == ("3", "0", "0")


def test_junit_shows_a_missing_item_red_by_name():
    found = suite(stream(items=("apple", "apple")))
    failed = [
        case.get("name") for case in found.iter("testcase") if case.find("failure") is not None
    ]
    assert failed == ["<b>|"]
    assert found.get("failures") == "1"


def test_junit_shows_an_unknown_item():
    found = suite(stream(items=(*ITEMS, "kiwi")))
    failed = [
        case.get("name") for case in found.iter("testcase") if case.find("failure") is not None
    ]
    assert failed == ["kiwi"]


def test_junit_of_a_failed_run_has_an_error_and_skips_the_items():
    found = suite(FAILED)
    assert found.find("testcase/error").get("message") == "a node \\x1b is <not> ready; wait."
    assert (found.get("errors"), found.get("skipped")) == ("1", "2")


def test_markdown_of_a_clean_run():
    text = markdown.render(summarise(stream()))
    assert "## ✅ 3 of 3 items, each exactly once" in text
    assert "&lt;b>\\|" in text
    assert "1.05 times the 30 s" in text
    assert "`job.yaml: spec.parallelism 2 -> 1`" in text


def test_markdown_of_a_run_that_does_not_hold():
    text = markdown.render(summarise(stream(items=("apple", "apple"))))
    assert "## ❌ 2 of 3 items, exactly once" in text
    assert "started never" in text


def test_markdown_of_a_failed_run():
    assert "## ❌ cluster failure" in markdown.render(summarise(FAILED))


def test_all_reports_are_written_and_the_job_summary_is_fed(tmp_path, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    summary = reports.write(tmp_path / "out", stream(), ITEMS)
    assert summary.clean
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "junit.xml",
        "report.json",
        "verdict.md",
    ]
    assert (tmp_path / "summary.md").read_text() == (tmp_path / "out" / "verdict.md").read_text()


def shown(view, of):
    for event in of:
        view(event)
    return view.console.file.getvalue()


def console(**options):
    return Console(file=StringIO(), width=80, **options)


def test_lines_show_every_step_without_colour_codes():
    text = shown(Lines(console()), stream())
    assert "==> Find" in text
    assert "not as the document: job.yaml: spec.parallelism 2 -> 1" in text
    assert "13:46:42.0 pod-a Working on apple" in text
    assert "3 of 3 items, each exactly once" in text
    assert "\x1b" not in text


def test_brackets_in_items_are_no_markup():
    event = events.LogLine("pod", 0, "Working on [red]x[/red]", at=0.0)
    view = Lines(console())
    view(event)
    assert "Working on [red]x[/red]" in view.console.file.getvalue()


def test_what_nobody_needs_is_not_told():
    assert told(events.QueueObserved(1, 1)) is None


def test_the_walkthrough_shows_who_works_on_what():
    view = Walkthrough(console(force_terminal=True), items=3)
    started = replace(stream()[0], stage="job")
    for event in [started, *stream()[5:9], events.QueueObserved(2, 1)]:
        view(event)
    screen = console()
    screen.print(view.view())
    assert "pod-a" in screen.file.getvalue()
    assert "apple" in screen.file.getvalue()
    assert "waiting in job2: 2 of 3" in screen.file.getvalue()
    view.close()
    assert view.live is None


@pytest.mark.parametrize("text", ["a|b", "a\nb", "<script>", "a\\b"])
def test_markdown_cells_stay_in_their_row(text):
    cell = markdown.cell(text)
    assert "\n" not in cell
    assert "<" not in cell
    assert cell.replace("\\|", "").count("|") == 0
