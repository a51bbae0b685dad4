"""What a run needs, whether it is here, and what to do where it is not."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from harness import engine, oci_runtime, paths, tools
from harness.images import packages, sources


@dataclass(frozen=True)
class Check:
    """One prerequisite.

    Attributes:
        name: of the thing.
        found: what is here, with its version.
        ok: a run can go on from here, perhaps after getting the thing by itself.
        remedy: what to do, or what a run will do by itself.
    """

    name: str
    found: str
    ok: bool
    remedy: str = ""


def examine() -> list[Check]:
    """Look at everything that a run needs, changing nothing."""
    docker = engine.find()
    return [
        Check("Python", platform.python_version(), sys.version_info >= (3, 11)),
        _engine(docker),
        _privileges(docker),
        _program("docker", "kind needs docker's client"),
        _tool("kind", packages.versions().kind, tools.fits_kind),
        _tool("kubectl", packages.versions().kubernetes, tools.fits_kubectl),
        *_images(docker),
        _space("disk of the engine", docker.data_root if docker else Path("/var/lib")),
        _space("disk of the cache", paths.cache()),
    ]


def _engine(docker: engine.Engine | None) -> Check:
    if docker:
        return Check("Docker engine", f"{docker.version} at {docker.host}", True)
    if os.environ.get("DOCKER_HOST"):
        return Check("Docker engine", "none at DOCKER_HOST", False, "start it or unset DOCKER_HOST")
    if os.geteuid() == 0 and shutil.which("apt-get"):
        return Check("Docker engine", "none", True, "a run installs and starts one")
    return Check("Docker engine", "none", False, "install and start Docker")


def _privileges(docker: engine.Engine | None) -> Check:
    name = "privileged containers"
    if docker and (problem := engine.privilege_problem(docker)):
        return Check(name, "refused", False, problem)
    missing = oci_runtime.missing_capabilities(Path("/proc/self/status").read_text())
    if os.geteuid() == 0 and missing:
        return Check(name, f"root lacks {', '.join(sorted(missing))}", True, "the nodes do without")
    return Check(name, "yes" if docker else "not known without an engine", True)


def _program(name: str, why: str) -> Check:
    path = shutil.which(name)
    if path:
        return Check(f"{name} program", path, True)
    able = os.geteuid() == 0 and shutil.which("apt-get") is not None
    return Check(
        f"{name} program",
        "none",
        able,
        f"{why}; " + ("a run installs it" if able else "install it"),
    )


def _tool(name: str, wanted: str, fits: tools.Fits) -> Check:
    found = tools.on_path(name)
    if found and fits(found[1], wanted):
        return Check(name, f"{found[1]} at {found[0]}", True)
    here = f"{found[1]} at {found[0]}" if found else "none on PATH"
    return Check(name, here, True, f"a run gets {wanted} for itself")


def _images(docker: engine.Engine | None) -> list[Check]:
    checks = []
    for name in packages.NAMES:
        reference = docker and sources.present(name, docker)
        remedy = "" if reference else "a run pulls it, or builds it from packages"
        checks.append(Check(f"image {name}", reference or "not there", True, remedy))
    return checks


def _space(name: str, folder: Path) -> Check:
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    ok = free >= sources.RUN_BYTES
    remedy = "" if ok else f"free {(sources.RUN_BYTES - free) / 1e9:.1f} GB, a run needs 6 GB"
    if ok and free < sources.BUILD_BYTES:
        remedy = "enough for a run; building images from packages needs 12 GB"
    return Check(name, f"{free / 1e9:.1f} GB free", ok, remedy)
