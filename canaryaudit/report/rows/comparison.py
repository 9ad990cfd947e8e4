"""Comparison of several runs on rows: the last result of each beside the others', on one page."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from canaryaudit import formatting as figures
from canaryaudit.records import ReportFormat
from canaryaudit.report.comparison.comparison import SHORTEST_NAME, labels
from canaryaudit.report.comparison.writer import COMPARISON_FORMATS, MAIN_FILES
from canaryaudit.report.formats.files import earlier_formats, write_files
from canaryaudit.report.formats.html import UNFOLDED, make_environment
from canaryaudit.report.formats.json_text import render_json
from canaryaudit.report.formats.markdown import code, plain
from canaryaudit.report.judgment import GateStatus, Part
from canaryaudit.report.rows.pipelines import RowsGate

_WORST_FIRST: tuple[GateStatus, ...] = ("failed", "inconclusive", "passed")
_NAME = 60
_MOST_REASONS = 20


class RunLine(Protocol):
    """The last result of one run."""

    @property
    def name(self) -> str:
        """Of the run, which distinguishes it from the others."""

    @property
    def verified(self) -> bool:
        """Whether the figures are those of a run directory, which was verified."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What must be known of it."""


@dataclass(frozen=True)
class ComparisonView:
    """How a comparison of runs on one kind of rows is shown.

    Attributes:
        subject: What the runs are on: ``tables``.
        caption: What the columns mean.
        footer: Sources.
        headings: Of the page's columns; the first is the run.
        cells: Returns a run's row of the page.
        short_headings: Of the terminal's columns.
        short_cells: Returns a run's row in the terminal, without its name.
    """

    subject: str
    caption: str
    footer: str
    headings: tuple[str, ...]
    cells: Callable[[Any], list[str]]
    short_headings: tuple[str, ...]
    short_cells: Callable[[Any], list[str]]

    def page(self, comparison: Any) -> str:
        """Return the page."""
        template = make_environment().get_template("rows_comparison.html.j2")
        rows = [self.cells(own) for own in comparison.runs]
        return template.render(c=comparison, view=self, rows=rows, unfolded=UNFOLDED)

    def markdown(self, comparison: Any) -> str:
        """Return the comparison as Markdown."""
        lines = [[*self.headings], ["---"] * len(self.headings)]
        rows = [self.cells(own) for own in comparison.runs]
        lines += [[code(row[0], _NAME), *(plain(cell, 120) for cell in row[1:])] for row in rows]
        reasons = comparison.reasons
        blocks = [
            f"# Comparison of runs on {self.subject}",
            f"## {plain(comparison.headline)}",
            *(
                f"> **Warning**, {code(own.name, _NAME)}: {plain(text)}"
                for own in comparison.runs
                for text in own.warnings
            ),
            plain(comparison.note),
            f"Gate: **{comparison.status}**" if comparison.status else "",
            "\n".join(f"- {plain(reason)}" for reason in reasons[:_MOST_REASONS]),
            f"and {len(reasons) - _MOST_REASONS:,} more, in comparison.json" if len(reasons) > _MOST_REASONS else "",
            "\n".join(f"| {' | '.join(line)} |" for line in lines),
        ]
        return "\n\n".join(block for block in blocks if block) + "\n"

    def terminal(self, comparison: Any) -> RenderableType:
        """Return what the command prints."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for heading in ("run", *self.short_headings):
            table.add_column(heading, justify="left" if heading == "run" else "right", no_wrap=True)
        for name, own in zip(labels(comparison.runs, SHORTEST_NAME), comparison.runs, strict=True):
            table.add_row(Text(name), *self.short_cells(own))
        return Group(table, self.result(comparison))

    def result(self, comparison: Any) -> RenderableType:
        """Return the result, warnings and the gate."""
        lines = [comparison.headline]
        lines += [f"! {own.name}: {warning}" for own in comparison.runs for warning in own.warnings]
        lines += [comparison.note] if comparison.note else []
        lines += [f"Gate: {comparison.status}"] if comparison.status else []
        return Group(*(Text(figures.visible(line)) for line in lines))

    def write(self, comparison: Part, directory: Path, formats: Sequence[ReportFormat]) -> list[Path]:
        """Write the comparison in all requested formats, and in those of an earlier one: all files or none.

        Raises:
            RunDirectoryError: The directory or a file cannot be written.
        """
        makers: dict[ReportFormat, Callable[[], str]] = {
            "html": lambda: self.page(comparison),
            "md": lambda: self.markdown(comparison),
            "json": lambda: render_json(comparison),
        }
        requested = [name for name in COMPARISON_FORMATS if name in formats]
        wanted = requested + earlier_formats(directory, MAIN_FILES, formats)
        return write_files(directory, {MAIN_FILES[name]: makers[name]() for name in wanted})


def unverified_note(runs: Sequence[RunLine]) -> str:
    """Say which figures nothing verified; empty if all are of run directories."""
    names = [run.name for run in runs if not run.verified]
    return f"Read from report.json files, not verified: {', '.join(names)}." if names else ""


def judged(gates: Sequence[tuple[str, RowsGate | None]]) -> tuple[tuple[str, ...], GateStatus | None]:
    """Return why gates did not pass, and the worst result of any; none without a gate.

    Args:
        gates: Each run's name and gate.
    """
    there = [(name, gate) for name, gate in gates if gate]
    statuses = {gate.status for _, gate in there}
    reasons = tuple(f"{name}: {remark}" for name, gate in there for remark in gate.remarks)
    return reasons, next((status for status in _WORST_FIRST if status in statuses), None)


def change_words(before: float | None, after: float | None) -> str:
    """Return how an AUC changed; a dash without one."""
    return figures.MISSING if before is None or after is None else f"{before:.3f} → {after:.3f}"
