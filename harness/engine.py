"""Find a Docker engine, or start one.

An engine that already runs is used as it is: its configuration is the user's. One that the
harness starts itself outlives the command, so that the next run finds it and its images;
`stop` ends it.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import docker
from docker.context import ContextAPI
from docker.errors import DockerException

from harness import oci_runtime, paths, process
from harness.errors import EnvironmentFailure

DEFAULT_SOCKET = Path("/var/run/docker.sock")
START_SECONDS = 60.0
ANSWER_SECONDS = 600
RUNTIME_NAME = "within-bounds"

Report = Callable[[str], None]


@dataclass(frozen=True)
class Engine:
    """A Docker engine that answers.

    Attributes:
        client: the docker package's client.
        host: its address, as DOCKER_HOST has it.
        version: of the engine.
        data_root: its data folder; on another machine for a remote engine.
    """

    client: docker.DockerClient
    host: str
    version: str
    data_root: Path


def find() -> Engine | None:
    """The engine that DOCKER_HOST, the current docker context or a standard socket lead to."""
    for host in _candidates():
        try:
            return connect(host)
        except DockerException:
            continue
    return None


def connect(host: str) -> Engine:
    """Connect to the engine at `host`.

    Raises:
        docker.errors.DockerException: it does not answer.
    """
    environment = {**os.environ, "DOCKER_HOST": host}
    client = docker.DockerClient.from_env(
        environment=environment, timeout=ANSWER_SECONDS, max_pool_size=32
    )
    info = client.info()
    return Engine(client, host, info["ServerVersion"], Path(info["DockerRootDir"]))


def _candidates() -> list[str]:
    named = os.environ.get("DOCKER_HOST")
    if named:
        return [named]
    hosts = []
    context = ContextAPI.get_current_context()
    if context is not None and context.Name != "default" and context.Host:
        hosts.append(context.Host)
    hosts.append(f"unix://{DEFAULT_SOCKET}")
    if runtime_dir := os.environ.get("XDG_RUNTIME_DIR"):
        hosts.append(f"unix://{runtime_dir}/docker.sock")
    return list(dict.fromkeys(hosts))


def ensure(report: Report, cancellation: process.Cancellation | None = None) -> Engine:
    """An engine that answers: the one that runs, else one installed and started now.

    Raises:
        EnvironmentFailure: none answers and none can be started here.
    """
    engine = find()
    if engine is None:
        engine = _start(report, cancellation)
    if problem := privilege_problem(engine):
        raise EnvironmentFailure(problem)
    return engine


def _start(report: Report, cancellation: process.Cancellation | None) -> Engine:
    if named := os.environ.get("DOCKER_HOST"):
        raise EnvironmentFailure(
            f"no Docker engine answers at DOCKER_HOST={named}; start it, or unset DOCKER_HOST."
        )
    if os.geteuid() != 0:
        raise EnvironmentFailure(
            "no Docker engine answers, and only root may start one; install and start Docker, "
            "or add yourself to its group (docs.docker.com/engine/install)."
        )
    if not (shutil.which("dockerd") and shutil.which("docker")):
        apt_install(("docker.io", "docker-cli", "iptables"), report, cancellation)
    if (engine := find()) is not None:  # the package may have started it as a service
        return engine
    return launch(report)


def apt_install(
    packages: tuple[str, ...], report: Report, cancellation: process.Cancellation | None = None
) -> None:
    """Install Debian or Ubuntu packages; names that the release doesn't have are left out.

    Raises:
        EnvironmentFailure: not root, another distribution, or the installation failed.
    """
    wanted = " ".join(packages)
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise EnvironmentFailure(
            f"these are missing and can only be installed as root on Debian or Ubuntu: {wanted}; "
            "install them with your system's package program."
        )
    log = paths.state() / "apt.log"
    # RUNLEVEL=1 keeps a machine without systemd from starting the package's service
    env = {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    try:
        process.run(["apt-get", "update"], log=log, env=env, cancellation=cancellation)
        known = process.run(["apt-cache", "pkgnames"], cancellation=cancellation).split()
        available = [package for package in packages if package in set(known)]
        report(f"installing {', '.join(available)}")
        process.run(
            ["apt-get", "install", "-y", "--no-install-recommends", *available],
            log=log,
            env=env,
            cancellation=cancellation,
        )
    except process.CommandFailed as error:
        raise EnvironmentFailure(
            f"apt-get could not install {wanted} ({error}); see {log}."
        ) from error


def launch(report: Report, *, seconds: float = START_SECONDS) -> Engine:
    """Start dockerd in a session of its own and wait until it says that it is ready.

    Raises:
        EnvironmentFailure: it ended, or was not ready in `seconds`.
    """
    _remove_stale_pid_files()
    state = paths.state()
    log = state / "dockerd.log"
    command = ["dockerd", "--host", f"unix://{DEFAULT_SOCKET}"]
    missing = oci_runtime.missing_capabilities(Path("/proc/self/status").read_text())
    if missing:
        wrapper = install_runtime(state)
        command += ["--add-runtime", f"{RUNTIME_NAME}={wrapper}"]
        command += ["--default-runtime", RUNTIME_NAME]
        report(f"root lacks {', '.join(sorted(missing))} here: containers start without it")
    with tempfile.TemporaryDirectory(prefix=f"{paths.PROJECT}-") as folder:
        # sd_notify(3): the daemon says READY=1 on this socket, so nothing has to be polled
        address = Path(folder) / "notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            ready.bind(str(address))
            with log.open("ab") as sink:
                child = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=sink,
                    stderr=sink,
                    start_new_session=True,
                    cwd="/",
                    env={**os.environ, "NOTIFY_SOCKET": str(address)},
                )
            _record(child.pid)
            if not _said_ready(ready, child.pid, seconds):
                child.terminate()
                raise EnvironmentFailure(
                    f"dockerd was not ready within {seconds:.0f} s "
                    f"({last_error(log)}); the whole log is {log}."
                )
    report(f"started dockerd (process {child.pid}), log in {log}")
    return connect(f"unix://{DEFAULT_SOCKET}")


def _said_ready(ready: socket.socket, pid: int, seconds: float) -> bool:
    ends_at = time.monotonic() + seconds
    try:
        ended = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        while (left := ends_at - time.monotonic()) > 0:
            watched: list[socket.socket | int] = [ready, ended]
            readable, _, _ = select.select(watched, [], [], left)
            if ready in readable and b"READY=1" in ready.recv(4096):
                return True
            if ended in readable:
                return False
        return False
    finally:
        os.close(ended)


def last_error(log: Path) -> str:
    """The last line of a log, shortened: what a person needs first."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return lines[-1][:200] if lines else "it wrote nothing"


