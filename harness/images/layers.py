"""Container images out of tar archives, without an engine.

An image in Docker's archive format (``docker load``, ``ctr images import``) is a list of layers,
each a tar, and a configuration that names them by digest.
See the Docker Image Specification v1.2, "Combined Image JSON + Filesystem Changeset Format".
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

GO_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Image:
    """An image to write.

    Attributes:
        tags: names with tags.
        layers: tar files, lowest first.
        config: the part of its configuration that containers get: ``Cmd``, ``Env``, …
    """

    tags: tuple[str, ...]
    layers: tuple[Path, ...]
    config: Mapping[str, Any] = field(default_factory=dict)


def write_archive(images: Sequence[Image], target: Path, *, machine: str) -> None:
    """Write images into one archive; layers that they share are in it once.

    Args:
        images: what to write.
        target: the archive.
        machine: hardware name as ``uname -m`` gives it.
    """
    digests = {layer: digest(layer) for image in images for layer in image.layers}
    manifest = []
    with tarfile.open(target, "w") as archive:
        for layer, hexdigest in digests.items():
            archive.add(layer, f"{hexdigest}.tar")
        for image in images:
            config = configuration(image, [digests[layer] for layer in image.layers], machine)
            name = f"{hashlib.sha256(config).hexdigest()}.json"
            add_bytes(archive, name, config)
            manifest.append(
                {
                    "Config": name,
                    "RepoTags": list(image.tags),
                    "Layers": [f"{digests[layer]}.tar" for layer in image.layers],
                }
            )
        add_bytes(archive, "manifest.json", json.dumps(manifest).encode())


def configuration(image: Image, digests: Sequence[str], machine: str) -> bytes:
    """The image's configuration as JSON; the same for the same content."""
    document = {
        "architecture": GO_ARCHITECTURES.get(machine, machine),
        "os": "linux",
        "config": dict(image.config),
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{one}" for one in digests]},
    }
    return json.dumps(document, sort_keys=True).encode()


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def add_bytes(archive: tarfile.TarFile, name: str, content: bytes, *, mode: int = 0o644) -> None:
    """Add a file of root's to an archive."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), mode
    archive.addfile(member, io.BytesIO(content))


def write_difference(lower: Path, upper: Path, target: Path) -> None:
    """Write the layer that makes the root file system `upper` out of `lower`.

    Args:
        lower: tar of a root file system.
        upper: tar of another.
        target: tar of what `upper` has otherwise, with whiteouts for what it doesn't have.
    """
    before = dict(signatures(lower))
    written: set[str] = set()
    with tarfile.open(upper) as source, tarfile.open(target, "w") as layer:
        names = set()
        for member in source:
            name = normal(member.name)
            names.add(name)
            if before.get(name) == signature(source, member):
                continue
            if member.islnk() and normal(member.linkname) not in written:
                member = _copy_of_link_target(source, member)
            layer.addfile(member, source.extractfile(member) if member.isreg() else None)
            written.add(name)
        for name in whiteouts(before.keys() - names):
            add_bytes(layer, name, b"")


def whiteouts(removed: set[str]) -> list[str]:
    """Names of the whiteout files for what a layer removes.

    What lies in a removed folder goes with it and needs none.
    """
    paths = [Path(name) for name in sorted(removed)]
    tops = [path for path in paths if not any(str(parent) in removed for parent in path.parents)]
    return [str(path.with_name(f".wh.{path.name}")) for path in tops]


def signatures(archive: Path) -> Iterator[tuple[str, tuple[object, ...]]]:
    """Each member's name, and what tells whether it is the same in another archive."""
    with tarfile.open(archive) as source:
        for member in source:
            yield normal(member.name), signature(source, member)


def signature(source: tarfile.TarFile, member: tarfile.TarInfo) -> tuple[object, ...]:
    """Everything about a member but its time, which alone makes no new file worth having."""
    content = ""
    if member.isreg() and (file := source.extractfile(member)):
        content = hashlib.sha256(file.read()).hexdigest()
    linkname = normal(member.linkname) if member.islnk() else member.linkname
    owner = (member.uid, member.gid)
    device = (member.devmajor, member.devminor)
    return (member.type, member.mode, owner, linkname, device, content)


def normal(name: str) -> str:
    """A member's name without the ``./`` in front that some programs write."""
    return str(Path(name))


def _copy_of_link_target(source: tarfile.TarFile, member: tarfile.TarInfo) -> tarfile.TarInfo:
    """A hard link whose target is in a lower layer, as the file of its own that it must be."""
    target = copy.copy(source.getmember(member.linkname))
    target.name = member.name
    return target
