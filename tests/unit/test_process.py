"""Programs are run to their end, or ended with everything that they started."""

import os
import select
import threading
import time

import pytest

from harness import process
from harness.errors import EnvironmentFailure


def ended(pid, seconds=5.0):
    """True once a process has ended, whoever its parent is."""
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([watched], [], [], seconds)[0])
    finally:
        os.close(watched)


def test_output_is_given_logged_and_told_line_by_line(tmp_path):
    log, lines = tmp_path / "log", []
    log.write_text("before\n")
    output = process.run(["sh", "-c", "echo a; echo b >&2"], log=log, on_line=lines.append)
    assert output == "a\nb\n"
    assert lines == ["a", "b"]
    assert log.read_text() == "before\na\nb\n"


def test_a_failure_tells_the_command_the_code_and_the_last_line():
    with pytest.raises(process.CommandFailed) as caught:
        process.run(["sh", "-c", "echo because; exit 3"])
    assert caught.value.returncode == 3
    assert str(caught.value).endswith("exited with 3: because")


def test_a_missing_program_is_an_environment_failure():
    with pytest.raises(EnvironmentFailure, match="no-such-program is not installed"):
        process.run(["no-such-program"])


def test_variables_are_added_to_the_environment():
    assert process.run(["sh", "-c", "echo $COLOUR$HOME"], env={"COLOUR": "red"}) == (
        f"red{os.environ['HOME']}\n"
    )


def test_the_deadline_ends_the_whole_group(tmp_path):
    pid_file = tmp_path / "pid"
    with pytest.raises(process.CommandFailed, match="ended at its deadline"):
        process.run(["sh", "-c", f"sleep 60 & echo $! >{pid_file}; echo up; wait"], deadline=0.3)
    assert ended(int(pid_file.read_text()))


def test_cancelling_from_another_thread_ends_the_program():
    cancellation, up = process.Cancellation(), threading.Event()
    told = []

    def run():
        try:
            process.run(
                ["sh", "-c", "echo $$; exec sleep 60"],
                cancellation=cancellation,
                on_line=lambda line: (told.append(int(line)), up.set()),
            )
        except process.Cancelled:
            told.append("cancelled")

    thread = threading.Thread(target=run)
    thread.start()
    assert up.wait(5)
    cancellation.cancel()
    thread.join(5)
    assert told[1] == "cancelled"
    assert ended(told[0])


def test_nothing_starts_after_cancelling(tmp_path):
    cancellation = process.Cancellation()
    cancellation.cancel()
    with pytest.raises(process.Cancelled):
        process.run(["touch", str(tmp_path / "x")], cancellation=cancellation)
    assert not (tmp_path / "x").exists()


def test_a_program_that_ignores_sigterm_is_killed(monkeypatch):
    monkeypatch.setattr(process, "GRACE_SECONDS", 0.2)
    started = time.monotonic()
    with pytest.raises(process.CommandFailed):
        process.run(["sh", "-c", "trap '' TERM; while :; do sleep 1; done"], deadline=0.2)
    assert time.monotonic() - started < 10
