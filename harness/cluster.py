"""A kind cluster of the run's own, through pytest-kind.

Every cluster gets a Docker network of its own, which carries this project's labels: that is how
the harness knows later which clusters it made, whose process is gone, and which to keep. kind's
shared network, other clusters and the user's kubeconfig are never touched.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import docker.errors
import yaml
from docker.models.containers import Container
from pytest_kind import KindCluster

from harness import oci_runtime, paths
from harness.engine import Engine, last_error, local_daemon, started_at
from harness.errors import ClusterFailure, UsageFailure
from harness.kube import Kube, Object

LABEL = paths.PROJECT
NODE_LABEL = "io.x-k8s.kind.cluster"  # kind's, on every node's container
READY_SECONDS = 120.0
# A cluster of one control plane that lives for minutes: nothing to elect, nothing to survive a
# power cut, and a controller manager that may ask as fast as it can, so that kubeadm's join finds
# the token signed at once and not at its second look, five seconds later.
SHORT_LIVED: Object = {
    "kind": "ClusterConfiguration",
    "encryptionAlgorithm": "ECDSA-P256",
    "etcd": {"local": {"extraArgs": [{"name": "unsafe-no-fsync", "value": "true"}]}},
    "controllerManager": {
        "extraArgs": [
            {"name": "leader-elect", "value": "false"},
            {"name": "kube-api-qps", "value": "1000"},
            {"name": "kube-api-burst", "value": "1000"},
        ]
    },
    "scheduler": {"extraArgs": [{"name": "leader-elect", "value": "false"}]},
}


@dataclass(frozen=True)
class Found:
    """A cluster that the harness made.

    Attributes:
        name: of the cluster and of its network.
        kept: its maker asked to keep it.
        running: the process that made it may still run.
        nodes: names of its nodes' containers.
    """

    name: str
    kept: bool
    running: bool
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Owner:
    """The process that made a cluster, told apart from all that ever ran on any machine.

    Attributes:
        boot: id of the boot that it ran in.
        namespace: of its process id; another container has another.
        pid: its process id.
        started: its start, because process ids are used again.
    """

    boot: str
    namespace: str
    pid: int
    started: str | None

    @classmethod
    def present(cls) -> Owner:
        """This process."""
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
        return cls(boot, namespace, os.getpid(), started_at(os.getpid()))

    @classmethod
    def of(cls, label: str) -> Owner:
        """The owner that a label names."""
        boot, namespace, pid, started = label.split(" ")
        return cls(boot, namespace, int(pid), started)

    def __str__(self) -> str:
        return f"{self.boot} {self.namespace} {self.pid} {self.started}"

    def gone(self, engine_is_here: bool) -> bool:
        """True when it surely runs no more; one that can't be seen from here may run.

        Args:
            engine_is_here: the engine runs on this machine, so that its clients from before the
                last boot were this machine's, too.
        """
        here = Owner.present()
        if self.boot != here.boot:
            return engine_is_here
        return self.namespace == here.namespace and started_at(self.pid) != self.started


def folder(name: str) -> Path:
    """Where a cluster's kubeconfig, configuration and kind's log lie."""
    return paths.state() / "clusters" / name


def find_all(engine: Engine) -> list[Found]:
    """Every cluster that the harness made on this engine and did not delete."""
    engine_is_here = local_daemon(engine) is not None
    found = []
    for network in engine.client.networks.list(filters={"label": LABEL}):
        labels = network.attrs["Labels"]
        nodes = _nodes(engine, str(network.name))
        found.append(
            Found(
                name=str(network.name),
                kept=labels[f"{LABEL}.kept"] == "true",
                running=not Owner.of(labels[f"{LABEL}.owner"]).gone(engine_is_here),
                nodes=tuple(sorted(str(node.name) for node in nodes)),
            )
        )
    return found


def delete(engine: Engine, name: str) -> None:
    """Delete a cluster that the harness made: containers, their volumes, network and folder.

    Needs neither kind nor a kubeconfig, so that it works for what a killed run left behind.

    Raises:
        UsageFailure: the harness made no such cluster.
    """
    if name not in {found.name for found in find_all(engine)}:
        raise UsageFailure(
            f"the harness made no cluster named {name}; `python -m harness status` lists its own."
        )
    _end_kind(folder(name))
    nodes = _nodes(engine, name)
    with ThreadPoolExecutor(len(nodes) or 1) as pool:
        list(pool.map(_remove, nodes))
    engine.client.networks.get(name).remove()
    shutil.rmtree(folder(name), ignore_errors=True)


def _nodes(engine: Engine, name: str) -> list[Container]:
    """The containers of a kind cluster, whoever made it."""
    return engine.client.containers.list(
        all=True, filters={"label": f"{NODE_LABEL}={name}"}, ignore_removed=True
    )


def _remove(node: Container) -> None:
    with suppress(docker.errors.NotFound):
        node.remove(force=True, v=True)


def configuration(workers: int, *, restricted: bool, cgroup_v1: bool) -> Object:
    """kind's configuration: one control plane and `workers` worker nodes.

    Args:
        workers: number of nodes that run pods.
        restricted: root lacks a capability here, so the kubelet must not insist on it.
        cgroup_v1: the host has cgroup v1, which kubelets refuse by default since 1.35.
    """
    config: Object = {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "networking": {"apiServerAddress": "127.0.0.1"},
        "nodes": [{"role": "control-plane"}, *({"role": "worker"} for _ in range(workers))],
    }
    if restricted:
        config["featureGates"] = {"KubeletInUserNamespace": True}
        # the same that kind's node does for itself inside a user namespace
        config["containerdConfigPatches"] = [
            '[plugins."io.containerd.grpc.v1.cri"]\n  restrict_oom_score_adj = true\n'
        ]
    patches = [SHORT_LIVED]
    if cgroup_v1:
        patches.append({"kind": "KubeletConfiguration", "failCgroupV1": False})
    config["kubeadmConfigPatches"] = [yaml.safe_dump(patch) for patch in patches]
    return config


class Cluster(KindCluster):  # type: ignore[misc]  # pytest-kind has no types
    """pytest-kind's cluster with a network, a kubeconfig and a log of its own.

    Usable wherever pytest-kind's is: `kubectl`, `load_docker_image`, `port_forward`, `delete`.
    """

    def __init__(
        self, engine: Engine, name: str, *, node_image: str, kind: Path, kubectl: Path
    ) -> None:
        self.engine = engine
        self.folder = folder(name)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.log = self.folder / "kind.log"
        self.ready = False
        here = Path(".pytest-kind")
        existed = here.exists()
        super().__init__(
            name,
            kubeconfig=self.folder / "kubeconfig",
            image=node_image,
            kind_path=self._kind_launcher(kind, name),
            kubectl_path=self._kubectl_launcher(kubectl),
        )
        if not existed:  # pytest-kind makes a folder for downloads; there are none
            shutil.rmtree(here, ignore_errors=True)

    def _kind_launcher(self, kind: Path, name: str) -> Path:
        """kind in a process group of its own that can be ended whole, writing into the log."""
        program, log = shlex.quote(str(kind)), shlex.quote(str(self.log))
        return self._launcher(
            "kind",
            f"export DOCKER_HOST={shlex.quote(self.engine.host)}",
            f"export KIND_EXPERIMENTAL_DOCKER_NETWORK={shlex.quote(name)}",
            f'if [ "$1" = get ]; then exec {program} "$@" 2>>{log}; fi',
            f"echo $$ >{shlex.quote(str(self.folder / 'kind.pid'))}",
            f'exec setsid {program} "$@" >>{log} 2>&1',
        )

    def _kubectl_launcher(self, kubectl: Path) -> Path:
        """kubectl that keeps its cache with the cluster, and not in the user's ``~/.kube``."""
        program, cache = shlex.quote(str(kubectl)), shlex.quote(str(self.folder / "cache"))
        return self._launcher("kubectl", f'exec {program} --cache-dir={cache} "$@"')

    def _launcher(self, program: str, *lines: str) -> Path:
        launcher = self.folder / program
        launcher.write_text("\n".join(("#!/bin/sh", *lines, "")))
        launcher.chmod(0o700)
        return launcher

    def reserve(self, *, kept: bool) -> bool:
        """Take the name: make the labelled network. False when a kept cluster has it: use that.

        Raises:
            UsageFailure: another cluster or network of that name is already there.
        """
        if any(found.kept and found.name == self.name for found in find_all(self.engine)):
            return False
        client = self.engine.client
        if _nodes(self.engine, self.name) or client.networks.list(names=[f"^{self.name}$"]):
            raise UsageFailure(
                f"a cluster named {self.name} is already there; choose another --name, or delete "
                f"it with `python -m harness down --name {self.name}` if the harness made it."
            )
        client.networks.create(
            self.name,
            driver="bridge",
            labels={
                LABEL: "cluster",
                f"{LABEL}.owner": str(Owner.present()),
                f"{LABEL}.kept": str(kept).lower(),
            },
        )
        return True

    @cached_property
    def kube(self) -> Kube:
        """The cluster's API; only once it is created."""
        return Kube(self.kubeconfig_path)

    def kubernetes_version(self) -> str:
        """The version that the nodes run, as ``v1.37.2``."""
        nodes = self.kube.get(self.kube.core.list_node)["items"]
        return str(nodes[0]["status"]["nodeInfo"]["kubeletVersion"])

    def create(self, workers: int = 2) -> None:
        """Create the nodes and wait until each is Ready and pods can be made.

        Raises:
            ClusterFailure: kind failed, or a node did not get ready; says what was seen.
        """
        config = self.folder / "kind.yaml"
        config.write_text(
            yaml.safe_dump(
                configuration(
                    workers,
                    restricted=self._restricted(),
                    cgroup_v1=self.engine.client.info().get("CgroupVersion") == "1",
                )
            )
        )
        try:
            super().create(config)
        except subprocess.CalledProcessError as error:
            raise ClusterFailure(self._why()) from error
        finally:
            _end_kind(self.folder)
        wait_until_ready(self.kube, 1 + workers)
        self.ready = True

    def _restricted(self) -> bool:
        status = Path("/proc/self/status").read_text()
        return bool(oci_runtime.missing_capabilities(status))

    def _why(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        said = [line for line in lines if line.startswith("ERROR")] or lines[-1:]
        what = said[0].removeprefix("ERROR: ")[:300] if said else last_error(self.log)
        return f"kind could not create the cluster: {what}; its log is in the diagnostics."

    def load_images(self, *images: str) -> None:
        """Put images of the engine onto every worker node, on all of them at once.

        Raises:
            ClusterFailure: kind could not load them.
        """
        command = [str(self.kind_path), "load", "docker-image", "--name", self.name, *images]
        workers = [node for node in self.nodes() if "-worker" in node]
        try:
            subprocess.run([*command, "--nodes", ",".join(workers)], check=True)
        except subprocess.CalledProcessError as error:
            raise ClusterFailure(
                f"kind could not load {', '.join(images)} into the nodes: {last_error(self.log)}."
            ) from error

    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes' containers."""
        found = {cluster.name: cluster for cluster in find_all(self.engine)}
        return found[self.name].nodes if self.name in found else ()

    def delete(self) -> None:
        """Delete the cluster with everything that was made for it."""
        delete(self.engine, self.name)


def _end_kind(where: Path) -> None:
    """End what is left of kind's process group after an interruption, docker's client included."""
    try:
        group = int((where / "kind.pid").read_text())
    except (OSError, ValueError):
        return
    (where / "kind.pid").unlink()
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def wait_until_ready(kube: Kube, nodes: int, seconds: float = READY_SECONDS) -> None:
    """Wait until `nodes` nodes are Ready and the namespace's service account is there.

    Pods can't be made before the service account is.

    Raises:
        ClusterFailure: not in time; names the nodes and what they said.
    """
    said: dict[str, str] = {}
    ready: set[str] = set()

    def all_ready(node: Object) -> bool | None:
        name = node["metadata"]["name"]
        said[name] = node_state(node)
        (ready.add if said[name] == "Ready" else ready.discard)(name)
        return True if len(ready) == nodes else None

    kube.wait_for(
        all_ready,
        kube.core.list_node,
        awaited=f"all {nodes} nodes Ready",
        seconds=seconds,
        describe=lambda _: ", ".join(f"{name} {state}" for name, state in sorted(said.items())),
    )
    kube.wait_for(
        lambda account: account["metadata"]["name"],
        kube.core.list_namespaced_service_account,
        "default",
        field_selector="metadata.name=default",
        awaited="the service account `default`",
        seconds=seconds,
    )


def node_state(node: Object) -> str:
    """``Ready``, or why a node is not."""
    for condition in node["status"].get("conditions") or []:
        if condition["type"] == "Ready":
            if condition["status"] == "True":
                return "Ready"
            return f"not ready ({condition.get('message') or condition.get('reason')})"
    return "not ready (it has not reported yet)"
