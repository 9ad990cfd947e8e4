"""The `verify` command: find damaged, missing or stale files in a run directory."""

import typer

from canaryaudit.cli import flags
from canaryaudit.cli.console import print_json, show
from canaryaudit.cli.exit_status import ERROR
from canaryaudit.cli.tables import verification_view


def verify(
    run: flags.RunArgument,
    as_json: flags.Json = False,
    quiet: flags.Quiet = False,
    verbose: flags.Verbose = False,
) -> None:
    """Find damaged, missing or stale files in a run directory.

    Every file is checked against its recorded checksum or its source. Each fault is listed with the command that
    repairs it. Nothing is changed. Exit status: 0 if all files are sound, 1 if a repair is needed.
    """
    from canaryaudit.runs.verification import verify_run

    verification = verify_run(run)
    if as_json:
        print_json(verification)
    elif not (quiet and verification.sound):
        show(verification_view(verification, every=verbose))
    if not verification.sound:
        raise typer.Exit(ERROR)
