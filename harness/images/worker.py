"""Build the document's worker image: ``docker build -t job-wq-2 .``."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path

import docker.errors

from harness import paths
from harness.engine import Engine
from harness.errors import EnvironmentFailure
from harness.events import ManifestDiffers

REPOSITORY = f"localhost/{paths.PROJECT}/job-wq-2"
FILES = ("Dockerfile", "worker.py", "rediswq.py")
BASE = "python"
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")


@dataclass(frozen=True)
class WorkerImage:
    """The built worker image.

    Attributes:
        reference: what the engine knows it by; no registry has it.
        differences: what was built otherwise than the document's Dockerfile says.
        built: it was built now; else it was there.
    """

    reference: str
    differences: tuple[ManifestDiffers, ...]
    built: bool


def context(folder: Path, base: str) -> dict[str, bytes]:
    """The files to send to the engine, the Dockerfile on another base image if need be."""
    files = {name: (folder / name).read_bytes() for name in FILES}
    if base != f"{BASE}:latest":
        lines = files["Dockerfile"].decode().splitlines(keepends=True)
        files["Dockerfile"] = "".join(
            f"FROM {base}\n" if line.split() == ["FROM", BASE] else line for line in lines
        ).encode()
    return files


def build(engine: Engine, base: str, folder: Path = paths.WORKER) -> WorkerImage:
    """Build the worker image, unless the engine has one of the same content on the same base.

    Args:
        engine: where to build.
        base: reference of the ``python`` image.
        folder: of the Dockerfile.

    Raises:
        EnvironmentFailure: a step of the Dockerfile failed; quotes what it said.
    """
    files = context(folder, base)
    reference = f"{REPOSITORY}:{_digest(engine, base, files)}"
    differences = (
        ()
        if base == f"{BASE}:latest"
        else (ManifestDiffers(file="Dockerfile", path="FROM", document=BASE, applied=base),)
    )
    try:
        engine.client.images.get(reference)
    except docker.errors.ImageNotFound:
        pass
    else:
        return WorkerImage(reference, differences, built=False)
    try:
        engine.client.images.build(
            fileobj=_archive(files),
            custom_context=True,
            tag=reference,
            rm=True,
            forcerm=True,
            buildargs={name: os.environ[name] for name in PROXIES if name in os.environ},
        )
    except docker.errors.BuildError as error:
        said = " ".join(str(step.get("stream", "")).strip() for step in error.build_log)
        raise EnvironmentFailure(
            f"the worker image could not be built ({error.msg}): …{said[-300:]}; "
            "check that package indexes can be reached from a container."
        ) from error
    return WorkerImage(reference, differences, built=True)


def _digest(engine: Engine, base: str, files: dict[str, bytes]) -> str:
    digest = hashlib.sha256(str(engine.client.images.get(base).id).encode())
    for name, content in sorted(files.items()):
        digest.update(f"\0{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:12]


def _archive(files: dict[str, bytes]) -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o644
            archive.addfile(member, io.BytesIO(content))
    buffer.seek(0)
    return buffer
