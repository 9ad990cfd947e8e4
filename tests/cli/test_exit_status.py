"""Tests of canaryaudit.cli.exit_status."""

import errno
import os
import signal

import pytest
import typer

from canaryaudit.cli import exit_status as outcome
from canaryaudit.cli.exit_status import outcome_of
from canaryaudit.errors import CorpusError, Inconclusive, Interrupted, UsageError
from canaryaudit.progress import check_signals, forget_signals


def failing(error: BaseException) -> tuple[int, str]:
    def command() -> None:
        raise error

    return outcome_of(command)


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (CorpusError("no text: give some"), 1, "no text: give some"),
        (UsageError("no such thing"), 2, "no such thing"),
        (Inconclusive("in doubt"), 4, "in doubt"),
        (typer.Exit(3), 3, ""),
        (typer.Exit(0), 0, ""),
        (typer.BadParameter("not a number"), 2, "see canaryaudit --help"),
        (KeyboardInterrupt(), 130, "interrupted; finished work is kept, rerun the command to resume"),
        (typer.Abort(), 130, "interrupted; finished work is kept"),
        (Interrupted(signal.SIGTERM), 143, "interrupted (SIGTERM); finished work is kept"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 1, ""),
        (SystemExit(1), 1, ""),
        (SystemExit("text"), 1, ""),
        (
            OSError(errno.ENOSPC, "No space left on device", "x/y"),
            1,
            "no space left on the disk (x/y): free some space",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "x/y"), 1, "Permission denied (x/y): check the path"),
        (MemoryError(), 1, "out of memory: use fewer --samples"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), 1, "out of memory"),
        (RuntimeError("shapes\ndiffer"), 1, "internal error, RuntimeError: shapes; set CANARYAUDIT_DEBUG=1"),
        (AssertionError(), 1, "internal error, AssertionError"),
    ],
)
def test_every_end_has_its_status_and_its_line(error: BaseException, status: int, message: str) -> None:
    found, line = failing(error)
    assert found == status
    assert message in line
    assert bool(line) is bool(message)
    assert "\n" not in line


def test_a_command_that_returns_has_succeeded_unless_it_returns_a_status() -> None:
    assert outcome_of(lambda: None) == (0, "")
    assert outcome_of(lambda: "anything") == (0, "")
    assert outcome_of(lambda: 3) == (3, "")
    status, line = outcome_of(lambda: 130)
    assert status == 130
    assert line.startswith("interrupted")


def test_an_internal_error_shows_its_traceback_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(outcome.DEBUG, "1")
    with pytest.raises(ZeroDivisionError):
        failing(ZeroDivisionError())
    assert failing(CorpusError("plain"))[0] == 1


def test_signals_unwind_the_command_but_for_those_that_are_ignored() -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = [signal.getsignal(number) for number in numbers]
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        outcome.raise_on_signals()
        os.kill(os.getpid(), signal.SIGHUP)
        with pytest.raises(Interrupted) as raised:
            os.kill(os.getpid(), signal.SIGTERM)
        assert raised.value.number == signal.SIGTERM
        with pytest.raises(Interrupted):
            check_signals()
        assert outcome_of(lambda: None) == (0, "")
        check_signals()  # Only the command that it came to is ended.
    finally:
        forget_signals()
        for number, handler in zip(numbers, handlers, strict=True):
            signal.signal(number, handler)
