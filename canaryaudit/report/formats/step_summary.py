"""A summary of the report on a code host's page of the pipeline run."""

import os
from pathlib import Path

from canaryaudit.errors import UsageError
from canaryaudit.report.formats.markdown import code, plain
from canaryaudit.report.formats.model_card import worst_canaries
from canaryaudit.report.schema import Summary
from canaryaudit.storage.files import write_errors

VARIABLE = "GITHUB_STEP_SUMMARY"
"""The environment variable with the file's path, on GitHub and on hosts that follow it."""
_MOST_REMARKS, _MOST_WARNINGS = 20, 10


def step_summary_path() -> Path:
    """Return the file that the pipeline shows.

    Raises:
        UsageError: This is no pipeline that shows one.
    """
    name = os.environ.get(VARIABLE, "")
    if not name:
        raise UsageError(f"--step-summary: {VARIABLE} is not set; run it in a pipeline, or set it to a file")
    return Path(name)


def render_step_summary(summary: Summary) -> str:
    """Return the verdict, the gate with its reasons, and the worst canaries, as Markdown without pictures."""
    gate, overall = summary.gate, summary.overall
    remarks = gate.remarks if gate else ()
    blocks = [
        f"## Memorization audit of {code(summary.run, 120)}",
        f"**{plain(overall.headline)}**",
        f"Gate, {plain(gate.name)}: **{gate.status}**" if gate else "",
        "\n".join(f"- {plain(remark, 600)}" for remark in remarks[:_MOST_REMARKS]),
        f"and {len(remarks) - _MOST_REMARKS:,} more" if len(remarks) > _MOST_REMARKS else "",
        "\n".join(f"> **Warning:** {plain(warning)}" for warning in summary.warnings[:_MOST_WARNINGS]),
        worst_canaries(summary),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n\n"


def append_step_summary(summary: Summary) -> None:
    """Append the summary to the file that the pipeline shows; other steps' summaries stay.

    Raises:
        UsageError: This is no pipeline that shows one.
        RunDirectoryError: The file cannot be written.
    """
    append_to_step(render_step_summary(summary))


def append_step_error(message: str, *, gated: bool) -> None:
    """Say that there is no report, and why.

    Raises:
        UsageError: This is no pipeline that shows a summary.
        RunDirectoryError: The file cannot be written.
    """
    result = "Gate: **inconclusive**" if gated else "No report"
    append_to_step(f"## Memorization audit\n\n{result}: {plain(message, 600)}\n\n")


def append_to_step(text: str) -> None:
    """Append Markdown to the file that the pipeline shows.

    Raises:
        UsageError: This is no pipeline that shows a summary.
        RunDirectoryError: The file cannot be written.
    """
    path = step_summary_path()
    with write_errors(path), path.open("a", encoding="utf-8") as file:
        file.write(text)
