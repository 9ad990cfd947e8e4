"""The `verify` command: find damaged, missing or stale files in a run directory."""

from typing import TYPE_CHECKING, Annotated

import typer

from canaryaudit.cli import flags
from canaryaudit.cli.console import print_json, show
from canaryaudit.cli.exit_status import ERROR
from canaryaudit.cli.table_commands import need_tables
from canaryaudit.cli.tables import verification_view
from canaryaudit.errors import UsageError
from canaryaudit.records import RunKind
from canaryaudit.runs.sealed_run import kind_of_run

if TYPE_CHECKING:
    from canaryaudit.runs.rows_verification import RowsChecks

Key = Annotated[
    str | None, typer.Option(metavar="KEY", help="Key of the signature, which must be valid: a file, or env:NAME.")
]
Sign = Annotated[
    str | None, typer.Option(metavar="KEY", help="Sign the run with this key, a file or env:NAME, if it is sound.")
]
Reseal = Annotated[
    bool,
    typer.Option("--reseal", help="Record the checksums of records that have none, as after the manifest was lost."),
]


def verify(
    run: flags.RunArgument,
    key: Key = None,
    sign: Sign = None,
    reseal: Reseal = False,
    as_json: flags.Json = False,
    quiet: flags.Quiet = False,
    verbose: flags.Verbose = False,
) -> None:
    """Find damaged, missing or stale files in a run directory.

    Every file is checked against its recorded checksum or its source, and figures that follow from others are
    recomputed. Each fault is listed with the command that repairs it. Nothing is changed, unless --sign or
    --reseal is given. Exit status: 0 if all files are sound, 1 if a repair is needed.
    """
    from canaryaudit.exposure.consistency import measurement_fault
    from canaryaudit.runs.rows_verification import verify_rows_run
    from canaryaudit.runs.seals import read_key
    from canaryaudit.runs.verification import verify_run

    if key and sign:
        raise UsageError("--key checks a signature and --sign replaces it: give one of them")
    source = key or sign
    secret = read_key(source) if source else None
    kind = kind_of_run(run)
    if kind == "text":
        verification = verify_run(run, check=measurement_fault, key=secret, sign=sign is not None, reseal=reseal)
    else:
        verification = verify_rows_run(run, checks=_checks(kind), key=secret, sign=sign is not None, reseal=reseal)
    if as_json:
        print_json(verification)
    elif not (quiet and verification.sound):
        show(verification_view(verification, every=verbose))
    if not verification.sound:
        raise typer.Exit(ERROR)


def _checks(kind: RunKind) -> "RowsChecks":
    """Return how a run on rows is verified."""
    if kind == "images":
        from canaryaudit.pipeline.images.report import CHECKS as OF_IMAGES

        return OF_IMAGES
    need_tables()
    from canaryaudit.pipeline.tables.report import CHECKS

    return CHECKS
