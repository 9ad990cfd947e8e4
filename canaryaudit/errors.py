"""Every error that a user can cause or meet, under one base class.

A message states in one line what is wrong, what was expected, what was received, and what to do next. Only
``canaryaudit.cli.exit_status`` catches these errors, for the command line; all other modules raise them.
"""

import shlex
import signal


class CanaryAuditError(Exception):
    """Base class: an error with a one-line message. Exit status 1."""


class UsageError(CanaryAuditError):
    """The command line or the plan is invalid. Exit status 2."""


class CorpusError(CanaryAuditError):
    """The corpus cannot be read, or does not fit the request."""


class TemplateError(UsageError):
    """A template, a slot or a secret is malformed, or they do not fit each other."""


class RunDirectoryError(CanaryAuditError):
    """A run directory is missing, damaged, locked, foreign or from a newer version."""


class Damaged(RunDirectoryError):
    """A file's contents are not what was written.

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
    """A model file is damaged, or does not match its description."""


class UnreadableText(ModelError):
    """A model cannot read a text: it is too long for it, or has parts that its tokenizer cannot write."""


class MeasurementError(CanaryAuditError):
    """An estimator cannot compute what was requested."""


class UnlearningError(CanaryAuditError):
    """An unlearning request cannot be carried out."""


class UnfitOptions(UnlearningError, UsageError):
    """Options of an unlearning contradict each other."""


class InvalidName(RunDirectoryError, UsageError):
    """A name is not one that a model or an unlearning can have."""


class PeerLost(CanaryAuditError):
    """Another process of the same job ended, or never joined."""

    def __init__(self) -> None:
        super().__init__(
            "another process of this job ended or did not join in time; finished work is kept, rerun the command to "
            "resume"
        )


class Inconclusive(CanaryAuditError):
    """The work finished, but its result is not reliable. Exit status 4."""


class Interrupted(BaseException):
    """A signal ended the command; not an ``Exception``, so no handler treats it as a failure. Exit status 128 + n.

    Attributes:
        number: The signal's.
        kept: What is kept, and what is lost, as a clause.
    """

    def __init__(self, number: int = signal.SIGINT, kept: str = "finished work is kept") -> None:
        super().__init__(number)
        self.number, self.kept = number, kept


def one_line(error: BaseException) -> str:
    """Return the first line of ``error``, short enough for a one-line message."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return line if len(line) <= 200 else line[:199] + "…"


def command(*words: object) -> str:
    """Return a command line quoted for a shell."""
    return shlex.join(str(word) for word in words)
