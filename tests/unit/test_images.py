"""Where images come from: what is decided without an engine."""

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from harness import paths
from harness.engine import Engine
from harness.errors import EnvironmentFailure, UsageFailure
from harness.images import sources, worker

Usage = namedtuple("Usage", "total used free")


def engine_with(data_root):
    return Engine(client=None, host="unix:///x", version="1", data_root=data_root)


def test_the_documents_files_are_built_as_they_are_on_the_documents_base():
    files, differences = worker.context(paths.WORKER, "python:latest", 10)
    assert sorted(files) == ["Dockerfile", "rediswq.py", "worker.py"]
    assert all(content == (paths.WORKER / name).read_bytes() for name, content in files.items())
    assert differences == ()


def test_another_base_changes_the_first_line_only_and_is_told():
    document = (paths.WORKER / "Dockerfile").read_text().splitlines()
    files, differences = worker.context(paths.WORKER, "localhost/python:1", 10)
    changed = files["Dockerfile"].decode().splitlines()
    assert changed[0] == "FROM localhost/python:1"
    assert changed[1:] == document[1:]
    assert [str(one) for one in differences] == ["Dockerfile: FROM python -> localhost/python:1"]


def test_another_sleep_changes_the_worker_and_is_told():
    document = (paths.WORKER / "worker.py").read_text()
    files, differences = worker.context(paths.WORKER, "python:latest", 0.5)
    assert files["worker.py"].decode() == document.replace("time.sleep(10)", "time.sleep(0.5)")
    assert [str(one) for one in differences] == ["worker.py: time.sleep 10 -> 0.5"]


def test_a_worker_that_is_not_the_documents_can_not_be_adapted(tmp_path):
    for name in worker.FILES:
        (tmp_path / name).write_text("FROM python\n")
    with pytest.raises(UsageFailure, match=r"worker/worker\.py has no 'time\.sleep\(10\)'"):
        worker.context(tmp_path, "python:latest", 1)


def test_what_is_built_locally_has_a_name_that_no_registry_answers_for():
    assert worker.REPOSITORY.startswith("localhost/")


@pytest.mark.parametrize(("free", "fails"), [(5.9e9, True), (6e9, False)])
def test_a_nearly_full_disk_is_told(free, fails, monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1e12, 0, free))
    if not fails:
        assert sources.require_space(engine_with(tmp_path), 6 * 10**9, "a run") is None
        return
    with pytest.raises(EnvironmentFailure) as caught:
        sources.require_space(engine_with(tmp_path), 6 * 10**9, "a run")
    assert f"a run needs about 6 GB of disk, and {tmp_path} has 5.9 GB free" in str(caught.value)


def test_the_disk_of_another_machine_is_not_measured():
    sources.require_space(engine_with(Path("/no/such/folder")), 10**18, "a run")


@pytest.mark.parametrize(
    ("said", "short"),
    [
        ("Error response from daemon: Get x: dial tcp: lookup r: no such host", "no such host"),
        ("", "no reason given"),
    ],
)
def test_a_refusal_is_shortened_to_its_reason(said, short):
    assert sources._short(said) == short
