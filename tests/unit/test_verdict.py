"""Every rule of the verdict, each with a run in which it fails."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.events import LogLine
from harness.verdict import JobOutcome, PodOutcome, QueueState, clock, judge, starts

T0 = 1_000_000.0


def log(pod, session, items, at=T0):
    texts = [
        f"Worker with sessionID: {session}",
        "Initial queue state: empty=False",
        *(f"Working on {item}" for item in items),
        "Waiting for work",
        "Queue empty, exiting",
    ]
    return [LogLine(pod, 0, text, at=at + n) for n, text in enumerate(texts)]


def clean_run():
    return {
        "seeded": ["apple", "banana", "cherry"],
        "lines": [*log("pod-a", "s1", ["apple", "cherry"]), *log("pod-b", "s2", ["banana"])],
        "pods": [PodOutcome("pod-a", "n1", "Succeeded"), PodOutcome("pod-b", "n2", "Succeeded")],
        "job": JobOutcome(complete=True),
        "queue": QueueState(),
    }


def without(lines, text):
    return [line for line in lines if line.text != text]


def test_a_clean_run_holds():
    verdict = judge(**clean_run())
    assert verdict.holds
    assert str(verdict) == "3 of 3 items, each exactly once"
    assert [(start.item, start.pod) for start in verdict.starts] == [
        ("apple", "pod-a"),
        ("banana", "pod-b"),
        ("cherry", "pod-a"),
    ]


def test_an_item_may_be_seeded_twice():
    run = clean_run() | {"seeded": ["apple", "banana", "apple"]}
    run["lines"] = [*log("pod-a", "s1", ["apple", "apple"]), *log("pod-b", "s2", ["banana"])]
    assert judge(**run).holds


def broken(**changes):
    run = clean_run()
    return run | {key: change(run[key]) for key, change in changes.items()}


FAILING = {
    "missing-item": (
        broken(lines=lambda lines: without(lines, "Working on cherry")),
        "'cherry' was seeded once but started never.",
    ),
    "repeated-item": (
        broken(lines=lambda lines: [*lines, LogLine("pod-b", 0, "Working on apple", at=T0 + 9)]),
        "'apple' was seeded once but started twice (pod-a at 13:46:42.0, pod-b at 13:46:49.0).",
    ),
    "unknown-item": (
        broken(lines=lambda lines: [*lines, LogLine("pod-b", 0, "Working on kiwi", at=T0)]),
        "'kiwi' was started once (pod-b at 13:46:40.0) but never seeded.",
    ),
    "no-pods": (broken(pods=lambda pods: [], lines=lambda lines: []), "The Job has no pods."),
    "incomplete-log": (
        broken(lines=lambda lines: [line for line in lines if "ID" not in line.text]),
        "pod-a never printed its session ID.",
    ),
    "pod-not-succeeded": (
        broken(pods=lambda pods: [replace(pods[0], phase="Failed"), pods[1]]),
        "pod-a on n1 ended as Failed.",
    ),
    "pod-restarted": (
        broken(pods=lambda pods: [replace(pods[0], restarts=1), pods[1]]),
        "pod-a was restarted once.",
    ),
    "unknown-pod": (
        broken(lines=lambda lines: [*lines, LogLine("pod-z", 0, "hello", at=T0)]),
        "pod-z printed lines but is no pod of the Job.",
    ),
    "shared-session": (
        broken(
            lines=lambda lines: [replace(one, text=one.text.replace("s2", "s1")) for one in lines]
        ),
        "session s1 was printed by pod-a and pod-b.",
    ),
    "job-not-complete": (
        broken(job=lambda job: JobOutcome(False, "DeadlineExceeded", "too late")),
        "The Job is not Complete (DeadlineExceeded: too late).",
    ),
    "queue-not-empty": (
        broken(queue=lambda queue: QueueState(processing=("date",))),
        "job2:processing still holds 'date'.",
    ),
}


@pytest.mark.parametrize("rule", FAILING)
def test_a_rule_that_does_not_hold_is_named(rule):
    run, sentence = FAILING[rule]
    verdict = judge(**run)
    assert not verdict.holds
    assert sentence in [finding.text for finding in verdict.findings if finding.rule == rule]


@pytest.mark.parametrize("text", ["Initial queue state: empty=False", "Queue empty, exiting"])
def test_each_of_the_programs_lines_is_missed(text):
    verdict = judge(**broken(lines=lambda lines: without(lines, text)))
    assert [finding.rule for finding in verdict.findings] == ["incomplete-log"] * 2


def test_an_item_waiting_in_the_queue_is_named():
    verdict = judge(**broken(queue=lambda queue: QueueState(waiting=("date",))))
    assert "job2 still holds 'date'." in [finding.text for finding in verdict.findings]


def test_a_job_without_a_condition_is_not_complete():
    verdict = judge(**broken(job=lambda job: JobOutcome(False)))
    assert "The Job is not Complete (no condition was set)." in str(verdict)


def test_an_item_may_look_like_the_programs_own_lines():
    items = ["Queue empty, exiting", "Working on x", " spaced ", "a\rb"]
    run = clean_run() | {"seeded": items}
    run["lines"] = [*log("pod-a", "s1", items), *log("pod-b", "s2", [])]
    assert judge(**run).holds


@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n"), min_size=1)),
    st.randoms(use_true_random=False),
)
def test_exactly_once_holds_for_any_items_and_fails_when_one_is_lost_or_doubled(items, random):
    shuffled = random.sample(items, len(items))
    cut = random.randint(0, len(items))
    run = clean_run() | {"seeded": items}

    def lines(a, b):
        return [*log("pod-a", "s1", a), *log("pod-b", "s2", b)]

    assert judge(**run | {"lines": lines(shuffled[:cut], shuffled[cut:])}).once == len(items)
    if items:
        assert not judge(**run | {"lines": lines(shuffled[1:], [])}).holds
        assert not judge(**run | {"lines": lines([*shuffled, items[0]], [])}).holds


def test_starts_are_in_the_order_of_time():
    lines = [LogLine("p", 0, "Working on b", at=2.0), LogLine("q", 0, "Working on a", at=1.0)]
    assert [start.item for start in starts(lines)] == ["a", "b"]


@pytest.mark.parametrize(
    ("at", "shown"), [(0.0, "00:00:00.0"), (3599.96, "01:00:00.0"), (86399.94, "23:59:59.9")]
)
def test_clock(at, shown):
    assert clock(at) == shown
