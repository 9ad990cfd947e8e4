"""Run the command line in one process or in several, and end with the right exit status."""

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


def run_command(arguments: Sequence[str], may_speak: Callable[[], bool] = lambda: True) -> int:
    """Run one command line and return its exit status; an error is said in one line on standard error.

    Args:
        arguments: The command line, without the program.
        may_speak: Asked before an error is said.
    """

    def command() -> object:
        result = app(list(arguments), standalone_mode=False, prog_name="canaryaudit", obj=arguments)
        sys.stdout.flush()
        return result

    return _said(command, may_speak)


def main() -> NoReturn:
    """Run the command line, or a process's part in what another one was told, and exit with its status."""
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


def _said(command: Callable[[], object], may_speak: Callable[[], bool]) -> int:
    status, message = outcome_of(command)
    if message and may_speak():
        print(f"canaryaudit: {visible(message.strip())}", file=sys.stderr)
    return status


def _lead() -> int:
    """Run the command line as the first of several processes."""
    from canaryaudit import distributed

    job = distributed.process_group()

    def may_speak() -> bool:
        ignore_signals()
        return job.speaks()

    try:
        status = run_command(sys.argv[1:], may_speak)
        # After a failure nobody is waited for: torchrun ends the others.
        return status or _said(job.dismiss, may_speak)
    except Interrupted as error:  # torchrun ends all when one has ended, while this one is about to say so
        return 128 + error.number
    finally:
        ignore_signals()


def _follow() -> int:
    """Do this process's part, in silence."""
    end_on_signals()
    from canaryaudit import distributed
    from canaryaudit.pipeline.worker import run_worker

    job = distributed.process_group()
    return _said(lambda: run_worker(job), job.speaks)
