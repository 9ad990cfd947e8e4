"""The comparison as HTML, Markdown, JSON and terminal output, all rendered from one object."""

from collections.abc import Callable, Sequence
from pathlib import Path

from rich import box
from rich.console import Group, RenderableType
from rich.constrain import Constrain
from rich.table import Table
from rich.text import Text

from canaryaudit import formatting as figures
from canaryaudit.formatting import visible
from canaryaudit.records import ReportFormat
from canaryaudit.report.charts.base import Chart
from canaryaudit.report.comparison.comparison import (
    SHORTEST_NAME,
    Comparison,
    RunSummary,
    comparison_chart,
    labels,
    spread,
)
from canaryaudit.report.comparison.trend import trend_chart
from canaryaudit.report.formats.files import earlier_formats, write_files
from canaryaudit.report.formats.html import UNFOLDED, drawing, make_environment
from canaryaudit.report.formats.json_text import render_json
from canaryaudit.report.formats.markdown import code, plain
from canaryaudit.report.formats.terminal import STYLES, WIDTH
from canaryaudit.report.verdicts import SHORT_WORDS, WORDS

MAIN_FILES: dict[ReportFormat, str] = {"html": "comparison.html", "md": "comparison.md", "json": "comparison.json"}
COMPARISON_FORMATS = tuple(MAIN_FILES)
_MOST_REASONS = 20
_DATE, _COMMIT = 10, 12
_NAME = 60
"""Characters of a run's name in Markdown."""


def write_comparison(comparison: Comparison, directory: Path, formats: Sequence[ReportFormat]) -> list[Path]:
    """Write the comparison in all requested formats, and in those of an earlier one: all files or none.

    Returns:
        The files written, the main one first.

    Raises:
        RunDirectoryError: The directory or a file cannot be written.
    """
    chart = comparison_chart(comparison)
    course = trend_chart(comparison) if comparison.trend else None
    drawn = [own for own in (course, chart) if own]
    makers: dict[ReportFormat, Callable[[], dict[str, str]]] = {
        "html": lambda: {MAIN_FILES["html"]: render_page(comparison, chart, course)},
        "md": lambda: {
            MAIN_FILES["md"]: render_comparison_markdown(comparison, drawn),
            **{own.file_name: own.svg() for own in drawn},
        },
        "json": lambda: {MAIN_FILES["json"]: render_json(comparison)},
    }
    requested = [name for name in COMPARISON_FORMATS if name in formats]
    wanted = requested + earlier_formats(directory, MAIN_FILES, formats)
    contents = {name: text for own in wanted for name, text in makers[own]().items()}
    return write_files(directory, contents)


def render_page(comparison: Comparison, chart: Chart, course: Chart | None = None) -> str:
    """Return the page."""
    return (
        make_environment()
        .get_template("comparison.html.j2")
        .render(
            c=comparison,
            drawing=drawing(chart),
            course=drawing(course) if course else None,
            words=SHORT_WORDS,
            spread=spread,
            labels=labels,
            unfolded=UNFOLDED,
        )
    )


def render_comparison_markdown(comparison: Comparison, charts: Sequence[Chart]) -> str:
    """Return the comparison as Markdown, which refers to its pictures in the same folder."""
    names = [code(name, _NAME) for name in labels(comparison.runs, _NAME)]
    runs = list(zip(names, comparison.runs, strict=True))
    blocks = ["# Comparison of canary audits", "\n".join(f"- {name}: {plain(run.headline)}" for name, run in runs)]
    blocks += [f"> **Warning**, {name}: {plain(warning)}" for name, run in runs for warning in run.warnings]
    if comparison.note:
        blocks.append(plain(comparison.note))
    if comparison.status:
        blocks.append(f"**Gate: {comparison.status}.**")
        blocks.append("\n".join(f"- {plain(reason)}" for reason in comparison.reasons[:_MOST_REASONS]))
    blocks += [
        *(f"![{plain(chart.title)}. {plain(chart.alternative)}]({chart.file_name})" for chart in charts),
        "| Run | Verdict | Canaries | Exposed | Largest exposure | Mean exposure | Accuracy | Held-out loss | Seconds "
        "| Controls |\n| --- | --- | --: | --: | --: | --: | --: | --: | --: | --- |\n"
        + "\n".join(
            f"| {name} | {WORDS[run.verdict]} | {run.canaries:,} | {run.exposed:,} | "
            f"{_change(run.largest_before, run.largest_after)} | {_change(run.mean_before, run.mean_after)} | "
            f"{figures.points(run.accuracy_change)} | {figures.signed(run.heldout_loss_change_bits, 3)} | "
            f"{figures.decimal(run.seconds)} | {_controls(run)} |"
            for name, run in runs
        ),
        "## Mean exposure by repetitions, bits",
        f"| Repetitions | {' | '.join(names)} |\n"
        f"| --: |{' --: |' * len(runs)}\n"
        + "\n".join(
            f"| {line.repetitions:,} | "
            + " | ".join(_change(before, after) for before, after in zip(line.before, line.after, strict=True))
            + " |"
            for line in comparison.repetitions
        ),
        "## Compared runs",
        "| Run | Measured | Commit | Corpus | Model | Seed | Unlearning |\n"
        "| --- | --- | --- | --- | --- | --- | --- |\n"
        + "\n".join(
            f"| {name} | {plain(run.measured[:_DATE] or figures.MISSING)} | {plain(run.commit, _COMMIT)} | "
            f"{plain(run.corpus, 80)} | {plain(run.model, 200)} | {plain(run.seed)} | "
            f"{plain(run.method or 'none', 120)} |"
            for name, run in runs
        ),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def render_comparison_terminal(comparison: Comparison) -> RenderableType:
    """Return the output of ``report`` for several runs; its table is at most 80 columns wide."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("run", "canaries", "largest, bits", "mean, bits", "accuracy", "verdict"):
        table.add_column(heading, justify="left" if heading in ("run", "verdict") else "right")
    for name, run in zip(labels(comparison.runs, SHORTEST_NAME), comparison.runs, strict=True):
        table.add_row(
            Text(name),
            f"{run.canaries:,}",
            _change(run.largest_before, run.largest_after),
            _change(run.mean_before, run.mean_after),
            figures.signed(run.accuracy_points, 2),
            Text(SHORT_WORDS[run.verdict], style=STYLES[run.verdict]),
        )
    return Constrain(Group(table, render_comparison_result(comparison)), WIDTH)


def render_comparison_result(comparison: Comparison) -> RenderableType:
    """Return the output of ``report -q`` for several runs: warnings and gate."""
    parts: list[RenderableType] = []
    for run in comparison.runs:
        lines = [f"{run.name}: {warning}" for warning in run.warnings]
        parts += [Text.assemble(("! ", "bold yellow"), visible(line)) for line in lines]
    if comparison.note:
        parts.append(Text(comparison.note))
    if comparison.status:
        word = comparison.status if comparison.status == "passed" else comparison.status.upper()
        parts.append(Text(f"Gate: {word}", style="bold"))
    return Constrain(Group(*parts), WIDTH)


def _change(before: float | None, after: float | None) -> str:
    return figures.decimal(before) + (f" → {figures.decimal(after)}" if after is not None else "")


def _controls(run: RunSummary) -> str:
    return "none" if run.calibrated is None else "passed" if run.calibrated else "**FAILED**"
