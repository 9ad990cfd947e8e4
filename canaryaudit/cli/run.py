"""The `run` command: a whole audit, from a plan file or on the embedded corpus."""

from pathlib import Path
from typing import Annotated

import typer

from canaryaudit.cli import flags
from canaryaudit.cli.console import command_line, progress_reporter, show_report
from canaryaudit.cli.image_commands import IMAGES
from canaryaudit.cli.rows_commands import Shown
from canaryaudit.cli.table_commands import TABLES
from canaryaudit.errors import Inconclusive
from canaryaudit.image_plan import read_plan
from canaryaudit.plan import Plan
from canaryaudit.table_plan import TablePlan

PlanArgument = Annotated[
    Path | None, typer.Argument(metavar="PLAN.toml", help="Plan file. [default: audit the embedded corpus]")
]
PLAN_EXAMPLE = (
    "A plan is a TOML file with the commands' flags as keys:\n\n"
    '\b\nrun = "runs/notes"\n[insert]\ncorpus = "notes.txt"\nrepetitions = [1, 4, 16]\n[train]\nepochs = 30\n'
    '[[unlearn]]\nmethod = "first-order"\n[report]\nfail_above = 10\n\n'
)


def run(
    context: typer.Context,
    plan: PlanArgument = None,
    as_json: flags.Json = False,
    quiet: flags.Quiet = False,
    verbose: flags.Verbose = False,
) -> None:
    """Run a whole audit, from insert to report.

    A plan whose [insert] has a target is that of a table, and with an image too, of images; the flags are its keys.

    Rerun the command to resume an interrupted audit. Existing results must match the plan.
    """
    audit = read_plan(plan) if plan else Plan()
    if not isinstance(audit, Plan):
        commands = TABLES if isinstance(audit, TablePlan) else IMAGES
        commands.audit(context, audit, Shown(as_json, quiet, verbose))
        return
    from canaryaudit.pipeline.audit import run_audit

    with progress_reporter(quiet, verbose) as progress:
        summary, written, failures = run_audit(audit, command_line(context), progress)
    show_report(summary, written, as_json, quiet)
    if failures:
        raise Inconclusive(f"the report lacks {', '.join(failures)}, which gave no result: see the warning above")
