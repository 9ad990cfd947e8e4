"""Compare several runs on one page: open each run, run missing measurements, and compare the summaries."""

from collections.abc import Sequence
from pathlib import Path

from canaryaudit.errors import UsageError
from canaryaudit.pipeline.pipeline import Pipeline
from canaryaudit.pipeline.report_place import comparison_directory
from canaryaudit.plan import MeasureOptions, ReportOptions
from canaryaudit.progress import ProgressReporter
from canaryaudit.report import (
    Comparison,
    Summary,
    compare,
    oldest_first,
    read_report,
    write_comparison,
)
from canaryaudit.runs.run_directory import RunDirectory


def compare_runs(
    paths: Sequence[Path], options: ReportOptions, argv: Sequence[str], progress: ProgressReporter
) -> tuple[Comparison, list[Path]]:
    """Write a page that compares runs.

    Args:
        paths: At least two run directories, or ``report.json`` files of earlier reports, which no gate judges.
        options: What to report; ``fail_above`` applies to every run.
        argv: The command line, for the manifests.
        progress: Receives progress.

    Returns:
        The comparison and the files written.

    Raises:
        UsageError: A run is given twice, or an option applies only to the report of one run.
        CanaryAuditError: A run cannot be read, or a stage fails.
    """
    if options.fail_worse:
        raise UsageError("--fail-worse: several runs have no common baseline; report each run separately")
    directory = comparison_directory(paths, options)
    # All are opened before the first is measured.
    runs = [read_report(path) if path.is_file() else RunDirectory.open(path) for path in paths]
    if options.fail_above is not None and any(isinstance(run, Summary) for run in runs):
        earlier = next(path for path, run in zip(paths, runs, strict=True) if isinstance(run, Summary))
        raise UsageError(f"--fail-above: {earlier} cannot be verified; give run directories, or drop the gate")
    summaries = []
    for run in runs:
        if isinstance(run, Summary):
            summaries.append(run)
            continue
        with run.lock(reading=True):
            summaries.append(Pipeline(run, argv, progress).summary(options, MeasureOptions()))
    names = [str(path.resolve()) for path in paths]
    reports = {name for name, run in zip(names, runs, strict=True) if isinstance(run, Summary)}
    if options.trend:
        summaries, names = oldest_first(summaries, names)
    comparison = compare(summaries, names, trend=options.trend, reports=reports)
    return comparison, write_comparison(comparison, directory, options.format)
