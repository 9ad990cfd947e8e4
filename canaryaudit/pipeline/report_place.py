"""Where reports go, which is never a run directory, and how a report words a fault of a run's file."""

from collections.abc import Sequence
from pathlib import Path

from canaryaudit.errors import UsageError
from canaryaudit.records import ReportFormat
from canaryaudit.report.formats.files import remove_own
from canaryaudit.report.formats.writer import write_gate_errors
from canaryaudit.report.rows.files import report_files
from canaryaudit.runs.findings import Finding

DEFAULT_REPORTS = Path("reports")


def fault_words(finding: Finding) -> str:
    """Describe a fault of a run's file."""
    return f"{finding.file} is {finding.state}" + (f" ({finding.detail})" if finding.detail else "")


def replace_earlier_report(run: Path, output: Path | None, formats: Sequence[ReportFormat], message: str) -> None:
    """Remove an earlier report of the run of a table, where a gate gives no report; files of others stay.

    What pipelines read says instead that the gate is inconclusive.

    Raises:
        RunDirectoryError: A file cannot be removed or written.
    """
    name = run.resolve().name
    directory = output or DEFAULT_REPORTS / name
    write_gate_errors(directory, name, message, formats)
    if directory.is_dir():
        remove_own(directory, report_files(("html", "md", "json")))


def refuse_summary_inside(run: Path, path: Path) -> None:
    """Raise an error if the pipeline's summary would be added to a file of the run.

    Raises:
        UsageError: It would.
    """
    if path.resolve().is_relative_to(run.resolve()):
        raise UsageError(f"--step-summary: {path} is in the run directory: set its variable to a file elsewhere")


def refuse_inside(runs: Sequence[Path], directory: Path) -> None:
    """Raise an error if a report would be written into a run directory.

    Raises:
        UsageError: It would.
    """
    for run in runs:
        if directory.resolve().is_relative_to(run.resolve()):
            raise UsageError(
                f"-o {directory} is in the run directory, which holds secrets and is not to be shared: choose another, "
                f"such as {DEFAULT_REPORTS / run.resolve().name}"
            )
