"""What goes wrong on a real cluster is told in one sentence, soon, and nothing is lost."""

import subprocess
import sys
import threading
import time

import pytest
import yaml

from harness import job, queue
from harness.cluster import wait_until_ready
from harness.errors import ClusterFailure, TutorialFailure, UsageFailure
from harness.events import LogLine, PodChanged, Recorder
from harness.images import worker
from harness.settings import Settings
from harness.tutorial import prepare


@pytest.fixture
def started(kind_cluster, job_run, tmp_path):
    """Starts a Job of one pod on the worker image that runs a shell script; gives its name."""
    made = []
    image = next(
        difference.applied
        for difference in job_run.summary.differences
        if str(difference.applied).startswith(worker.REPOSITORY)
    )

    def start(name, script, image=image):
        container = {"name": "c", "image": image, "command": ["sh", "-c", script]}
        container["volumeMounts"] = [{"name": "scratch", "mountPath": "/scratch"}]
        volumes = [{"name": "scratch", "emptyDir": {}}]
        spec = {"containers": [container], "volumes": volumes, "restartPolicy": "OnFailure"}
        spec["terminationGracePeriodSeconds"] = 1
        manifest = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": name},
            "spec": {"template": {"spec": spec}},
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(manifest))
        kind_cluster.kubectl("apply", "-f", str(path))
        made.append(name)
        return name

    yield start
    for name in made:
        kind_cluster.kubectl("delete", "job", name, "--cascade=foreground", "--timeout=60s")


def watch(cluster, name, seconds=120.0, emit=None):
    return job.watch(cluster.kubeconfig_path, emit=emit or Recorder(), seconds=seconds, name=name)


def test_an_image_that_can_not_be_pulled_is_told_within_seconds(kind_cluster, started):
    name = started("no-image", "true", image="localhost/no/such-image:1")
    began = time.monotonic()
    with pytest.raises(TutorialFailure, match="can't get its image localhost/no/such-image:1"):
        watch(kind_cluster, name)
    assert time.monotonic() - began < 30  # and not the 120 s that the Job was given


def test_a_pod_that_crashes_again_and_again_is_told(kind_cluster, started):
    name = started("crashes", "echo boom; exit 3")
    with pytest.raises(TutorialFailure, match=r"crashes again and again \(exit code 3, .*boom\)"):
        watch(kind_cluster, name)


def test_a_job_that_takes_too_long_is_told(kind_cluster, started):
    name = started("slow", "echo up; sleep 60")
    with pytest.raises(TutorialFailure, match="the Job slow was not complete within 5 s"):
        watch(kind_cluster, name, seconds=5)


def test_a_restarted_container_loses_no_line(kind_cluster, started):
    name = started(
        "restarts",
        "if mkdir /scratch/x 2>/dev/null; then echo first; exit 1; else echo second; fi",
    )
    ran = watch(kind_cluster, name)
    assert ran.job.complete
    assert [(line.text, line.restarts) for line in ran.lines] == [("first", 0), ("second", 1)]
    assert ran.pods[0].restarts == 1


def test_a_deleted_pod_loses_no_line(kind_cluster, started):
    name = started("deleted", "for n in $(seq 5); do echo line $n; done; sleep 5; echo last")
    printed = threading.Event()

    def see(event):
        if isinstance(event, LogLine) and event.text == "line 5":
            printed.set()

    def delete_first_pod():
        assert printed.wait(60)
        kind_cluster.kubectl(
            "delete", "pod", "-l", f"batch.kubernetes.io/job-name={name}", "--grace-period=1"
        )

    deleting = threading.Thread(target=delete_first_pod)
    deleting.start()
    ran = watch(kind_cluster, name, emit=Recorder(see))
    deleting.join()
    assert len(ran.pods) == 2
    by_pod = [[line.text for line in ran.lines if line.pod == pod.name] for pod in ran.pods]
    five = [f"line {n}" for n in range(1, 6)]
    assert by_pod == [five, [*five, "last"]]


def test_many_lines_at_once_are_all_there_once(kind_cluster, started):
    name = started("many", "seq 20000")
    ran = watch(kind_cluster, name)
    assert [line.text for line in ran.lines] == [str(n) for n in range(1, 20001)]


def test_pods_are_shown_as_they_change(kind_cluster, started):
    recorder = Recorder()
    watch(kind_cluster, started("changes", "true"), emit=recorder)
    states = [event.state for event in recorder.events if isinstance(event, PodChanged)]
    assert states[-1] == "Succeeded"
    assert len(states) == len(set(states))


def test_a_node_that_never_gets_ready_is_told(kind_cluster):
    with pytest.raises(ClusterFailure, match=r"all 4 nodes Ready was awaited for 2 s, but .*Ready"):
        wait_until_ready(kind_cluster.kube, 4, seconds=2)


def test_redis_that_does_not_answer_is_told(kind_cluster):
    client = queue.connect(kind_cluster.kube, "no-such-pod")
    with pytest.raises(TutorialFailure, match="Redis in redis-master did not answer"):
        queue.seed(client, ["apple"], Recorder())
    with pytest.raises(
        TutorialFailure, match="a PONG of Redis in redis-master was awaited for 1 s"
    ):
        queue.wait_until_answering(client, seconds=1)


def test_a_queue_that_is_not_empty_is_not_seeded(kind_cluster, job_run, tmp_path):
    documents = prepare(Settings(items=("apple",)))
    image = next(image.reference for image in job_run.summary.images if image.name == "redis")
    pod = documents.redis(image)[0]
    (tmp_path / "pod.yaml").write_text(pod.text())
    kind_cluster.kubectl("apply", "-f", str(tmp_path / "pod.yaml"))
    kind_cluster.kubectl("wait", "--for=condition=Ready", "pod/redis-master", "--timeout=60s")
    try:
        client = queue.connect(kind_cluster.kube)
        queue.wait_until_answering(client)
        queue.seed(client, ["apple"], Recorder())
        assert queue.inspect(client).waiting == ("apple",)
        with pytest.raises(TutorialFailure, match="job2 already holds 1 items"):
            queue.seed(client, ["apple"], Recorder())
        assert queue.inspect(client).waiting == ("apple",)
    finally:
        kind_cluster.kubectl("delete", "pod", "redis-master")


def test_a_name_that_is_taken_is_told(kind_cluster, docker_engine):
    network = docker_engine.client.networks.create("taken-by-somebody")
    try:
        other = type(kind_cluster)(
            docker_engine, "taken-by-somebody", node_image="x", kind="kind", kubectl="kubectl"
        )
        with pytest.raises(UsageFailure, match="a cluster named taken-by-somebody is already"):
            other.reserve(kept=False)
    finally:
        network.remove()


def test_a_manifest_that_the_api_refuses_is_told(kind_cluster, job_run, tmp_path):
    for path in (Settings().manifests).glob("*.yaml"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    pod = yaml.safe_load((tmp_path / "redis-pod.yaml").read_text())
    pod["spec"]["containers"][0]["ports"][0]["containerPort"] = 70000
    (tmp_path / "redis-pod.yaml").write_text(yaml.safe_dump(pod))
    words = ["run", "--name", kind_cluster.name, "--manifests", str(tmp_path)]
    ended = subprocess.run(
        [sys.executable, "-m", "harness", *words, "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 5
    assert "kubectl apply -f redis-pod.yaml failed" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert (tmp_path / "out" / "diagnostics" / "events.txt").exists()
