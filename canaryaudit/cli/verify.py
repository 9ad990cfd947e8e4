"""The `verify` command: find what in a run directory is damaged, missing or stale."""

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
    """Tell what in a run directory is damaged, missing or stale.

    Every file is checked against what vouches for it, and each fault is told with the command that repairs it. Nothing
    is changed. Exit status: 0 all is sound, 1 something is to be repaired.
    """
    from canaryaudit.runs.verification import verify_run

    found = verify_run(run)
    if as_json:
        print_json(found)
    elif not (quiet and found.sound):
        show(verification_view(found, every=verbose))
    if not found.sound:
        raise typer.Exit(ERROR)
