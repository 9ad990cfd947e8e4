"""Map every way a command can end to an exit status and one line, which ``cli`` prints.

Signals and streams are also prepared here, so no exit prints a traceback.
"""

import errno
import io
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import typer

from canaryaudit.errors import CanaryAuditError, Inconclusive, Interrupted, UsageError, one_line
from canaryaudit.formatting import plain_fault
from canaryaudit.progress import forget_signals, note_signal

OK, ERROR, USAGE, GATE_FAILED, INCONCLUSIVE, INTERRUPTED = 0, 1, 2, 3, 4, 130

DEBUG = "CANARYAUDIT_DEBUG"
"""Environment variable; with it, an internal error shows its traceback."""

_OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory", re.IGNORECASE)
"""Torch's wording, for host and device memory."""

# The base class of typer's errors about the command line, which has no public name in some versions.
_WrongCommandLine: type[Exception] = typer.BadParameter.__bases__[0]


def outcome_of(command: Callable[[], object]) -> tuple[int, str]:
    """Call ``command`` and return its exit status and a line for standard error, which may be empty."""
    try:
        result = command()
        return _of_status(result if isinstance(result, int) else OK)
    except typer.Exit as error:
        return _of_status(error.exit_code)
    except SystemExit as error:  # rich, when the reader of the output is gone
        return (error.code if isinstance(error.code, int) else ERROR), ""
    except (KeyboardInterrupt, typer.Abort):
        return _of_status(INTERRUPTED)
    except Interrupted as error:
        return _interrupted(error)
    except Exception as error:  # noqa: BLE001 - a traceback is a defect
        return _of_failure(error)
    finally:
        forget_signals()


def _of_status(status: int) -> tuple[int, str]:
    # Typer turns a KeyboardInterrupt into this status.
    return _interrupted(Interrupted()) if status == INTERRUPTED else (status, "")


def _interrupted(error: Interrupted) -> tuple[int, str]:
    name = "" if error.number == signal.SIGINT else f" ({signal.Signals(error.number).name})"
    return 128 + error.number, f"interrupted{name}; {error.kept}, rerun the command to resume"


def _of_failure(error: Exception) -> tuple[int, str]:
    match error:
        case _ if isinstance(error, _WrongCommandLine):
            return USAGE, _wrong_command_line(error)
        case UsageError():
            return USAGE, str(error)
        case Inconclusive():
            return INCONCLUSIVE, str(error)
        case CanaryAuditError():
            return ERROR, str(error)
        case BrokenPipeError():
            return ERROR, ""  # The reader of the output is gone.
        case MemoryError() | RuntimeError() if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)):
            return ERROR, "out of memory: use fewer --samples or a smaller --budget"
        case OSError(errno=errno.ENOSPC):
            return ERROR, f"no space left on the disk{_named(error)}: free some space and rerun the command"
        case OSError():
            return (
                ERROR,
                f"{error.strerror or one_line(error)}{_named(error)}: check the path and rerun the command",
            )
    if os.environ.get(DEBUG):
        raise error
    return ERROR, f"internal error, {type(error).__name__}: {one_line(error)}; set {DEBUG}=1 for the details"


def _wrong_command_line(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "canaryaudit"
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    if path.endswith(" insert") and "unexpected extra argument" in message:
        return f"{message.rstrip('.')}: to read several files, give their folder, or a pattern in quotation marks"
    return f"{plain_fault(message.rstrip('.'))}: see {path} --help"


def _named(error: OSError) -> str:
    return f" ({error.filename})" if error.filename else ""


def raise_on_signals() -> None:
    """Let SIGTERM and SIGHUP unwind the command as Ctrl-C does, so no half-written file remains.

    An exception is lost where Python ignores it, as in a destructor. Long loops therefore look for the signal too.
    """

    def interrupt(number: int, _: object) -> None:
        note_signal(number)
        raise Interrupted(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup sets it
            signal.signal(number, interrupt)


def end_on_signals() -> None:
    """Let a process without state end immediately and silently, even while it waits inside a library."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def ignore_signals() -> None:
    """Ignore signals while the process exits."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def prepare_streams() -> None:
    """Redirect closed streams to /dev/null before a file takes their number; escape what cannot be encoded."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - for the process's life
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def silence_standard_output() -> None:
    """Redirect standard output to /dev/null, so the interpreter's final flush does not fail again."""
    null_device = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null_device, sys.stdout.fileno())
    os.close(null_device)
