"""Run steps that need each other, as many at once as their needs allow.

What a step makes is a file or folder under a name that has the hash of everything that went into
it. It is made under another name and renamed when it is complete, so an interrupted run leaves
nothing half-made, and the next one goes on from what is there.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

Report = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Step:
    """Something to do once.

    Attributes:
        name: for people: what it does.
        needs: steps that come before it.
        done: tells whether it was done before.
        make: does it.
    """

    name: str
    needs: tuple[Step, ...]
    done: Callable[[], bool]
    make: Callable[[], None]


def file_step(
    name: str, output: Path, make: Callable[[Path], None], needs: Sequence[Step] = ()
) -> Step:
    """A step whose result is the file or folder `output`; `make` gets another name to fill."""

    def complete() -> None:
        unfinished = output.with_name(f".{output.name}.{os.getpid()}")
        remove(unfinished)
        try:
            make(unfinished)
            unfinished.rename(output)
        finally:
            remove(unfinished)

    return Step(name, tuple(needs), output.exists, complete)


def remove(path: Path) -> None:
    """Remove a file or a folder with all in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def open_steps(goals: Sequence[Step]) -> list[Step]:
    """The steps to do for `goals`, each after those it needs; what is done needs nothing."""
    order: list[Step] = []

    def visit(step: Step) -> None:
        if step in order or step.done():
            return
        for need in step.needs:
            visit(need)
        order.append(step)

    for goal in goals:
        visit(goal)
    return order


def run(goals: Sequence[Step], report: Report, give_up: Callable[[], None]) -> None:
    """Do `goals` and what they need.

    Args:
        goals: steps whose results are wanted.
        report: told of each step when it starts and when it is done, with the time it took.
        give_up: called once when a step failed, to end the others early.

    Raises:
        Exception: what the first failed step raised.
    """
    order = open_steps(goals)
    if not order:
        return
    futures: dict[Step, Future[None]] = {}

    def do(step: Step) -> None:
        for need in step.needs:
            if need in futures:
                futures[need].result()
        started = time.monotonic()
        report(f"{step.name} …")
        step.make()
        report(f"{step.name}: done in {time.monotonic() - started:.0f} s")

    # one thread each: those that wait cost nothing, and a needed step is always submitted first
    with ThreadPoolExecutor(len(order), thread_name_prefix="step") as pool:
        for step in order:
            futures[step] = pool.submit(do, step)
        try:
            done, _ = wait(futures.values(), return_when=FIRST_EXCEPTION)
        except BaseException:
            give_up()
            raise
        failed = [future for future in done if future.exception()]
        if failed:
            give_up()
    for future in failed:
        future.result()


@contextmanager
def only_one(lock: Path, report: Report) -> Iterator[None]:
    """Hold a lock between processes; waits for the other one and says so."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("another run builds images here; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
