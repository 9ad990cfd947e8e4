"""What the commands do on a run on a table."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.text import Text

from canaryaudit.cli.console import (
    command_line,
    print_json,
    progress_reporter,
    shell_quote,
    show,
    show_table_report,
)
from canaryaudit.cli.table_views import insertion_document, table_measurement_view
from canaryaudit.errors import Damaged, Inconclusive
from canaryaudit.records import TRAINED_MODEL, ModelId
from canaryaudit.runs.table_directory import TableDirectory
from canaryaudit.table_plan import TableInsertOptions, TableReportOptions, TableTrainOptions, TableUnlearnOptions

if TYPE_CHECKING:
    from canaryaudit.pipeline.tables.pipeline import TablePipeline
    from canaryaudit.records.tables import TableMeasurement


@contextmanager
def _opened(
    path: Path, context: typer.Context, output: dict[str, bool], *, reading: bool = False
) -> Iterator["TablePipeline"]:
    """Open and lock the run directory of a table and yield its pipeline, which tells of its progress.

    Args:
        path: The run directory.
        context: The command line's.
        output: The switches as_json, quiet and verbose.
        reading: The command can do with a read-only run.
    """
    with progress_reporter(**_shown(output)) as progress:
        run = TableDirectory.open(path)
        with run.lock(reading=reading):
            need_tables()
            from canaryaudit.pipeline.tables.pipeline import TablePipeline

            yield TablePipeline(run, command_line(context), progress)


def need_tables() -> None:
    """Import what tables need.

    Raises:
        UnlearningError: scikit-learn is not installed; the message says how to install it.
    """
    from canaryaudit import tabular

    _ = tabular.prepare


def _shown(output: dict[str, bool]) -> dict[str, bool]:
    return {name: output[name] for name in ("quiet", "verbose")}


def insert_table(
    context: typer.Context,
    options: TableInsertOptions,
    path: Path,
    output: dict[str, bool],
    *,
    dry_run: bool,
    force: bool,
) -> None:
    """Insert canaries into a table, or find sensitive columns in it.

    Args:
        context: The command line's.
        options: What to insert.
        path: The run directory.
        output: The switches as_json, quiet and verbose.
        dry_run: Write nothing.
        force: Replace an existing run.
    """
    need_tables()
    from canaryaudit.pipeline.tables.insertion import (
        find_table_run,
        insertion_sentences,
        make_table_run,
        plan_table,
    )

    with progress_reporter(**_shown(output)) as progress:
        if dry_run:
            made = plan_table(options, progress)
        elif plan := None if force else find_table_run(path, options, progress):
            made = plan
            progress.info(f"{path} already exists, made from this table with these options: nothing was written.")
        else:
            made = make_table_run(path, options, command_line(context), progress, replace=force)
    if output["as_json"]:
        print_json(insertion_document(made.record, made.facts, None if dry_run else path))
        return
    show(*(Text(sentence) for sentence in insertion_sentences(made)))
    if not dry_run and not output["quiet"]:
        show(Text(f"Next: canaryaudit unlearn {shell_quote(path)}"))


def train_table(
    context: typer.Context, run: Path, options: TableTrainOptions, output: dict[str, bool], *, force: bool
) -> None:
    """Fit a linear model on a run's table."""
    with _opened(run, context, output) as stages:
        record = stages.train(options, anew=force)
    if output["as_json"]:
        print_json(record)
    elif not output["quiet"]:
        show(Text(f"Next: canaryaudit unlearn {shell_quote(run)}"))


def measure_table(context: typer.Context, run: Path, model: str, output: dict[str, bool]) -> None:
    """Measure linear models of a run."""
    with _opened(run, context, output) as stages:
        models = stages.session.models() if model == "all" else [ModelId.parse(model)]
        measured = [stages.measure(own) for own in models]
    _show_measured(measured, output, several=model == "all")


def unlearn_table(
    context: typer.Context, run: Path, options: TableUnlearnOptions, output: dict[str, bool], *, force: bool
) -> None:
    """Carry out a request on a linear model of a run."""
    with _opened(run, context, output) as stages:
        record = stages.unlearn(options, anew=force)
        measured = [stages.run.measurement(own) for own in (TRAINED_MODEL, ModelId(record.name))]
    if output["as_json"]:
        print_json(record)
        return
    show(table_measurement_view(measured))
    if not output["quiet"]:
        show(Text(f"Next: canaryaudit report {shell_quote(run)}"))


def report_table(context: typer.Context, run: Path, options: TableReportOptions, output: dict[str, bool]) -> None:
    """Write the report of a run on a table."""
    gated = options.fail_residual is not None
    try:
        with _opened(run, context, output, reading=True) as stages:
            summary, written = stages.report(options)
    except (Damaged, Inconclusive) as error:
        if not gated:
            raise
        from canaryaudit.pipeline.report_place import remove_earlier_report

        remove_earlier_report(run, options.output, options.format)  # It may say that the gate passed.
        if isinstance(error, Inconclusive):
            raise
        raise Inconclusive(f"the gate cannot pass: {error}") from error
    show_table_report(summary, written, as_json=output["as_json"], quiet=output["quiet"])


def _show_measured(measured: list["TableMeasurement"], output: dict[str, Any], *, several: bool) -> None:
    if output["as_json"]:
        print_json([own.model_dump(mode="json") for own in measured] if several else measured[0])
    else:
        show(table_measurement_view(measured))
