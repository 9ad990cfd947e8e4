"""The `report` command: write a run's report, or compare several runs."""

from pathlib import Path
from typing import Annotated

import typer

from canaryaudit.cli import flags
from canaryaudit.cli.console import command_line, open_pipeline, progress_reporter, show_comparison, show_report
from canaryaudit.plan import MeasureOptions, ReportOptions

Formats = Annotated[str, flags.option(ReportOptions, "format", "NAME,NAME…", "--format")]
ReportDirectory = Annotated[Path | None, flags.option(ReportOptions, "output", "DIR", "-o", "--output")]
FailAbove = Annotated[float | None, flags.option(ReportOptions, "fail_above", "BITS")]
FailWorse = Annotated[Path | None, flags.option(ReportOptions, "fail_worse", "FILE")]
RevealSecrets = Annotated[bool, flags.option(ReportOptions, "reveal_secrets", None, "--reveal-secrets")]

FORMATS = ",".join(ReportOptions().format)


def report(
    context: typer.Context,
    run: flags.RunArguments,
    formats: Formats = FORMATS,
    output: ReportDirectory = None,
    fail_above: FailAbove = None,
    fail_worse: FailWorse = None,
    reveal_secrets: RevealSecrets = False,
    as_json: flags.Json = False,
    quiet: flags.Quiet = False,
    verbose: flags.Verbose = False,
) -> None:
    """Write a run's report, or compare several runs on one page.

    Missing training and measurements run first. Besides HTML, Markdown and JSON, it can write JUnit XML for CI
    pipelines (junit) and a section for a model card (model-card).
    """
    options = flags.checked(
        ReportOptions,
        format=flags.words(formats),
        output=output,
        fail_above=fail_above,
        fail_worse=fail_worse,
        reveal_secrets=reveal_secrets,
    )
    if len(run) > 1:
        from canaryaudit.pipeline.compare import compare_runs

        with progress_reporter(quiet, verbose) as progress:
            comparison, written = compare_runs(run, options, command_line(context), progress)
        show_comparison(comparison, written, as_json)
        return
    with (
        progress_reporter(quiet, verbose) as progress,
        open_pipeline(run[0], context, progress, reading=True) as stages,
    ):
        summary, written = stages.report(options, MeasureOptions())
    show_report(summary, written, as_json)
