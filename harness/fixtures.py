"""pytest fixtures over pytest-kind, to assert the tutorial, or a Job of your own, in pytest.

Import them in a ``conftest.py``; they take pytest-kind's options ``--cluster-name`` and
``--keep-cluster``::

    from harness.fixtures import ground, job_run, kind_cluster

    def test_every_item_once(job_run):
        assert job_run.verdict.holds, str(job_run.verdict)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness import cluster as clusters
from harness import engine, process, tutorial
from harness.cluster import Cluster
from harness.events import Event, Recorder
from harness.reports import write
from harness.reports.summary import Summary
from harness.settings import Settings, unique_name
from harness.tutorial import Ground
from harness.verdict import Verdict

PYTEST_KIND_NAME = "pytest-kind"  # its default for --cluster-name


@dataclass(frozen=True)
class TutorialRun:
    """A run of the tutorial.

    Attributes:
        verdict: its judgement.
        summary: everything that the reports say.
        events: in the order of their arrival.
        out: the folder with the reports.
    """

    verdict: Verdict
    summary: Summary
    events: tuple[Event, ...]
    out: Path


@pytest.fixture(scope="session")
def ground(request: pytest.FixtureRequest) -> Iterator[Ground]:
    """A kind cluster with the tutorial's images in it, deleted after the session unless kept."""
    chosen = request.config.getoption("cluster_name")
    name = unique_name() if chosen == PYTEST_KIND_NAME else chosen
    settings = Settings(name=name, keep=True)
    try:
        yield tutorial.up(settings, Recorder(), process.Cancellation())
    finally:
        docker = engine.find()
        made = docker and any(found.name == name for found in clusters.find_all(docker))
        if docker and made and not request.config.getoption("keep_cluster"):
            clusters.delete(docker, name)


@pytest.fixture(scope="session")
def kind_cluster(ground: Ground) -> Cluster:
    """The cluster itself: pytest-kind's fixture, on a cluster of the harness."""
    return ground.cluster


@pytest.fixture(scope="session")
def job_run(kind_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> TutorialRun:
    """The tutorial, run once on the session's cluster."""
    return run_tutorial(Settings(name=kind_cluster.name, out=tmp_path_factory.mktemp("out")))


def run_tutorial(settings: Settings) -> TutorialRun:
    """Run the tutorial and write its reports.

    Raises:
        HarnessError: it ended before a verdict.
    """
    recorder = Recorder()
    try:
        verdict = tutorial.run(settings, recorder, process.Cancellation())
    finally:
        summary = write(settings.out, recorder.events, settings.items)
    return TutorialRun(verdict, summary, tuple(recorder.events), settings.out)
