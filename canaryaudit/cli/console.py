"""Helpers that the commands share: open a run, report progress, and print results."""

import json
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer
from pydantic import BaseModel
from rich.console import Console, RenderableType
from rich.text import Text

import canaryaudit
from canaryaudit.cli.exit_status import GATE_FAILED, INCONCLUSIVE
from canaryaudit.cli.progress_bar import TerminalReporter
from canaryaudit.formatting import finite, visible
from canaryaudit.runs.run_directory import RunDirectory

if TYPE_CHECKING:
    from canaryaudit.pipeline.pipeline import Pipeline
    from canaryaudit.report import Comparison, Summary
    from canaryaudit.report.images.schema import ImagesSummary
    from canaryaudit.report.judgment import GateStatus
    from canaryaudit.report.tables.schema import TablesSummary

M = TypeVar("M", bound=BaseModel)


@contextmanager
def progress_reporter(quiet: bool, verbose: bool) -> Iterator[TerminalReporter]:
    """Yield a progress reporter that writes to standard error."""
    with TerminalReporter(Console(stderr=True, highlight=False), quiet=quiet, verbose=verbose) as progress:
        yield progress


@contextmanager
def open_pipeline(
    path: Path, context: typer.Context, progress: TerminalReporter, *, reading: bool = False
) -> Iterator["Pipeline"]:
    """Open and lock a run directory and yield its pipeline; torch is imported here, not earlier.

    Args:
        path: The run directory.
        context: The command line's.
        progress: Receives progress.
        reading: The command can do with a read-only run.
    """
    run = RunDirectory.open(path)
    with run.lock(reading=reading):
        from canaryaudit.pipeline.pipeline import Pipeline

        yield Pipeline(run, command_line(context), progress)


def command_line(context: typer.Context) -> list[str]:
    """Return the command line as typed."""
    return ["canaryaudit", *context.obj]


def shell_quote(path: Path) -> str:
    """Return a path quoted for a shell."""
    return visible(shlex.quote(str(path)))


def print_json(value: BaseModel | dict[str, Any] | list[Any]) -> None:
    """Print one JSON document on standard output."""
    document = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    print(json.dumps(finite(document), indent=2, allow_nan=False))


def show(*views: RenderableType) -> None:
    """Print on standard output, without escape codes unless it is a terminal."""
    console = Console(highlight=False)
    for view in views:
        console.print(view, soft_wrap=True)


def show_report(summary: "Summary", written: list[Path], as_json: bool, quiet: bool) -> None:
    """Print a report's summary, or only its result if ``quiet``; exit with the gate's status if it did not pass.

    Raises:
        typer.Exit: The gate did not pass.
    """
    from canaryaudit.report import render_result, render_terminal

    _show_written(summary, render_result if quiet else render_terminal, written, as_json)
    if summary.gate:
        _end_at_the_gate(summary.gate.status, summary.gate.remarks)


def show_rows_report(
    summary: "TablesSummary | ImagesSummary",
    written: list[Path],
    render: Callable[[Any], RenderableType],
    *,
    as_json: bool,
) -> None:
    """Print the report of a run on rows as ``render`` has it; exit with the gate's status if it did not pass.

    Raises:
        typer.Exit: The gate did not pass.
    """
    _show_written(summary, render, written, as_json)
    if summary.gate:
        _end_at_the_gate(summary.gate.status, summary.gate.remarks)


def show_comparison(comparison: "Comparison", written: list[Path], as_json: bool, quiet: bool) -> None:
    """Print a comparison of several runs, or only its result; exit with the gate's status if it did not pass.

    Raises:
        typer.Exit: The gate did not pass.
    """
    from canaryaudit.report import render_comparison_result, render_comparison_terminal

    render = render_comparison_result if quiet else render_comparison_terminal
    _show_written(comparison, render, written, as_json)
    if comparison.status:
        _end_at_the_gate(comparison.status, comparison.reasons)


def show_rows_comparison(
    comparison: Any, written: list[Path], render: Callable[[Any], RenderableType], *, as_json: bool
) -> None:
    """Print a comparison of runs on rows as ``render`` has it; exit with the gate's status if it did not pass.

    Raises:
        typer.Exit: The gate did not pass.
    """
    _show_written(comparison, render, written, as_json)
    if comparison.status:
        _end_at_the_gate(comparison.status, comparison.reasons)


def show_version(wanted: bool) -> None:
    """Print the version and exit, if requested."""
    if wanted:
        print(f"canaryaudit {canaryaudit.__version__}")
        raise typer.Exit


def _show_written(page: M, render: Callable[[M], RenderableType], written: list[Path], as_json: bool) -> None:
    if as_json:
        print_json(page)
    else:
        show(render(page), Text(f"Report: {visible(str(written[0]))}"))


def _end_at_the_gate(status: "GateStatus", remarks: Sequence[str]) -> None:
    for remark in remarks:
        print(visible(remark), file=sys.stderr)
    if status != "passed":
        raise typer.Exit(GATE_FAILED if status == "failed" else INCONCLUSIVE)
