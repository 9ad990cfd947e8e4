"""The `publish` command: write an unlearned linear model with the noise of its certificate."""

from pathlib import Path
from typing import Annotated

import typer

from canaryaudit.cli import flags
from canaryaudit.cli.rows_commands import Shown
from canaryaudit.cli.table_commands import publish_table
from canaryaudit.errors import UsageError
from canaryaudit.runs.sealed_run import kind_of_run
from canaryaudit.table_plan import TablePublishOptions

Output = Annotated[Path, flags.option(TablePublishOptions, "output", "FILE", "-o", "--output")]
Certify = Annotated[str, flags.option(TablePublishOptions, "certify", "EPSILON,DELTA", "--certify")]
Releases = Annotated[int, flags.option(TablePublishOptions, "releases", "K")]
Which = Annotated[str | None, flags.option(TablePublishOptions, "model", "MODEL", "--model")]
Replace = Annotated[bool, typer.Option("--force", help="Replace the file; it counts as a release of its own.")]


def publish(
    context: typer.Context,
    run: flags.RunArgument,
    output: Output,
    certify: Certify,
    releases: Releases = 1,
    model: Which = None,
    force: Replace = False,
    as_json: flags.Json = False,
    quiet: flags.Quiet = False,
    verbose: flags.Verbose = False,
) -> None:
    """Publish an unlearned linear model of a table, with noise.

    The file is indistinguishable, within epsilon and delta, from a retrained model published the same way. The noise is
    fresh every time, and releases are counted: the first one fixes their number, epsilon and delta. A model is refused
    if its certificate would not hold.
    """
    if kind_of_run(run) != "table":
        raise UsageError("publish is for runs on tables, not on text")
    options = flags.checked(
        TablePublishOptions, output=output, certify=flags.words(certify), releases=releases, model=model
    )
    publish_table(context, run, options, Shown(as_json, quiet, verbose), force=force)
