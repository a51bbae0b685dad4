"""The tutorial on a real kind cluster, as a page's maintainer would assert it."""

import itertools
import json
from collections import Counter
from xml.etree import ElementTree

from harness.events import ItemSeeded, QueueObserved
from harness.queue import DOCUMENT_ITEMS


def test_every_item_once(job_run):
    assert job_run.verdict.holds, str(job_run.verdict)
    assert Counter(start.item for start in job_run.verdict.starts) == Counter(DOCUMENT_ITEMS)


def test_two_pods_shared_the_work(job_run):
    worked = Counter(start.pod for start in job_run.verdict.starts)
    assert len(worked) == 2
    assert min(worked.values()) > 1


def test_the_pods_ran_on_the_worker_nodes(job_run, kind_cluster):
    nodes = {pod.node for pod in job_run.summary.pods}
    assert nodes <= set(kind_cluster.nodes())
    assert not any("control-plane" in node for node in nodes)


def test_a_pod_starts_its_next_item_after_the_documents_ten_seconds(job_run):
    for pod in job_run.verdict.pods:
        times = [start.at for start in job_run.verdict.starts if start.pod == pod]
        assert all(later - earlier >= 10 for earlier, later in itertools.pairwise(times))


def test_the_answers_of_rpush_are_the_documents(job_run):
    seeded = [event for event in job_run.events if isinstance(event, ItemSeeded)]
    assert [(event.item, event.length) for event in seeded] == [
        (item, n) for n, item in enumerate(DOCUMENT_ITEMS, 1)
    ]


def test_the_queue_was_watched_down_to_nothing(job_run):
    observed = [event for event in job_run.events if isinstance(event, QueueObserved)]
    assert len(observed) == len(DOCUMENT_ITEMS)
    assert observed[-1].waiting == 0


def test_every_difference_to_the_document_is_reported(job_run):
    places = {f"{d.file}: {d.path}" for d in job_run.summary.differences}
    assert "job.yaml: spec.template.spec.containers[0].image" in places
    # the image of redis and python only where no registry is in reach
    assert places <= {
        "job.yaml: spec.template.spec.containers[0].image",
        "redis-pod.yaml: spec.containers[0].image",
        "redis-pod.yaml: spec.containers[0].imagePullPolicy",
        "Dockerfile: FROM",
    }


def test_the_reports_are_there(job_run):
    report = json.loads((job_run.out / "report.json").read_text())
    assert report["verdict"] == "9 of 9 items, each exactly once"
    assert report["job"]["ideal_seconds"] == 50
    suite = ElementTree.parse(job_run.out / "junit.xml").getroot()
    assert {case.get("name") for case in suite} >= set(DOCUMENT_ITEMS)
    assert "each exactly once" in (job_run.out / "verdict.md").read_text()
