"""Write the page of all commands and flags: ``python -m tests.docs.cli_reference``, or ``make golden``."""

import os
import subprocess
import sys
from pathlib import Path

import typer

ROOT = Path(__file__).resolve().parents[2]
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
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "canaryaudit", *arguments, "--help"]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, encoding="utf-8", check=True)
    return "\n".join(line.rstrip() for line in done.stdout.strip("\n").splitlines())


def page() -> str:
    """Return the page."""
    parts = [f"```text\n{help_text()}\n```\n"]
    parts += [f"## canaryaudit {name}\n\n```text\n{help_text(name)}\n```\n" for name in command_names()]
    return HEAD + "\n".join(parts)


def main() -> None:
    """Write the page, and say so."""
    PAGE.write_text(page(), "utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
