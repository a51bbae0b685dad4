"""kind and kubectl: from PATH when the version fits, else built or taken from the node image.

Nothing is downloaded that is not verified: kind is a Go module, checked against go.sum, and
kubectl comes out of the node image that the cluster runs.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from harness import paths, process
from harness.engine import Engine
from harness.errors import EnvironmentFailure
from harness.events import Emit, Progress, VersionFound
from harness.images import packages

ASK_SECONDS = 30.0
Fits = Callable[[str, str], bool]


def kind(emit: Emit, cancellation: process.Cancellation) -> Path:
    """The kind program, of the pinned minor version."""
    wanted = packages.versions().kind
    found = on_path("kind")
    if found and fits_kind(found[1], wanted):
        emit(VersionFound("kind", found[1]))
        return found[0]
    emit(VersionFound("kind", wanted))
    return packages.kind(
        cache=paths.cache(),
        report=lambda text: emit(Progress("images", text)),
        cancellation=cancellation,
    )


def kubectl(
    engine: Engine, node_image: str, emit: Emit, cancellation: process.Cancellation
) -> Path:
    """The kubectl program, at most one minor version away from the cluster's."""
    wanted = packages.versions().kubernetes
    found = on_path("kubectl")
    if found and fits_kubectl(found[1], wanted):
        emit(VersionFound("kubectl", found[1]))
        return found[0]
    emit(VersionFound("kubectl", f"{wanted}, of the node image"))
    return packages.kubectl(node_image, client=engine.client, cache=paths.cache())


def on_path(program: str) -> tuple[Path, str] | None:
    """A program on PATH and its version, as ``1.37.2``; None when there is none that tells."""
    path = shutil.which(program)
    if path is None:
        return None
    words = ["version", "--client", "-o", "json"] if program == "kubectl" else ["version"]
    try:
        said = process.run([path, *words], deadline=ASK_SECONDS)
    except (process.CommandFailed, EnvironmentFailure):
        return None
    if program == "kubectl":
        try:
            said = json.loads(said[said.index("{") :])["clientVersion"]["gitVersion"]
        except (ValueError, KeyError):
            return None
    match = re.search(r"v(\d+\.\d+\.\d+)", said)
    return (Path(path), match[1]) if match else None


def fits_kind(found: str, wanted: str) -> bool:
    """True for the same minor version: a kind release fits the node images of its time."""
    return found.split(".")[:2] == wanted.split(".")[:2]


def fits_kubectl(found: str, wanted: str) -> bool:
    """True within one minor version, which is what Kubernetes' version skew policy supports."""
    (found_major, found_minor), (major, minor) = (
        [int(part) for part in version.split(".")[:2]] for version in (found, wanted)
    )
    return found_major == major and abs(found_minor - minor) <= 1
