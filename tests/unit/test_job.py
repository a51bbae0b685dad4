"""What is decided about Jobs and pods, from objects as the API has them."""

import pytest

from harness.events import LogLine
from harness.job import fatal, instances, job_outcome, outcome, pod_state
from harness.logs import parse
from harness.verdict import JobOutcome, PodOutcome


def pod(*, phase="Running", restarts=0, state=None, last=None, deleted=False):
    status = {"name": "c", "restartCount": restarts, "state": state or {}, "lastState": last or {}}
    return {
        "metadata": {"name": "p"} | ({"deletionTimestamp": "now"} if deleted else {}),
        "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "localhost/x:1"}]},
        "status": {"phase": phase, "containerStatuses": [status] if state is not None else []},
    }


def waiting(reason, message="why"):
    return {"waiting": {"reason": reason, "message": message}}


TERMINATED = {"terminated": {"exitCode": 3}}


@pytest.mark.parametrize(
    "reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"]
)
def test_a_pod_without_its_image_is_told_at_once(reason):
    assert fatal(pod(phase="Pending", state=waiting(reason)), "nothing") == (
        f"the pod p can't get its image localhost/x:1 ({reason}: why); "
        "check the image's name and its registry."
    )


def test_a_pod_that_crashes_again_and_again_is_told():
    crashed = pod(restarts=2, state=waiting("CrashLoopBackOff"), last=TERMINATED)
    assert fatal(crashed, "boom") == (
        "the pod p crashes again and again (exit code 3, last line: boom); see its log."
    )


def test_a_container_that_can_not_be_created_is_told():
    broken = pod(state=waiting("CreateContainerConfigError"))
    assert "can't start (CreateContainerConfigError: why)" in fatal(broken, "nothing")


@pytest.mark.parametrize(
    "alive",
    [
        pod(phase="Pending"),
        pod(phase="Pending", state=waiting("ContainerCreating")),
        pod(state={"running": {}}),
        pod(restarts=1, state=waiting("CrashLoopBackOff"), last=TERMINATED),
        pod(restarts=5, state={"running": {}}, last=TERMINATED),
        pod(phase="Succeeded", state=TERMINATED),
    ],
)
def test_a_pod_that_may_still_work_is_left_alone(alive):
    assert fatal(alive, "nothing") is None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (pod(phase="Pending"), []),
        (pod(state=waiting("ContainerCreating")), []),
        (pod(state={"running": {}}), [0]),
        (pod(state=TERMINATED), [0]),
        (pod(restarts=2, state={"running": {}}, last=TERMINATED), [1, 2]),
        (pod(restarts=2, state=waiting("CrashLoopBackOff"), last=TERMINATED), [1]),
    ],
)
def test_instances_that_have_a_log(given, expected):
    assert instances(given) == expected


@pytest.mark.parametrize(
    ("given", "state"),
    [
        (pod(), "Running"),
        (pod(state=waiting("ErrImagePull")), "ErrImagePull"),
        (pod(deleted=True), "Terminating"),
        (pod(phase="Succeeded", state=TERMINATED), "Succeeded"),
    ],
)
def test_pod_state(given, state):
    assert pod_state(given) == state


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([], None),
        ([{"type": "Complete", "status": "False"}], None),
        ([{"type": "SuccessCriteriaMet", "status": "True"}], None),
        ([{"type": "Complete", "status": "True"}], JobOutcome(True)),
        (
            [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}],
            JobOutcome(False, "BackoffLimitExceeded"),
        ),
    ],
)
def test_job_outcome(conditions, expected):
    assert job_outcome({"status": {"conditions": conditions}}) == expected


def test_pod_outcome():
    ended = pod(phase="Succeeded", restarts=1, state=TERMINATED)
    assert outcome(ended) == PodOutcome("p", "n", "Succeeded", 1)


@pytest.mark.parametrize(
    ("raw", "at", "text"),
    [
        (b"1970-01-01T00:00:01.5Z Working on apple", 1_500_000_000, "Working on apple"),
        (b"1970-01-01T00:00:01Z ", 1_000_000_000, ""),
        (b"1970-01-01T00:00:01.000000001Z a  b\r", 1_000_000_001, "a  b\r"),
        (b"1970-01-01T00:00:00Z \xff", 0, "\\xff"),
    ],
)
def test_a_log_line_is_parsed(raw, at, text):
    assert parse("p", 2, raw) == (at, LogLine("p", 2, text, at=at / 1e9))


@pytest.mark.parametrize("raw", [b"", b"unable to retrieve container logs", b"1970 x"])
def test_what_has_no_timestamp_is_no_line(raw):
    with pytest.raises(ValueError, match="no timestamp"):
        parse("p", 0, raw)
