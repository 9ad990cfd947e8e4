"""Progress on the terminal: a live bar, or occasional lines if the output is not a terminal."""

import time
from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from canaryaudit.formatting import visible
from canaryaudit.progress import check_signals

_SECONDS_BETWEEN_LINES = {False: 15.0, True: 1.0}
"""Between lines of progress, by whether the output is verbose."""


class _LiveLines(Progress):
    """A bar with the time left, and below it the current figures on a separate line."""

    def get_renderables(self) -> Iterable[RenderableType]:
        """Return the bar and the figures."""
        yield from super().get_renderables()
        for task in self.tasks:
            if task.fields["facts"]:
                yield Text(task.fields["facts"], no_wrap=True, overflow="ellipsis")


@dataclass
class _Pace:
    """The speed of one piece of work."""

    stage: str
    total: float
    since: float
    first: float
    done: float = 0.0

    def matches(self, stage: str, done: float, total: float) -> bool:
        """Return whether progress belongs to this piece of work."""
        return (stage, total) == (self.stage, self.total) and done >= self.done

    def seconds_left(self, now: float, done: float, total: float) -> float | None:
        """Return the time left at the current pace; None if unknown, and at the end."""
        share = (done - self.first) / (total - self.first) if total > self.first else 1.0
        return (now - self.since) * (1 - share) / share if 0 < share < 1 and now - self.since > 1 else None


class TerminalReporter:
    """Prints the progress of stages on standard error; a context manager, which always removes the live line.

    Args:
        console: Where to write.
        quiet: Print warnings only.
        verbose: Print progress as permanent lines, more often.
    """

    def __init__(self, console: Console, *, quiet: bool = False, verbose: bool = False) -> None:
        self.console, self.quiet, self.verbose = console, quiet, verbose
        self._started = time.monotonic()
        self._last_line = self._started
        self._stage = ""
        self._task: TaskID | None = None
        self._live: Progress | None = None
        self._pace: _Pace | None = None

    def __enter__(self) -> "TerminalReporter":
        """Start; the live line appears with the first update."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the live line."""
        self._remove_live_line()

    def info(self, message: str) -> None:
        """Print a message with the time since the command began."""
        if not self.quiet:
            self._print(message)

    def warn(self, message: str) -> None:
        """Print a warning, even if quiet."""
        self._print(f"WARNING: {message}")

    def update(self, stage: str, done: float, total: float, facts: str = "") -> None:
        """Update the live line; without a terminal, or if verbose, print occasional lines."""
        check_signals()
        if self.quiet:
            return
        if self.console.is_terminal and not self.verbose:
            self._move(stage, done, total, facts)
            return
        now = time.monotonic()
        if self._pace is None or not self._pace.matches(stage, done, total):
            self._pace = _Pace(stage, total, now, done)
        self._pace.done = done
        if now - self._last_line > _SECONDS_BETWEEN_LINES[self.verbose] or (self.verbose and stage != self._stage):
            self._last_line, self._stage = now, stage
            left = self._pace.seconds_left(now, done, total)
            parts = [f"{stage}: {100 * done / max(total, 1e-9):.0f} %", facts, f"{left:.0f} s left" if left else ""]
            self._print(", ".join(part for part in parts if part))

    def _print(self, message: str) -> None:
        self._remove_live_line()
        elapsed = time.monotonic() - self._started
        self.console.print(Text(f"[{elapsed:6.1f} s] {visible(message)}"), soft_wrap=True)

    def _move(self, stage: str, done: float, total: float, facts: str) -> None:
        if self._live is None or stage != self._stage:
            self._remove_live_line()
            self._stage = stage
            self._live = _LiveLines(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                TextColumn("{task.percentage:>3.0f} %"),
                TimeElapsedColumn(),
                TextColumn("left", markup=False),
                TimeRemainingColumn(),
                console=self.console,
                transient=True,
                refresh_per_second=4,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._task = self._live.add_task(visible(stage), total=total, facts="")
            self._live.start()
        if self._task is not None:
            self._live.update(self._task, completed=done, total=total, facts=visible(facts))

    def _remove_live_line(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
            self._task = None
