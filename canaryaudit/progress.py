"""Progress reporting, independent of terminals.

Stages call a ``ProgressReporter``. The command line passes one that prints; tests pass one that records.
"""

from typing import Protocol

from canaryaudit.errors import Interrupted

_signals: list[int] = []
"""Signals that came and have not ended the command yet; a process has one set of handlers."""


def note_signal(number: int) -> None:
    """Note a signal that is to end the command."""
    _signals.append(number)


def forget_signals() -> None:
    """Forget all signals, because the command has ended."""
    _signals.clear()


def check_signals() -> None:
    """End the command if a signal came; long loops call this at every step.

    Raises:
        Interrupted: One came, and the exception that its handler raised was lost.
    """
    if _signals:
        raise Interrupted(_signals[0])


class ProgressReporter(Protocol):
    """Receives messages and progress from a stage."""

    def info(self, message: str) -> None:
        """Report a finished step, in one sentence."""

    def warn(self, message: str) -> None:
        """Report what a user must know before relying on a figure; shown even in quiet mode."""

    def update(self, stage: str, done: float, total: float, facts: str = "") -> None:
        """Report progress of ``stage``: ``done`` of ``total``, with a few current figures."""


class NullReporter:
    """A reporter that ignores everything."""

    def info(self, message: str) -> None:
        """Ignore the message."""

    def warn(self, message: str) -> None:
        """Ignore the message."""

    def update(self, stage: str, done: float, total: float, facts: str = "") -> None:
        """Ignore the progress."""
