"""What the commands do on a run on a table."""

import json
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
    show_table_comparison,
    show_table_report,
)
from canaryaudit.cli.table_views import insertion_document, table_measurement_view
from canaryaudit.errors import Damaged, Inconclusive
from canaryaudit.formatting import significant, visible
from canaryaudit.records import TRAINED_MODEL, ModelId
from canaryaudit.runs.sealed_run import kind_of_run
from canaryaudit.runs.table_directory import TableDirectory
from canaryaudit.table_plan import (
    TableInsertOptions,
    TablePlan,
    TablePublishOptions,
    TableReportOptions,
    TableTrainOptions,
    TableUnlearnOptions,
)

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
    with _said_where_there_is_no_report(run, options), _opened(run, context, output, reading=True) as stages:
        summary, written = stages.report(options)
    show_table_report(summary, written, as_json=output["as_json"], quiet=output["quiet"])


def is_of_a_table(path: Path) -> bool:
    """Return whether a run directory, or an earlier report, is of a table."""
    if not path.is_file():
        return kind_of_run(path) == "table"
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(document, dict) and "estimator" in document


def compare_tables(
    context: typer.Context, runs: list[Path], options: TableReportOptions, output: dict[str, bool]
) -> None:
    """Compare runs on tables on one page."""
    need_tables()
    from canaryaudit.pipeline.tables.compare import compare_table_runs

    try:
        with progress_reporter(**_shown(output)) as progress:
            comparison, written = compare_table_runs(runs, options, command_line(context), progress)
    except Damaged as error:
        if options.fail_residual is None:
            raise
        raise Inconclusive(f"the gate cannot pass: {error}") from error
    show_table_comparison(comparison, written, as_json=output["as_json"], quiet=output["quiet"])


def run_table(context: typer.Context, audit: TablePlan, output: dict[str, bool]) -> None:
    """Run a whole audit of a table."""
    need_tables()
    from canaryaudit.pipeline.tables.audit import run_table_audit

    with progress_reporter(**_shown(output)) as progress, _said_where_there_is_no_report(audit.run, audit.report):
        summary, written = run_table_audit(audit, command_line(context), progress)
    show_table_report(summary, written, as_json=output["as_json"], quiet=output["quiet"])


@contextmanager
def _said_where_there_is_no_report(run: Path, options: TableReportOptions) -> Iterator[None]:
    """With a gate, a run without a report ends with the status for an inconclusive gate, and files say so."""
    gated = options.fail_residual is not None
    try:
        yield
    except (Damaged, Inconclusive) as error:
        inconclusive = isinstance(error, Inconclusive)
        message = str(error) if inconclusive or not gated else f"the gate cannot pass: {error}"
        if options.step_summary:
            from canaryaudit.pipeline.report_place import refuse_summary_inside
            from canaryaudit.report import append_step_error, step_summary_path

            refuse_summary_inside(run, step_summary_path())
            append_step_error(message, gated=gated)
        if not gated:
            raise
        from canaryaudit.pipeline.report_place import replace_earlier_report

        replace_earlier_report(run, options.output, options.format, message)  # It may say that the gate passed.
        if inconclusive:
            raise
        raise Inconclusive(message) from error


def publish_table(
    context: typer.Context, run: Path, options: TablePublishOptions, output: dict[str, bool], *, force: bool
) -> None:
    """Publish a linear model of a run."""
    with _opened(run, context, output) as stages:
        published = stages.publish(options, anew=force)
    own = published.certificate
    if output["as_json"]:
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
        *(Text(f"- {limit}") for limit in (() if output["quiet"] else own.limits)),
    )


def _show_measured(measured: list["TableMeasurement"], output: dict[str, Any], *, several: bool) -> None:
    if output["as_json"]:
        print_json([own.model_dump(mode="json") for own in measured] if several else measured[0])
    else:
        show(table_measurement_view(measured))
