"""What is decided about the engine: addresses, stale files, capabilities."""

import hashlib
import json
import os
import subprocess
import sys

import pytest

from harness import engine, oci_runtime
from harness.errors import EnvironmentFailure

ALL = "CapBnd:\t000001ffffffffff\n"
NO_SYS_RESOURCE = "Name:\tx\nCapBnd:\t000001fffeffffff\n"


@pytest.fixture
def no_engine(monkeypatch, tmp_path):
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.delenv("DOCKER_CONTEXT", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(engine, "DEFAULT_SOCKET", tmp_path / "docker.sock")


@pytest.mark.parametrize(
    ("status", "missing"), [(ALL, set()), (NO_SYS_RESOURCE, {"CAP_SYS_RESOURCE"})]
)
def test_missing_capabilities(status, missing):
    assert oci_runtime.missing_capabilities(status) == missing


def test_a_process_is_restricted_to_what_can_be_had():
    process = {
        "capabilities": {"bounding": ["CAP_CHOWN", "CAP_SYS_RESOURCE"], "ambient": []},
        "rlimits": [{"type": "RLIMIT_NOFILE"}],
        "oomScoreAdj": -999,
    }
    oci_runtime.restrict(process, frozenset({"CAP_SYS_RESOURCE"}))
    assert process == {
        "capabilities": {"bounding": ["CAP_CHOWN"], "ambient": []},
        "oomScoreAdj": 0,
    }


def test_limits_stay_where_only_another_capability_is_missing():
    process = {"capabilities": {"bounding": ["CAP_BPF"]}, "rlimits": [1], "oomScoreAdj": -5}
    oci_runtime.restrict(process, frozenset({"CAP_BPF"}))
    assert process == {"capabilities": {"bounding": []}, "rlimits": [1], "oomScoreAdj": -5}


@pytest.mark.parametrize("words", [["--bundle", "B"], ["--bundle=B"], ["-b", "B"]])
def test_options_in_every_spelling(words):
    assert oci_runtime.option(["create", *words, "id"], "--bundle", "-b") == "B"
    assert oci_runtime.option(["create", "id"], "--bundle", "-b") is None


def test_the_installed_wrapper_runs_runc_with_the_restricted_specification(tmp_path):
    wrapper = engine.install_runtime(tmp_path)
    runc = tmp_path / "bin" / "runc"
    runc.parent.mkdir()
    runc.write_text('#!/bin/sh\necho "$@"\n')
    runc.chmod(0o755)
    (tmp_path / "config.json").write_text(
        json.dumps({"process": {"capabilities": {"bounding": ["CAP_CHOWN"]}}})
    )
    said = subprocess.run(
        [wrapper, "create", "--bundle", tmp_path, "id"],
        env={"PATH": f"{runc.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.split() == ["create", "--bundle", str(tmp_path), "id"]
    assert json.loads((tmp_path / "config.json").read_text())["process"]["capabilities"]


def test_docker_host_comes_before_everything(no_engine, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "unix:///x.sock")
    assert engine._candidates() == ["unix:///x.sock"]


def test_the_standard_sockets_are_tried(no_engine, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1")
    assert f"unix://{tmp_path}/docker.sock" in engine._candidates()
    assert engine._candidates()[-1] == "unix:///run/user/1/docker.sock"


def test_the_users_context_is_followed(no_engine, tmp_path):
    (tmp_path / "config.json").write_text('{"currentContext": "mine"}')
    meta = tmp_path / "contexts" / "meta" / hashlib.sha256(b"mine").hexdigest() / "meta.json"
    meta.parent.mkdir(parents=True)
    endpoint = {"Host": "unix:///mine.sock", "SkipTLSVerify": False}
    meta.write_text(json.dumps({"Name": "mine", "Metadata": {}, "Endpoints": {"docker": endpoint}}))
    assert engine._candidates()[0] == "unix:///mine.sock"


def test_no_engine_at_docker_host_is_told(no_engine, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    with pytest.raises(EnvironmentFailure, match=r"DOCKER_HOST=unix:///nowhere\.sock; start it"):
        engine.ensure(print)


def test_without_root_nothing_is_started(no_engine, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(EnvironmentFailure, match="only root may start one"):
        engine.ensure(print)


def test_packages_are_not_installed_without_root(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(EnvironmentFailure, match=r"as root on Debian or Ubuntu: docker\.io"):
        engine.apt_install(("docker.io",), print)


def test_a_daemon_that_ends_at_once_is_told_with_its_last_words(no_engine, monkeypatch, tmp_path):
    daemon = tmp_path / "bin" / "dockerd"
    daemon.parent.mkdir()
    daemon.write_text("#!/bin/sh\necho 'no space left on device' >&2; exit 1\n")
    daemon.chmod(0o755)
    monkeypatch.setenv("PATH", f"{daemon.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(engine, "_remove_stale_pid_files", lambda: None)
    with pytest.raises(EnvironmentFailure, match=r"not ready within 60 s \(no space left"):
        engine.launch(print)


def test_only_an_engine_that_the_harness_started_is_stopped(no_engine, tmp_path):
    assert engine.stop() is None
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        record = {"pid": other.pid, "started": "1"}  # a process id that was used again
        folder = tmp_path / "work-queue-e2e"
        folder.mkdir(exist_ok=True)
        (folder / "dockerd.json").write_text(json.dumps(record))
        assert engine.stop() is None
        assert other.poll() is None
        engine._record(other.pid)
        assert engine.stop() == other.pid
        assert other.wait(5) == -15
