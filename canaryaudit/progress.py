"""How stages tell what they do, without knowing about terminals.

Stages call a ``Narrator``; ``canaryaudit.cli.app`` brings one that prints, tests bring one that records.
"""

from typing import Protocol


class Narrator(Protocol):
    """Receives what a stage has to say."""

    def say(self, message: str) -> None:
        """Tell a finished fact, in one sentence."""

    def warn(self, message: str) -> None:
        """Tell what must be known before a figure is relied on; heard even where nothing else is."""

    def progress(self, stage: str, done: float, total: float, facts: str = "") -> None:
        """Tell how far ``stage`` is: ``done`` of ``total``, with a few current figures."""


class Silent:
    """A narrator that says nothing."""

    def say(self, message: str) -> None:
        """Drop the message."""

    def warn(self, message: str) -> None:
        """Drop the message."""

    def progress(self, stage: str, done: float, total: float, facts: str = "") -> None:
        """Drop the progress."""
