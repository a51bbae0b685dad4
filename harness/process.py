"""Run other programs: output kept in a log, a deadline, and no orphan after an interruption."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from harness.errors import EnvironmentFailure

TAIL_LINES = 30
GRACE_SECONDS = 5.0


class CommandFailed(Exception):
    """A program ended with a code other than 0, or not in time.

    Attributes:
        command: the words of the command.
        returncode: its exit code; None when it was ended at its deadline.
        tail: the last lines it wrote, newest last.
    """

    def __init__(self, command: Sequence[str], returncode: int | None, tail: Sequence[str]) -> None:
        self.command = tuple(command)
        self.returncode = returncode
        self.tail = tuple(tail)
        ended = "was ended at its deadline" if returncode is None else f"exited with {returncode}"
        last = next((line for line in reversed(self.tail) if line.strip()), "it printed nothing")
        super().__init__(f"`{' '.join(self.command[:3])} …` {ended}: {last.strip()}")


class Cancellation:
    """Ends every program started under it, from any thread; a token to pass down.

    Args:
        whole: a token that this one is a part of: it is cancelled with it, or alone.
    """

    def __init__(self, whole: Cancellation | None = None) -> None:
        self._whole = whole
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self.cancelled = threading.Event()

    def cancel(self) -> None:
        """End all programs under this token, and refuse to start another."""
        self.cancelled.set()
        with self._lock:
            running = list(self._running)
        for child in running:
            end_group(child)

    def check(self) -> None:
        """Raise `Cancelled` once this or the whole was cancelled."""
        if self._whole:
            self._whole.check()
        if self.cancelled.is_set():
            raise Cancelled

    def _add(self, child: subprocess.Popen[str]) -> None:
        if self._whole:
            self._whole._add(child)
        with self._lock:
            self._running.add(child)
        if self.cancelled.is_set():
            end_group(child)

    def _remove(self, child: subprocess.Popen[str]) -> None:
        if self._whole:
            self._whole._remove(child)
        with self._lock:
            self._running.discard(child)


class Cancelled(BaseException):
    """Raised in a worker thread whose work is no longer wanted."""


def end_group(child: subprocess.Popen[str]) -> None:
    """End the process group that `child` leads: SIGTERM, and SIGKILL to what then still runs."""
    try:
        os.killpg(child.pid, signal.SIGTERM)
        child.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    except ProcessLookupError:
        return
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def run(
    command: Sequence[str | os.PathLike[str]],
    *,
    log: Path | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    deadline: float | None = None,
    cancellation: Cancellation | None = None,
    on_line: Callable[[str], None] | None = None,
) -> str:
    """Run a program to its end and give what it printed, standard error included.

    Args:
        command: the program and its arguments; no shell.
        log: file to append the output to.
        env: variables to set on top of this process's.
        cwd: folder to run in.
        deadline: seconds after which the program is ended.
        cancellation: token that may end it early.
        on_line: called with each line as it comes.

    Raises:
        CommandFailed: exit code other than 0, or the deadline passed.
        EnvironmentFailure: there is no such program.
        Cancelled: the token was cancelled.
    """
    words = [os.fspath(word) for word in command]
    token = cancellation or Cancellation()
    token.check()
    try:
        child = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=cwd,
            env={**os.environ, **(env or {})},
            start_new_session=True,  # so that the whole group can be ended, and Ctrl-C is ours
        )
    except FileNotFoundError:
        raise EnvironmentFailure(
            f"{words[0]} is not installed; install it and try again."
        ) from None
    token._add(child)
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        end_group(child)

    timer = threading.Timer(deadline, expire) if deadline is not None else None
    if timer:
        timer.daemon = True
        timer.start()
    try:
        output = _drain(child, log, on_line)
        child.wait()
    except BaseException:
        end_group(child)
        raise
    finally:
        if timer:
            timer.cancel()
        token._remove(child)
    token.check()
    if expired.is_set() or child.returncode != 0:
        tail = deque(output.splitlines(), maxlen=TAIL_LINES)
        raise CommandFailed(words, None if expired.is_set() else child.returncode, list(tail))
    return output


def _drain(
    child: subprocess.Popen[str], log: Path | None, on_line: Callable[[str], None] | None
) -> str:
    lines: list[str] = []
    if child.stdout is None:
        return ""
    sink = log.open("a", encoding="utf-8") if log else None
    try:
        with child.stdout:
            for line in child.stdout:
                lines.append(line)
                if sink:
                    sink.write(line)
                    sink.flush()
                if on_line:
                    on_line(line.rstrip("\n"))
    finally:
        if sink:
            sink.close()
    return "".join(lines)
