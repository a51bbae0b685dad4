"""Completions from what Redis's MONITOR prints."""

import pytest
from test_verdict import broken, clean_run, judge, log

from harness.errors import UsageFailure
from harness.faults import SCENARIOS, select
from harness.monitor import Completion, arguments, completions
from harness.verdict import Fault


def line(at, *words):
    return f"{at} [0 lua] ".encode() + b" ".join(b'"%s"' % word.encode() for word in words)


def lease(session, n, item):
    return line("1.5", "HSET", f"job2:leased_by_session:{session}", n, item)


def complete(session, n):
    return line("2.5", "SET", f"job2:completed_by:{session}", n, "EX", "86400", "GET")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'1.25 [0 127.0.0.1:5] "rpush" "job2" "a b"', (1.25, [b"rpush", b"job2", b"a b"])),
        (b'1 [0 lua] "x" "\\x00\\n\\"\\\\" ""', (1.0, [b"x", b'\x00\n"\\', b""])),
    ],
)
def test_a_line_is_read(raw, expected):
    assert arguments(raw) == expected


def test_a_completion_is_that_of_its_lease():
    lines = [lease("s", "1", "apple"), lease("t", "1", "fig"), complete("s", "1")]
    assert completions("job2", lines) == (Completion("apple", "s", 2.5),)


def test_a_retry_is_the_same_completion():
    lines = [lease("s", "1", "apple"), complete("s", "1"), complete("s", "1")]
    assert len(completions("job2", lines)) == 1


def test_what_was_never_leased_or_is_of_another_queue_is_no_completion():
    assert completions("job2", [complete("s", "1")]) == ()
    assert completions("other", [lease("s", "1", "apple"), complete("s", "1")]) == ()


def test_the_same_item_twice_is_two_completions():
    lines = [lease("s", "1", "a"), complete("s", "1"), lease("s", "2", "a"), complete("s", "2")]
    assert [found.item for found in completions("job2", lines)] == ["a", "a"]


FAULT = Fault(("cherry",), frozenset({"pod-a"}))
AGAIN = log("pod-b", "s2", ["banana", "cherry"])


def test_an_item_of_a_broken_pod_may_be_started_again():
    run = clean_run() | {"lines": [*log("pod-a", "s1", ["apple", "cherry"])[:-1], *AGAIN]}
    verdict = judge(**run, completed=["apple", "banana", "cherry"], fault=FAULT)
    assert verdict.holds
    assert str(verdict) == (
        "3 of 3 items, each completed once; 'cherry' was started once more, because its first "
        "holder was broken before the end"
    )
    assert not judge(**run, completed=["apple", "banana", "cherry"]).holds


@pytest.mark.parametrize(
    ("completed", "rule"),
    [
        (["apple", "banana"], "lost-item"),
        (["apple", "banana", "cherry", "cherry"], "completed-again"),
    ],
)
def test_every_item_must_be_completed_once_whatever_was_broken(completed, rule):
    run = clean_run() | {"lines": [*log("pod-a", "s1", ["apple", "cherry"]), *AGAIN]}
    verdict = judge(**run, completed=completed, fault=FAULT)
    assert [finding.rule for finding in verdict.findings] == [rule]


def test_a_pod_that_was_not_broken_must_succeed():
    run = broken(pods=lambda pods: [pods[0], type(pods[1])("pod-b", "n2", "Failed")])
    verdict = judge(**run, completed=run["seeded"], fault=Fault((), frozenset({"pod-a"})))
    assert [finding.rule for finding in verdict.findings] == ["pod-not-succeeded"]


def test_scenarios_are_chosen_by_name():
    assert [scenario.name for scenario in select(["late-items"])] == ["late-items"]
    assert select([]) == SCENARIOS
    with pytest.raises(UsageFailure, match="there is no scenario x; there are pod-deleted"):
        select(["x"])
