"""The `report` command: write a run's report, or compare several runs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from canaryaudit.cli import flags
from canaryaudit.cli.console import command_line, open_pipeline, progress_reporter, show_comparison, show_report
from canaryaudit.cli.image_commands import IMAGES
from canaryaudit.cli.rows_commands import RowsCommands, Shown, kind_of_report
from canaryaudit.cli.run_kinds import refuse_others
from canaryaudit.cli.table_commands import TABLES
from canaryaudit.errors import Damaged, Inconclusive, UsageError
from canaryaudit.image_plan import ImageReportOptions
from canaryaudit.plan import MeasureOptions, ReportOptions
from canaryaudit.records import RunKind
from canaryaudit.table_plan import RowsReportOptions, TableReportOptions

Formats = Annotated[str, flags.option(ReportOptions, "format", "NAME,NAME…", "--format")]
ReportDirectory = Annotated[Path | None, flags.option(ReportOptions, "output", "DIR", "-o", "--output")]
FailAbove = Annotated[float | None, flags.option(ReportOptions, "fail_above", "BITS")]
FailWorse = Annotated[Path | None, flags.option(ReportOptions, "fail_worse", "FILE")]
Against = Annotated[list[str] | None, flags.option(TableReportOptions, "against", "NAME")]
Certify = Annotated[str | None, flags.option(TableReportOptions, "certify", "EPSILON,DELTA")]
FailResidual = Annotated[float | None, flags.option(TableReportOptions, "fail_residual", "X")]
FailAuc = Annotated[float | None, flags.option(ImageReportOptions, "fail_auc", "AUC")]
RevealSecrets = Annotated[bool, flags.option(ReportOptions, "reveal_secrets", None, "--reveal-secrets")]

Key = Annotated[str | None, flags.option(ReportOptions, "key", "KEY")]
Trend = Annotated[bool, flags.option(ReportOptions, "trend", None, "--trend")]
StepSummary = Annotated[bool, flags.option(ReportOptions, "step_summary", None, "--step-summary")]

_ROWS: tuple[RunKind, ...] = ("table", "images")
FORMATS = ",".join(ReportOptions().format)


def report(
    context: typer.Context,
    run: flags.RunArguments,
    formats: Formats = FORMATS,
    output: ReportDirectory = None,
    fail_above: FailAbove = None,
    fail_worse: FailWorse = None,
    reveal_secrets: RevealSecrets = False,
    against: Against = None,
    certify: Certify = None,
    fail_residual: FailResidual = None,
    fail_auc: FailAuc = None,
    key: Key = None,
    trend: Trend = False,
    step_summary: StepSummary = False,
    as_json: flags.Json = False,
    quiet: flags.Quiet = False,
    verbose: flags.Verbose = False,
) -> None:
    """Write a run's report, or compare several runs on one page.

    The run is verified, and missing training and measurements run first. Besides HTML, Markdown and JSON, it can write
    JUnit XML and SARIF for CI pipelines (junit, sarif) and a section for a model card (model-card). The report of a run
    on a table compares its last update with retraining and other methods; that of a run on images, all its updates.
    """
    kinds = {kind_of_report(path) for path in run}
    kind: RunKind = next((own for own in _ROWS if own in kinds), "text")
    refuse_others(context, "report", kind)
    shown = Shown(as_json, quiet, verbose)
    if kind == "images":
        image_options = flags.checked(
            ImageReportOptions,
            format=flags.words(formats),
            output=output,
            fail_auc=fail_auc,
            key=key,
            step_summary=step_summary,
        )
        _report_rows(IMAGES, context, run, image_options, shown)
        return
    if kind == "table":
        table_options = flags.checked(
            TableReportOptions,
            format=flags.words(formats),
            output=output,
            **({"against": tuple(against)} if against else {}),
            certify=flags.words(certify) if certify else None,
            fail_residual=fail_residual,
            reveal_secrets=reveal_secrets,
            key=key,
            step_summary=step_summary,
        )
        _report_rows(TABLES, context, run, table_options, shown)
        return
    options = flags.checked(
        ReportOptions,
        format=flags.words(formats),
        output=output,
        fail_above=fail_above,
        fail_worse=fail_worse,
        reveal_secrets=reveal_secrets,
        key=key,
        trend=trend,
        step_summary=step_summary,
    )
    with _inconclusive_if_damaged(run, options):
        _report(context, run, options, as_json, quiet=quiet, verbose=verbose)


def _report_rows(
    commands: RowsCommands, context: typer.Context, run: list[Path], options: RowsReportOptions, shown: Shown
) -> None:
    if len(run) > 1:
        commands.compare(context, run, options, shown)
    else:
        commands.report(context, run[0], options, shown)


@contextmanager
def _inconclusive_if_damaged(run: Sequence[Path], options: ReportOptions) -> Iterator[None]:
    """With a gate, a run that cannot be read ends with the status for an inconclusive gate, and the summary says so."""
    is_gated = options.fail_above is not None or options.fail_worse is not None
    try:
        yield
    except (Damaged, Inconclusive) as error:
        inconclusive = isinstance(error, Inconclusive)
        message = str(error) if inconclusive or not is_gated else f"the gate cannot pass: {error}"
        if options.step_summary:
            from canaryaudit.pipeline.report_place import refuse_summary_inside
            from canaryaudit.report import append_step_error, step_summary_path

            for directory in run:
                refuse_summary_inside(directory, step_summary_path())
            append_step_error(message, gated=is_gated)
        if is_gated and len(run) == 1:
            from canaryaudit.pipeline.report import write_gate_error

            write_gate_error(run[0], options, message)
        if inconclusive or not is_gated:
            raise
        raise Inconclusive(message) from error


def _report(
    context: typer.Context, run: list[Path], options: ReportOptions, as_json: bool, *, quiet: bool, verbose: bool
) -> None:
    if options.trend and len(run) == 1:
        raise UsageError("--trend: expected several runs, or report.json files of earlier reports")
    if len(run) > 1:
        from canaryaudit.pipeline.compare import compare_runs

        with progress_reporter(quiet, verbose) as progress:
            comparison, written = compare_runs(run, options, command_line(context), progress)
        show_comparison(comparison, written, as_json, quiet)
        return
    with (
        progress_reporter(quiet, verbose) as progress,
        open_pipeline(run[0], context, progress, reading=True) as stages,
    ):
        summary, written = stages.report(options, MeasureOptions())
    show_report(summary, written, as_json, quiet)
