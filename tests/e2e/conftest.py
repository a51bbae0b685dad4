"""The tutorial's fixtures, and a look at what is on the machine."""

import os
from pathlib import Path

import pytest

from harness import engine, tutorial
from harness.fixtures import ground, job_run, kind_cluster

__all__ = ["ground", "job_run", "kind_cluster"]


@pytest.fixture(scope="session")
def docker_engine():
    found = engine.ensure(print)
    tutorial.sweep(found, print)  # or the first run here would, and not leave things as they were
    return found


@pytest.fixture
def machine(docker_engine):
    """Gives what a run must leave as it was: containers, networks, volumes, the kubeconfig."""

    def look():
        client = docker_engine.client
        kubeconfig = Path(os.environ.get("KUBECONFIG", Path.home() / ".kube" / "config"))
        return {
            "containers": {found["Id"] for found in client.api.containers(all=True)},
            "networks": {found["Id"] for found in client.api.networks()},
            "volumes": {found["Name"] for found in client.api.volumes()["Volumes"] or []},
            "kubeconfig": kubeconfig.read_bytes() if kubeconfig.exists() else None,
        }

    return look
