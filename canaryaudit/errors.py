"""Every error that a user can cause or meet, under one base class.

A message says what is wrong, what was expected, what came, and what to do next, in one line. Only
``canaryaudit.cli.exit_status`` catches these, for the command line; everything below it raises.
"""

import shlex
import signal


class CanaryAuditError(Exception):
    """Base class: an error said in one line. Exit status 1."""


class UsageError(CanaryAuditError):
    """The command line or the plan asks for something that there is not. Exit status 2."""


class CorpusError(CanaryAuditError):
    """The corpus cannot be read, or does not suit the request."""


class TemplateError(CanaryAuditError):
    """A template, a slot or a secret is not well formed."""


class RunDirectoryError(CanaryAuditError):
    """A run directory is missing, damaged, locked, foreign or from a newer version."""


class Damaged(RunDirectoryError):
    """A file is not what was written there.

    Args:
        what: The file.
        fault: What is wrong with it.
        repair: What to do, as a clause.
    """

    def __init__(self, what: object, fault: str, repair: str) -> None:
        super().__init__(f"{what} is damaged ({fault}): {repair}")
        self.fault = fault


class NewerVersion(RunDirectoryError):
    """A file was written by a newer version of this package."""


class ModelError(CanaryAuditError):
    """A model file is damaged, or does not fit its description."""


class MeasurementError(CanaryAuditError):
    """An estimator was asked for something that it cannot give."""


class UnlearningError(CanaryAuditError):
    """An unlearning request cannot be carried out."""


class PeerLost(CanaryAuditError):
    """Another process of the same job has ended, or never came."""

    def __init__(self) -> None:
        super().__init__(
            "another process of this job has ended, or none came in time: nothing is broken; the same command goes on"
        )


class Inconclusive(CanaryAuditError):
    """The work was done, and its outcome must not be relied on. Exit status 4."""


class Interrupted(BaseException):
    """A signal ended the command; no ``Exception``, so that nobody takes it for a failure. Exit status 128 + number."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(number)
        self.number = number


def one_line(error: BaseException) -> str:
    """Return what ``error`` says first, short enough to stand inside a one-line message."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return line if len(line) <= 200 else line[:199] + "…"


def command(*words: object) -> str:
    """Return a command line that can be copied into a shell."""
    return shlex.join(str(word) for word in words)
