"""Get an image from the first source that has it: the engine, its registry, packages."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import docker.errors

from harness import process
from harness.engine import Engine
from harness.errors import EnvironmentFailure
from harness.images import packages

Report = Callable[[str], None]
Source = Literal["engine", "registry", "packages"]

# A registry that says nothing for this long is out of reach; the try ends then.
REGISTRY_SECONDS = 8.0
PULL_SECONDS = 900.0
BUILD_BYTES = 12 * 10**9
RUN_BYTES = 6 * 10**9


@dataclass(frozen=True)
class Image:
    """An image in the engine.

    Attributes:
        name: the document's or kind's word for it: ``redis``.
        reference: what the engine knows it by.
        source: where it came from in this run.
    """

    name: str
    reference: str
    source: Source


def registry_reference(name: packages.ImageName) -> str:
    """What to pull: the document's image, or the node image that kind's release names."""
    if name == "node":
        return packages.versions().node_image
    return f"{name}:latest"


def find_or_pull(
    name: packages.ImageName,
    engine: Engine,
    report: Report,
    cancellation: process.Cancellation,
) -> Image | None:
    """An image that is in the engine or can be pulled; None when it must be built.

    The registry is asked once, and not at all when an earlier run built the image.
    """
    if there := present(name, engine):
        return Image(name, there, "engine")
    reference = registry_reference(name)
    report(f"{name}: asking its registry for {reference.partition('@')[0]}")
    refusal = _pull(reference, engine, cancellation)
    if refusal is None:
        return Image(name, reference, "registry")
    report(f"{name}: not from its registry ({refusal}), so from packages")
    return None


def present(name: packages.ImageName, engine: Engine) -> str | None:
    """Reference of an image that the engine has, pulled or built; else None."""
    for reference in (registry_reference(name), packages.tag(name)):
        try:
            engine.client.images.get(reference)
        except docker.errors.ImageNotFound:
            continue
        return reference
    return None


def _pull(reference: str, engine: Engine, cancellation: process.Cancellation) -> str | None:
    """Pull with docker's own client, which knows the user's mirrors and logins.

    Gives None when it is there now, else what was said.
    """
    attempt = process.Cancellation(cancellation)
    silence = threading.Timer(REGISTRY_SECONDS, attempt.cancel)
    silence.start()
    try:
        process.run(
            ["docker", "--host", engine.host, "pull", reference],
            cancellation=attempt,
            deadline=PULL_SECONDS,
            on_line=lambda _: silence.cancel(),
        )
    except process.CommandFailed as error:
        return _short(error.tail[-1] if error.tail else str(error))
    except process.Cancelled:
        cancellation.check()
        return f"no answer within {REGISTRY_SECONDS:.0f} s"
    finally:
        silence.cancel()
    return None


def _short(text: str) -> str:
    """The end of a registry error: the part that says why."""
    return text.strip().rpartition(": ")[2][:120] or "no reason given"


def require_space(engine: Engine, needed: int, what: str) -> None:
    """Check the free disk space of a local engine before it is used.

    Args:
        engine: whose data folder is meant.
        needed: bytes.
        what: for the message, as "a run".

    Raises:
        EnvironmentFailure: too little is free.
    """
    if not engine.data_root.exists():  # on another machine, which is not ours to measure
        return
    free = shutil.disk_usage(engine.data_root).free
    if free < needed:
        raise EnvironmentFailure(
            f"{what} needs about {needed / 1e9:.0f} GB of disk, and {engine.data_root} has "
            f"{free / 1e9:.1f} GB free; free some, for example with `docker system prune`."
        )
