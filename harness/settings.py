"""What a person can ask of a run, checked before anything is touched."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from harness import paths
from harness.errors import UsageFailure
from harness.queue import DOCUMENT_ITEMS

NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,38}[a-z0-9])?")
DOCUMENT_PARALLELISM = 2
DOCUMENT_WORKERS = 2
DOCUMENT_SLEEP = 10.0  # worker.py: time.sleep(10)
# the document's own: kubectl wait --for=condition=complete --timeout=300s
DOCUMENT_TIMEOUT = 300.0


def unique_name() -> str:
    """A name for a cluster that no other run on this machine has."""
    return f"wq-{secrets.token_hex(3)}"


@dataclass(frozen=True)
class Settings:
    """The settings of a run; the defaults are the document's.

    Attributes:
        name: of the kind cluster; unique unless given.
        items: what is seeded, in this order.
        parallelism: pods that work at the same time.
        workers: nodes that are not control planes.
        sleep: seconds that the worker sleeps for an item.
        timeout: seconds that the Job may take.
        keep: leave the cluster there.
        out: folder of the reports and diagnostics.
        manifests: folder of the document's manifests.

    Raises:
        UsageFailure: a value that no run can have.
    """

    name: str = field(default_factory=unique_name)
    items: tuple[str, ...] = DOCUMENT_ITEMS
    parallelism: int = DOCUMENT_PARALLELISM
    workers: int = DOCUMENT_WORKERS
    sleep: float = DOCUMENT_SLEEP
    timeout: float = DOCUMENT_TIMEOUT
    keep: bool = False
    out: Path = paths.ROOT / "out"
    manifests: Path = paths.MANIFESTS

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise UsageFailure(
                f"--name {self.name!r} can't name a cluster; use at most 40 lower case letters, "
                "digits and hyphens."
            )
        if self.parallelism < 1:
            raise UsageFailure(
                f"--parallelism {self.parallelism} would start no worker; use 1 or more."
            )
        if self.workers < 1:
            raise UsageFailure(f"--nodes {self.workers} leaves no node for pods; use 1 or more.")
        if self.sleep < 0:
            raise UsageFailure(f"--sleep {self.sleep:g} is in the past; use 0 seconds or more.")
        if self.timeout <= 0:
            raise UsageFailure(f"--timeout {self.timeout:g} is over at once; use seconds above 0.")
        if not self.items:
            raise UsageFailure("there are no items to seed; give at least one.")