def install_runtime(folder: Path) -> Path:
    """Put an executable copy of the OCI runtime wrapper into `folder`."""
    python = os.path.realpath(sys.executable)
    source = Path(oci_runtime.__file__).read_text()
    target = folder / "oci-runtime"
    target.write_text(f"#!{python} -IS\n{source}")
    target.chmod(0o755)
    return target


def _remove_stale_pid_files() -> None:
    """After a crash these name processes that are gone or, worse, somebody else's by now."""
    for path, program in (
        (Path("/var/run/docker.pid"), "dockerd"),
        (Path("/var/run/docker/containerd/containerd.pid"), "containerd"),
    ):
        try:
            pid = int(path.read_text())
        except (OSError, ValueError):
            continue
        if _program(pid) != program:
            path.unlink(missing_ok=True)


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def local_daemon(engine: Engine) -> Path | None:
    """The ``/proc`` folder of the engine's dockerd, when it runs on this very machine."""
    if not engine.host.startswith("unix://"):
        return None
    processes = Path("/proc").glob("[0-9]*")
    return next((path for path in processes if _program(int(path.name)) == "dockerd"), None)


def privilege_problem(engine: Engine) -> str | None:
    """Why the engine can't run privileged containers, with the remedy; None if it can.

    Looks at the capabilities of the local dockerd. A daemon that can't be seen from here, as
    behind a mounted socket, is believed to hold them all.
    """
    daemon = local_daemon(engine)
    if daemon is None:
        return None
    missing = oci_runtime.missing_capabilities((daemon / "status").read_text())
    runtime = engine.client.info()["DefaultRuntime"]
    if not missing or runtime != "runc":
        return None
    wrapper = install_runtime(paths.state())
    return (
        f"the running Docker engine can't start kind's privileged nodes, because root lacks "
        f"{', '.join(sorted(missing))}; restart it with `dockerd --add-runtime "
        f"{RUNTIME_NAME}={wrapper} --default-runtime {RUNTIME_NAME}`."
    )


def _record(pid: int) -> None:
    record = {"pid": pid, "started": started_at(pid)}
    (paths.state() / "dockerd.json").write_text(json.dumps(record))


def started_at(pid: int) -> str | None:
    """Start time of a process in clock ticks since boot (proc(5), field 22); None if gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[19]


def stop() -> int | None:
    """End the engine that an earlier run of the harness started; its process id, or None."""
    path = paths.state() / "dockerd.json"
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    path.unlink()
    pid = int(record["pid"])
    if record["started"] is None or started_at(pid) != record["started"]:
        return None
    watched = os.pidfd_open(pid)
    try:
        os.kill(pid, 15)
        select.select([watched], [], [], START_SECONDS)
    finally:
        os.close(watched)
    return pid
