"""The document's manifests: load, override for a run, and tell what was overridden."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from harness.errors import UsageFailure
from harness.events import ManifestDiffers

Manifest = dict[str, Any]

POD_IMAGE = "spec.containers[0].image"
POD_PULL_POLICY = "spec.containers[0].imagePullPolicy"
JOB_IMAGE = "spec.template.spec.containers[0].image"
JOB_PARALLELISM = "spec.parallelism"


@dataclass(frozen=True)
class Document:
    """One of the document's files and what a run applies of it.

    Attributes:
        file: its name in ``manifests/``.
        applied: the manifest with the run's overrides.
        differences: each value that is not the document's.
    """

    file: str
    applied: Manifest
    differences: tuple[ManifestDiffers, ...]

    @property
    def name(self) -> str:
        """The object's name."""
        return str(self.applied["metadata"]["name"])

    def text(self) -> str:
        """What to feed to ``kubectl apply -f``."""
        return yaml.safe_dump(self.applied, sort_keys=False)


def load(path: Path, kind: str) -> Manifest:
    """Read a manifest that must be one object of `kind`.

    Raises:
        UsageFailure: no such file, not YAML, not one object, or another kind.
    """
    try:
        objects = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UsageFailure(
            f"{path} can't be read ({error.strerror}); restore it from the repository."
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" at line {where.line + 1}" if where else ""
        raise UsageFailure(f"{path} is not YAML{line}; correct it or restore it.") from None
    if len(objects) != 1 or not isinstance(objects[0], dict):
        raise UsageFailure(f"{path} must hold one object, a {kind}; correct it or restore it.")
    found = objects[0].get("kind")
    if found != kind:
        raise UsageFailure(f"{path} holds a {found}, not a {kind}; correct it or restore it.")
    return objects[0]


def prepare(path: Path, kind: str, overrides: Mapping[str, object]) -> Document:
    """Load a manifest and override values in memory.

    Args:
        path: the document's file.
        kind: what it must be.
        overrides: new values by path, as ``{"spec.parallelism": 3}``.

    Raises:
        UsageFailure: as `load`; or a path that the manifest does not lead to.
    """
    original = load(path, kind)
    applied = copy.deepcopy(original)
    for where, value in overrides.items():
        try:
            _set(applied, where, value)
        except (KeyError, IndexError, TypeError):
            raise UsageFailure(f"{path} has no {where} to set; correct it or restore it.") from None
    found = tuple(
        ManifestDiffers(file=path.name, path=where, document=old, applied=new)
        for where, old, new in differences(original, applied)
    )
    return Document(path.name, applied, found)


def differences(document: object, applied: object, at: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Each leaf in which two manifests differ: its path, the first's value, the second's.

    A value that only one of them has counts as None in the other.
    """
    if isinstance(document, dict) and isinstance(applied, dict):
        for key in [*document, *(key for key in applied if key not in document)]:
            where = f"{at}.{key}" if at else str(key)
            yield from differences(document.get(key), applied.get(key), where)
    elif isinstance(document, list) and isinstance(applied, list):
        for n in range(max(len(document), len(applied))):
            old = document[n] if n < len(document) else None
            new = applied[n] if n < len(applied) else None
            yield from differences(old, new, f"{at}[{n}]")
    elif document != applied:
        yield at, document, applied


def _set(manifest: Any, where: str, value: object) -> None:
    """Set the value at a path such as ``spec.containers[0].image``."""
    keys: list[str | int] = []
    for part in where.split("."):
        name, _, index = part.partition("[")
        keys.append(name)
        if index:
            keys.append(int(index.rstrip("]")))
    for key in keys[:-1]:
        manifest = manifest[key]
    manifest[keys[-1]] = value
