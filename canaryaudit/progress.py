"""How stages tell what they do, without knowing about terminals.

Stages call a ``ProgressReporter``; ``canaryaudit.cli.app`` brings one that prints, tests bring one that records.
"""

from typing import Protocol


class ProgressReporter(Protocol):
    """Receives what a stage has to say."""

    def info(self, message: str) -> None:
        """Tell a finished fact, in one sentence."""

    def warn(self, message: str) -> None:
        """Tell what must be known before a figure is relied on; heard even where nothing else is."""

    def update(self, stage: str, done: float, total: float, facts: str = "") -> None:
        """Tell how far ``stage`` is: ``done`` of ``total``, with a few current figures."""


class NullReporter:
    """A narrator that says nothing."""

    def info(self, message: str) -> None:
        """Drop the message."""

    def warn(self, message: str) -> None:
        """Drop the message."""

    def update(self, stage: str, done: float, total: float, facts: str = "") -> None:
        """Drop the progress."""
