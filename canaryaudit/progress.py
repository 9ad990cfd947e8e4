"""Progress reporting, independent of terminals.

Stages call a ``ProgressReporter``. The command line passes one that prints; tests pass one that records.
"""

from typing import Protocol


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
