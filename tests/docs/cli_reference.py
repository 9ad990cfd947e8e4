"""The page of all commands and flags; ``make golden`` writes it."""

import os

import typer

from tests.commands import ROOT, succeed

PAGE = ROOT / "docs" / "cli.md"
HEAD = """\
# Commands and flags

This page holds what `--help` prints. `make golden` writes it.

Exit status: 0 done, 1 an error, 2 wrong usage, 3 a gate failed, 4 inconclusive, 130 interrupted.

"""


def command_names() -> tuple[str, ...]:
    """Return all commands, in the order of the first help."""
    from canaryaudit.cli.app import app

    return tuple(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def help_text(*arguments: str) -> str:
    """Return what ``--help`` prints in a terminal of 80 columns."""
    columns = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "80"
    try:
        output = succeed(*arguments, "--help").out
    finally:
        os.environ.pop("COLUMNS") if columns is None else os.environ.update(COLUMNS=columns)
    return "\n".join(line.rstrip() for line in output.strip("\n").splitlines())


def page() -> str:
    """Return the page."""
    parts = [f"```text\n{help_text()}\n```\n"]
    parts += [f"## canaryaudit {name}\n\n```text\n{help_text(name)}\n```\n" for name in command_names()]
    return HEAD + "\n".join(parts)
