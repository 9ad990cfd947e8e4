"""Make the sample report and the README's transcript again: ``python -m tests.docs.sample``, or ``make sample``."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TRANSCRIPT = re.compile(r"(?<=```text\n).*?(?=```\n)", re.DOTALL)
"""The README's transcript: its only block of plain text."""
SHOWN_CANARIES = 3
FACTS = ("Training accuracy", "Held-out loss", "Cost", "Controls after")
"""Beginnings of the lines below the table that the transcript shows."""
ONCE = "– preparation"
"""Beginning of a line among them that is shown if there is one."""
COLUMNS = "100"


def audit(plan: Sequence[str], directory: Path) -> tuple[str, Path]:
    """Run an audit in an empty directory; return its standard output, and where its report is.

    Args:
        plan: The path of a plan file; nothing for the embedded audit.
        directory: Where the run and the report go.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": COLUMNS}
    command = [sys.executable, "-m", "canaryaudit", "run", *plan]
    done = subprocess.run(command, cwd=directory, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    (report,) = (directory / "reports").iterdir()
    return done.stdout, report


def transcript(output: str) -> str:
    """Return the lines that the README shows of an audit's output.

    They are the verdict, the table with its first canaries, and the facts below it.

    Raises:
        ValueError: The output has another form than this tool knows.
    """
    lines = [line.rstrip() for line in output.splitlines()]
    rules = [index for index, line in enumerate(lines) if line.strip() and set(line.strip()) == {"─"}]
    if not rules:
        raise ValueError("expected a table in the audit's output: adapt tests/docs/sample.py to its new form")
    first = rules[0] + 1
    rows = lines[first : first + lines[first:].index("")]
    shown = [*(line for line in lines[: first - 2] if line), lines[first - 2], lines[first - 1], *rows[:SHOWN_CANARIES]]
    left = len(rows) - SHOWN_CANARIES
    shown += [f" … and {left} more"] if left > 0 else []
    facts = [line for line in lines if line.startswith((*FACTS, ONCE))]
    if sum(not line.startswith(ONCE) for line in facts) != len(FACTS):
        raise ValueError(f"expected lines that begin with {', '.join(FACTS)}: adapt tests/docs/sample.py")
    return "\n".join([*shown, *facts]) + "\n"


def replace_transcript(readme: str, lines: str) -> str:
    """Return the README with another transcript."""
    if len(TRANSCRIPT.findall(readme)) != 1:
        raise ValueError("expected one ```text block in the README: the transcript")
    return TRANSCRIPT.sub(lambda _: lines, readme)


def replace_files(source: Path, target: Path) -> Iterator[Path]:
    """Put the files of one directory in the place of another's; yield their new paths."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for path in sorted(source.iterdir()):
        yield Path(shutil.copyfile(path, target / path.name))


def main() -> None:
    """Run the embedded audit, and write what comes of it."""
    with tempfile.TemporaryDirectory() as directory:
        output, report = audit([], Path(directory))
        lines = transcript(output)
        for path in replace_files(report, ROOT / "reports" / "sample"):
            print(f"wrote {path.relative_to(ROOT)}")
    readme = ROOT / "README.md"
    readme.write_text(replace_transcript(readme.read_text("utf-8"), lines), "utf-8")
    print(f"wrote README.md, with this transcript:\n\n{lines}")


if __name__ == "__main__":
    main()
