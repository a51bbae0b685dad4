"""What can go wrong, by kind.

Every failure that a person can meet is one of these: one sentence that names the thing and
the remedy, and an exit code by kind (documented in the README). Anything else that escapes
is a bug.
"""

from __future__ import annotations


class HarnessError(Exception):
    """A failure with a remedy; ``str(error)`` is the sentence to show."""

    exit_code = 1
    kind = "internal"


class UsageFailure(HarnessError):
    """The command was asked for something it can't do: bad items, a taken name."""

    exit_code = 2
    kind = "usage"


class EnvironmentFailure(HarnessError):
    """The machine lacks something: a Docker engine, disk space, a package."""

    exit_code = 3
    kind = "environment"


class ClusterFailure(HarnessError):
    """The kind cluster did not come up or did not answer."""

    exit_code = 4
    kind = "cluster"


class TutorialFailure(HarnessError):
    """The document's own steps failed on a working cluster: Redis, the Job, the verdict."""

    exit_code = 5
    kind = "tutorial"


class Interrupted(BaseException):
    """SIGINT, SIGTERM or SIGHUP arrived. Not an ``Exception``: no handler may swallow it.

    Args:
        signum: the signal's number; the exit code is 128 + this, as shells have it.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.exit_code = 128 + signum
