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
from harness.errors import EnvironmentFailure, UsageFailure
from harness.events import ManifestDiffers
from harness.images.layers import add_bytes
from harness.settings import DOCUMENT_SLEEP

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


def context(
    folder: Path, base: str, sleep: float
) -> tuple[dict[str, bytes], tuple[ManifestDiffers, ...]]:
    """The files to send to the engine, and what in them is not the document's.

    Args:
        folder: of the Dockerfile.
        base: the image to start from; the document's is ``python``.
        sleep: seconds for an item; the document's worker sleeps 10.
    """
    files = {name: (folder / name).read_bytes() for name in FILES}
    differences = []
    if base != f"{BASE}:latest":
        _replace(files, "Dockerfile", f"FROM {BASE}\n", f"FROM {base}\n")
        differences.append(
            ManifestDiffers(file="Dockerfile", path="FROM", document=BASE, applied=base)
        )
    if sleep != DOCUMENT_SLEEP:
        _replace(files, "worker.py", f"time.sleep({DOCUMENT_SLEEP:g})", f"time.sleep({sleep:g})")
        differences.append(
            ManifestDiffers(
                file="worker.py",
                path="time.sleep",
                document=f"{DOCUMENT_SLEEP:g}",
                applied=f"{sleep:g}",
            )
        )
    return files, tuple(differences)


def _replace(files: dict[str, bytes], name: str, old: str, new: str) -> None:
    text = files[name].decode()
    if text.count(old) != 1:
        raise UsageFailure(f"worker/{name} has no {old.strip()!r}; restore it from the repository.")
    files[name] = text.replace(old, new).encode()


def build(
    engine: Engine, base: str, *, sleep: float = DOCUMENT_SLEEP, folder: Path = paths.WORKER
) -> WorkerImage:
    """Build the worker image, unless the engine has one of the same content on the same base.

    Args:
        engine: where to build.
        base: reference of the ``python`` image.
        sleep: seconds that the worker sleeps for an item.
        folder: of the Dockerfile.

    Raises:
        EnvironmentFailure: a step of the Dockerfile failed; quotes what it said.
        UsageFailure: a file of the document was changed, so that it can't be adapted.
    """
    files, differences = context(folder, base, sleep)
    reference = f"{REPOSITORY}:{_digest(engine, base, files)}"
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
            add_bytes(archive, name, content)
    buffer.seek(0)
    return buffer
