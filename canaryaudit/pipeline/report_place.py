"""Where reports go, which is never a run directory, and how a report words a fault of a run's file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from canaryaudit.errors import UsageError
from canaryaudit.records import ReportFormat
from canaryaudit.report import COMPARISON_FORMATS
from canaryaudit.report.formats.files import remove_own
from canaryaudit.report.formats.writer import write_gate_errors
from canaryaudit.report.rows.files import report_files
from canaryaudit.runs.findings import Finding

DEFAULT_REPORTS = Path("reports")
_LONGEST_NAME = 80


class ComparingOptions(Protocol):
    """What a comparison of runs reads of the options of a report."""

    @property
    def output(self) -> Path | None:
        """Where it goes."""

    @property
    def format(self) -> Sequence[ReportFormat]:
        """Formats to write."""

    @property
    def step_summary(self) -> bool:
        """Whether a pipeline's summary is wanted."""


def comparison_directory(paths: Sequence[Path], options: ComparingOptions) -> Path:
    """Return where the comparison of several runs goes.

    Args:
        paths: Run directories, or ``report.json`` files of earlier reports.
        options: What to report.

    Raises:
        UsageError: A run is given twice, an option applies only to the report of one run, or the directory lies in a
            run.
    """
    resolved = [path.resolve() for path in paths]
    if twice := next((path for path, real in zip(paths, resolved, strict=True) if resolved.count(real) > 1), None):
        raise UsageError(f"{twice} is given twice: give each run once")
    if options.step_summary:
        raise UsageError("--step-summary: only available for one run; report each run separately")
    if other := next((name for name in options.format if name not in COMPARISON_FORMATS), ""):
        raise UsageError(f"--format {other}: only available for one run; use html, md or json for a comparison")
    directory = options.output or DEFAULT_REPORTS / "-".join(path.name for path in resolved)[:_LONGEST_NAME]
    refuse_inside([path for path in resolved if path.is_dir()], directory)
    return directory


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
