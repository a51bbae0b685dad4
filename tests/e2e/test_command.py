"""The command as a person runs it: interrupted at every stage, killed, asked for nonsense."""

import os
import signal
import subprocess
import sys

import pytest

from harness import cluster as clusters

HARNESS = (sys.executable, "-m", "harness")


def harness(*words, **options):
    return subprocess.run(
        [*HARNESS, *words], capture_output=True, text=True, check=False, **options
    )


def interrupt(signum, title, tmp_path, *words):
    """Run the tutorial, send a signal when a stage's title is printed, give the exit code."""
    with subprocess.Popen(
        [*HARNESS, "run", "--out", str(tmp_path), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as child:
        said = []
        for line in child.stdout:
            said.append(line)
            if title in line:
                child.send_signal(signum)
        assert any(title in line for line in said), "".join(said)
    assert "Traceback" not in "".join(said)
    return child.returncode


@pytest.mark.parametrize(
    ("signum", "title"),
    [
        (signal.SIGINT, "Find a Docker engine"),
        (signal.SIGINT, "Get the images"),
        (signal.SIGINT, "Create a kind cluster"),
        (signal.SIGTERM, "Load the redis"),
        (signal.SIGINT, "Start Redis"),
        (signal.SIGTERM, "Working on"),
        (signal.SIGINT, "Delete the cluster"),
    ],
    ids=lambda value: getattr(value, "name", value).replace(" ", "-").lower(),
)
def test_an_interrupted_run_leaves_nothing(signum, title, tmp_path, machine):
    before = machine()
    items = tmp_path / "items.txt"
    items.write_text("one\n")
    assert interrupt(signum, title, tmp_path, "--items", str(items)) == 128 + signum
    assert machine() == before
    assert (tmp_path / "report.json").exists()


def test_a_run_that_nobody_reads_any_more_still_cleans_up(tmp_path, machine):
    before = machine()
    words = ["run", "--out", str(tmp_path), "--sleep", "0"]
    with subprocess.Popen([*HARNESS, *words], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline()
        child.stdout.close()
    assert child.returncode == 0
    assert machine() == before
    assert "each exactly once" in (tmp_path / "verdict.md").read_text()


def test_a_killed_run_is_found_by_down(tmp_path, machine, docker_engine):
    before = machine()
    assert interrupt(signal.SIGKILL, "Load the redis", tmp_path, "--name", "killed") == -9
    left = [found for found in clusters.find_all(docker_engine) if found.name == "killed"]
    assert [(len(found.nodes), found.running, found.kept) for found in left] == [(3, False, False)]
    assert "left by a killed run" in harness("status").stdout
    assert "deleted killed" in harness("down", "--name", "killed").stdout
    assert machine() == before


def test_down_deletes_only_what_the_harness_made(docker_engine):
    container = docker_engine.client.networks.create("not-ours")
    try:
        ended = harness("down", "--name", "not-ours")
        assert ended.returncode == 2
        assert "the harness made no cluster named not-ours" in ended.stderr
        assert docker_engine.client.networks.list(names=["^not-ours$"])
    finally:
        container.remove()


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("run", "--parallelism", "0"), 2, "--parallelism 0 would start no worker"),
        (("run", "--items", "/nowhere"), 2, "can't be read"),
        (("run", "--name", "A b"), 2, "can't name a cluster"),
        (("run", "--manifests", "/nowhere"), 2, "can't be read"),
        (("run", "--no-such-option"), 2, "No such option"),
        (("down",), 2, "say what to delete"),
    ],
)
def test_bad_usage_is_told_in_a_sentence(words, code, sentence, tmp_path):
    ended = harness(*words, *(["--out", str(tmp_path)] if words[0] == "run" else []))
    assert ended.returncode == code
    assert sentence in ended.stderr
    assert "Traceback" not in ended.stderr


def test_no_engine_is_an_environment_failure(tmp_path):
    environment = {**os.environ, "DOCKER_HOST": "unix:///nowhere.sock"}
    ended = harness("run", "--out", str(tmp_path), env=environment)
    assert ended.returncode == 3
    assert "no Docker engine answers at DOCKER_HOST=unix:///nowhere.sock" in ended.stderr
    assert (tmp_path / "junit.xml").exists()


def test_the_doctor_finds_everything_here(docker_engine):
    ended = harness("doctor")
    assert ended.returncode == 0, ended.stdout
    assert docker_engine.version in ended.stdout
