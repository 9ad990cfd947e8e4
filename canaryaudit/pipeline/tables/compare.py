"""Compare several runs on tables on one page: open each run, run missing measurements, and compare the reports."""

from collections.abc import Sequence
from pathlib import Path

from canaryaudit.errors import UsageError
from canaryaudit.pipeline.report_place import DEFAULT_REPORTS, refuse_inside
from canaryaudit.pipeline.tables.pipeline import TablePipeline
from canaryaudit.progress import ProgressReporter
from canaryaudit.report import COMPARISON_FORMATS
from canaryaudit.report.tables.comparison import (
    TablesComparison,
    compare_tables,
    read_tables_report,
    write_tables_comparison,
)
from canaryaudit.report.tables.schema import TablesSummary
from canaryaudit.runs.table_directory import TableDirectory
from canaryaudit.table_plan import TableReportOptions

_LONGEST_NAME = 80
_AGAINST = ("retrain",)
"""Methods that a comparison needs; others are in each run's report."""


def compare_table_runs(
    paths: Sequence[Path], options: TableReportOptions, argv: Sequence[str], progress: ProgressReporter
) -> tuple[TablesComparison, list[Path]]:
    """Write a page that compares runs on tables.

    Args:
        paths: At least two run directories, or ``report.json`` files of earlier reports, which no gate judges.
        options: What to report; the gate applies to every run.
        argv: The command line, for the manifests.
        progress: Receives progress.

    Returns:
        The comparison and the files written.

    Raises:
        UsageError: A run is given twice, or an option applies only to the report of one run.
        CanaryAuditError: A run cannot be read, or a stage fails.
    """
    resolved = [path.resolve() for path in paths]
    if twice := next((path for path, real in zip(paths, resolved, strict=True) if resolved.count(real) > 1), None):
        raise UsageError(f"{twice} is given twice: give each run once")
    if options.step_summary:
        raise UsageError("--step-summary: only available for one run; report each run separately")
    if other := next((name for name in options.format if name not in COMPARISON_FORMATS), ""):
        raise UsageError(f"--format {other}: only available for one run; use html, md or json for a comparison")
    if options.fail_residual is not None and (earlier := next((path for path in paths if path.is_file()), None)):
        raise UsageError(f"--fail-residual: {earlier} cannot be verified; give run directories, or drop the gate")
    directory = options.output or DEFAULT_REPORTS / "-".join(path.name for path in resolved)[:_LONGEST_NAME]
    refuse_inside([path for path in resolved if path.is_dir()], directory)
    # All are opened before the first is measured.
    runs = [read_tables_report(path) if path.is_file() else TableDirectory.open(path) for path in paths]
    chosen = options if "against" in options.model_fields_set else options.model_copy(update={"against": _AGAINST})
    summaries = []
    for run in runs:
        if isinstance(run, TablesSummary):
            summaries.append(run)
            continue
        with run.lock(reading=True):
            summaries.append(TablePipeline(run, argv, progress).summary(chosen))
    names = [str(path) for path in resolved]
    reports = {name for name, run in zip(names, runs, strict=True) if isinstance(run, TablesSummary)}
    comparison = compare_tables(summaries, names, reports)
    return comparison, write_tables_comparison(comparison, directory, options.format)
