"""Run the command line in one process or several, and exit with the right status."""

import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from canaryaudit import environment
from canaryaudit.cli.app import app
from canaryaudit.cli.exit_status import (
    end_on_signals,
    ignore_signals,
    outcome_of,
    prepare_streams,
    raise_on_signals,
    silence_standard_output,
)
from canaryaudit.errors import Interrupted
from canaryaudit.formatting import visible


def run_command(arguments: Sequence[str], may_report: Callable[[], bool] = lambda: True) -> int:
    """Run one command line and return its exit status; an error prints one line on standard error.

    Args:
        arguments: The command line, without the program name.
        may_report: Called before an error is printed; if it returns False, nothing is printed.
    """

    def command() -> object:
        result = app(list(arguments), standalone_mode=False, prog_name="canaryaudit", obj=arguments)
        sys.stdout.flush()
        return result

    return _status_of(command, may_report)


def main() -> NoReturn:
    """Run the command line, or this process's part of another rank's command, and exit with its status."""
    prepare_streams()
    if environment.rank() > 0:
        sys.exit(_follow())
    raise_on_signals()
    status = run_command(sys.argv[1:]) if environment.num_processes() == 1 else _lead()
    try:
        sys.stdout.flush()
    except OSError:
        silence_standard_output()
    sys.exit(status)


def _status_of(command: Callable[[], object], may_report: Callable[[], bool]) -> int:
    status, message = outcome_of(command)
    if message and may_report():
        print(f"canaryaudit: {visible(message.strip())}", file=sys.stderr)
    return status


def _lead() -> int:
    """Run the command line as rank 0 of several processes."""
    from canaryaudit import distributed

    job = distributed.process_group()

    def may_report() -> bool:
        ignore_signals()
        return job.reports_errors()

    try:
        status = run_command(sys.argv[1:], may_report)
        # After a failure, torchrun ends the other processes.
        return status or _status_of(job.dismiss, may_report)
    except Interrupted as error:  # torchrun ends every process when one ends, also during this one's report
        return 128 + error.number
    finally:
        ignore_signals()


def _follow() -> int:
    """Do this process's part silently."""
    end_on_signals()
    from canaryaudit import distributed
    from canaryaudit.pipeline.worker import run_worker

    job = distributed.process_group()
    return _status_of(lambda: run_worker(job), job.reports_errors)
