"""Where things lie: the checkout, the user's cache, this project's state."""

from __future__ import annotations

import os
from pathlib import Path

PROJECT = "work-queue-e2e"
ROOT = Path(__file__).resolve().parent.parent
MANIFESTS = ROOT / "manifests"
WORKER = ROOT / "worker"
NODE_IMAGE = ROOT / "node-image"


def cache() -> Path:
    """Folder for what may be lost at the price of time: built images, tools."""
    return _made("XDG_CACHE_HOME", ".cache")


def state() -> Path:
    """Folder for what describes this machine now: the started engine, runs' working files."""
    return _made("XDG_STATE_HOME", ".local/state")


def _made(variable: str, default: str) -> Path:
    base = os.environ.get(variable)
    folder = (Path(base) if base else Path.home() / default) / PROJECT
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
