"""Signals arrive as an exception, and wait where they would tear a step apart."""

import os
import signal

import pytest

from harness import signals
from harness.errors import Interrupted


@pytest.fixture(autouse=True)
def handlers():
    signums = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(signum) for signum in signums]
    signals.install()
    yield
    for signum, handler in zip(signums, before, strict=True):
        signal.signal(signum, handler)


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_is_an_exception_with_the_shells_exit_code(signum, code):
    with pytest.raises(Interrupted) as caught:
        os.kill(os.getpid(), signum)
    assert caught.value.exit_code == code


def test_a_signal_waits_for_the_end_of_the_shield():
    steps = []

    def work():
        with signals.shield():
            with signals.shield():
                os.kill(os.getpid(), signal.SIGINT)
                steps.append("inner")
            steps.append("outer")
        steps.append("never")

    with pytest.raises(Interrupted):
        work()
    assert steps == ["inner", "outer"]


def test_a_signal_is_raised_once():
    with pytest.raises(Interrupted), signals.shield():
        os.kill(os.getpid(), signal.SIGINT)
    with signals.shield():
        pass
