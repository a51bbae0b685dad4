"""The fault scenarios hold with our queue, and tell it from one that loses items."""

import shutil
from pathlib import Path

import pytest

from harness import paths
from harness.events import ImageObtained, Recorder, Struck
from harness.faults import SCENARIOS, play, select
from harness.images import worker
from harness.settings import Settings

NAIVE = Path(__file__).parent.parent / "faults" / "naive_rediswq.py"


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_what_must_hold_holds(scenario, ground):
    recorder = Recorder()
    outcome = play(scenario, Settings(timeout=150), ground, recorder)
    assert outcome.holds, outcome.failure or str(outcome.verdict)
    struck = [event for event in recorder.events if isinstance(event, Struck)]
    assert len(struck) == (1 if scenario.strike else 0)


@pytest.mark.parametrize("name", ["pod-deleted", "worker-killed"])
def test_a_queue_that_loses_items_does_not_pass(name, ground, job_run, tmp_path):
    shutil.copytree(paths.WORKER, tmp_path / "worker")
    shutil.copy(NAIVE, tmp_path / "worker" / "rediswq.py")
    images = [event for event in job_run.events if isinstance(event, ImageObtained)]
    base = next(image.reference for image in images if image.name == "python")
    naive = worker.build(ground.cluster.engine, base, folder=tmp_path / "worker")
    ground.cluster.load_images(naive.reference)
    outcome = play(*select([name]), Settings(timeout=45), ground, Recorder(), naive)
    assert not outcome.holds
    # the item is in progress for ever, so the queue is never empty and the Job never done
    assert "was not complete within 45 s" in outcome.failure
