"""The `report` command: write a run's report, or compare several runs."""

from pathlib import Path
from typing import Annotated

import typer

from canaryaudit.cli import flags
from canaryaudit.cli.console import command_line, open_pipeline, progress_reporter, show_comparison, show_report
from canaryaudit.plan import MeasureOptions, ReportOptions

Formats = Annotated[
    str,
    typer.Option("--format", metavar="NAME,NAME…", help="Formats to write: html, md, json, junit, model-card."),
]
ReportDirectory = Annotated[
    Path | None, typer.Option("-o", "--output", metavar="DIR", help="Output directory. [default: reports/<run name>]")
]
FailAbove = Annotated[
    float | None,
    typer.Option(
        metavar="BITS",
        help="Exit with status 3 if an inserted canary's exposure is above this, or its verdict is exposed.",
    ),
]
FailWorse = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Exit with status 3 if any result is worse than in this earlier report.json."),
]
RevealSecrets = Annotated[
    bool, typer.Option("--reveal-secrets", help="Show given and located secrets; the report says so.")
]

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
    with progress_reporter(quiet, verbose) as progress, open_pipeline(run[0], context, progress) as stages:
        summary, written = stages.report(options, MeasureOptions())
    show_report(summary, written, as_json)
