"""Save what explains a failure, before the cluster is gone."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from harness.cluster import Cluster
from harness.events import Emit, Progress

KUBECTL_SECONDS = 20.0
EXPORT_SECONDS = 60.0
QUESTIONS = {
    "pods.txt": ("get", "pods", "--all-namespaces", "-o", "wide"),
    "nodes.txt": ("describe", "nodes"),
    "events.txt": ("get", "events", "--all-namespaces", "--sort-by=.lastTimestamp"),
    "describe.txt": ("describe", "pods,jobs,services,endpointslices"),
    "job-logs.txt": (
        "logs",
        "--selector=batch.kubernetes.io/job-name=job-wq-2",
        "--prefix",
        "--timestamps",
        "--tail=-1",
    ),
    "redis-log.txt": ("logs", "redis-master", "--timestamps"),
}


def collect(cluster: Cluster, folder: Path, emit: Emit) -> None:
    """Save pods, events, descriptions, pods' logs, nodes' logs and kind's log into `folder`.

    Answers that can't be had are replaced by the reason: a broken cluster is when this is used.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    emit(Progress("diagnostics", f"saving diagnostics to {folder}"))
    if cluster.log.exists():
        shutil.copy(cluster.log, folder / "kind.log")
    if cluster.kubeconfig_path.exists() and cluster.kubeconfig_path.stat().st_size:
        for name, question in QUESTIONS.items():
            (folder / name).write_text(_kubectl(cluster, question))
    try:
        subprocess.run(
            [
                str(cluster.kind_path),
                "export",
                "logs",
                str(folder / "nodes"),
                f"--name={cluster.name}",
            ],
            timeout=EXPORT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        (folder / "nodes.txt").write_text(f"not to be had: {error}\n")


def _kubectl(cluster: Cluster, question: tuple[str, ...]) -> str:
    try:
        answer: str = cluster.kubectl(*question, timeout=KUBECTL_SECONDS, stderr=subprocess.STDOUT)
    except subprocess.CalledProcessError as error:
        return f"kubectl exited with {error.returncode}: {error.output}"
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"not to be had: {error}\n"
    return answer
