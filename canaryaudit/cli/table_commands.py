"""What the commands do on a run on a table."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from canaryaudit.cli.console import command_line, print_json, progress_reporter, show, show_table_comparison
from canaryaudit.cli.rows_commands import RowsCommands, Shown
from canaryaudit.cli.table_views import insertion_document, table_measurement_view
from canaryaudit.errors import Damaged, Inconclusive
from canaryaudit.formatting import significant, visible
from canaryaudit.runs.sealed_run import kind_of_run
from canaryaudit.runs.table_directory import TableDirectory
from canaryaudit.table_plan import TablePublishOptions, TableReportOptions

if TYPE_CHECKING:
    from canaryaudit.pipeline.rows.insertion import RowsInsertion
    from canaryaudit.pipeline.tables.pipeline import TablePipeline


def need_tables() -> None:
    """Import what tables need.

    Raises:
        UnlearningError: scikit-learn is not installed; the message says how to install it.
    """
    from canaryaudit import tabular

    _ = tabular.prepare


def _pipeline() -> type["TablePipeline"]:
    need_tables()
    from canaryaudit.pipeline.tables.pipeline import TablePipeline

    return TablePipeline


def _insertion() -> "RowsInsertion":
    need_tables()
    from canaryaudit.pipeline.tables.insertion import TABLE_INSERTION

    return TABLE_INSERTION


def _views() -> tuple[Callable[[Any], RenderableType], Callable[[Any], RenderableType]]:
    from canaryaudit.report.tables.terminal import render_tables_result, render_tables_terminal

    return render_tables_terminal, render_tables_result


TABLES = RowsCommands(
    TableDirectory,
    _pipeline,
    _insertion,
    insertion_document,
    table_measurement_view,
    _views,
    after_insert="unlearn",
)


def is_of_a_table(path: Path) -> bool:
    """Return whether a run directory, or an earlier report, is of a table."""
    if not path.is_file():
        return kind_of_run(path) == "table"
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(document, dict) and "estimator" in document


def compare_tables(context: typer.Context, runs: list[Path], options: TableReportOptions, output: Shown) -> None:
    """Compare runs on tables on one page."""
    need_tables()
    from canaryaudit.pipeline.tables.compare import compare_table_runs

    try:
        with progress_reporter(output.quiet, output.verbose) as progress:
            comparison, written = compare_table_runs(runs, options, command_line(context), progress)
    except Damaged as error:
        if options.fail_residual is None:
            raise
        raise Inconclusive(f"the gate cannot pass: {error}") from error
    show_table_comparison(comparison, written, as_json=output.as_json, quiet=output.quiet)


def publish_table(
    context: typer.Context, run: Path, options: TablePublishOptions, output: Shown, *, force: bool
) -> None:
    """Publish a linear model of a run."""
    need_tables()
    from canaryaudit.pipeline.tables.publication import publish_table as publish_model

    with TABLES.opened(run, context, output) as stages:
        published = publish_model(stages.session, options, anew=force)
    own = published.certificate
    if output.as_json:
        document = {
            "file": str(published.file),
            "model": str(published.model),
            "release": published.number,
            "certificate": own.model_dump(mode="json"),
        }
        print_json(document)
        return
    show(
        Text(f"Published {published.model}: {visible(str(published.file))}"),
        Text(
            f"Release {published.number:,} of {own.releases:,} at epsilon {own.epsilon:g} and delta {own.delta:g}: "
            f"noise of {significant(own.sigma)} on every coefficient, residual {significant(own.residual)}, tolerance "
            f"{significant(own.tolerance)}."
        ),
        *(Text(f"- {limit}") for limit in (() if output.quiet else own.limits)),
    )
