"""What the commands do on a run on a table."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from canaryaudit.cli.console import print_json, show
from canaryaudit.cli.rows_commands import RowsCommands, Shown
from canaryaudit.cli.table_views import insertion_document, table_measurement_view
from canaryaudit.formatting import significant, visible
from canaryaudit.runs.table_directory import TableDirectory
from canaryaudit.table_plan import TablePublishOptions

if TYPE_CHECKING:
    from canaryaudit.pipeline.rows.compare import RowsComparing
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


def _comparing() -> "RowsComparing":
    need_tables()
    from canaryaudit.pipeline.tables.compare import TABLE_COMPARING

    return TABLE_COMPARING


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
    _comparing,
    after_insert="unlearn",
)


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
