"""Several runs on one page: each is opened in turn, what it lacks is measured, and their summaries are compared."""

from collections.abc import Sequence
from pathlib import Path

from canaryaudit.errors import UsageError
from canaryaudit.pipeline.pipeline import Pipeline
from canaryaudit.pipeline.report import DEFAULT_REPORTS
from canaryaudit.plan import MeasureOptions, ReportOptions
from canaryaudit.progress import ProgressReporter
from canaryaudit.report import COMPARISON_FORMATS, Comparison, compare, write_comparison
from canaryaudit.runs.run_directory import RunDirectory

_LONGEST_NAME = 80


def compare_runs(
    paths: Sequence[Path], options: ReportOptions, argv: Sequence[str], progress: ProgressReporter
) -> tuple[Comparison, list[Path]]:
    """Write a page that compares runs.

    Args:
        paths: At least two run directories.
        options: What to report; ``fail_above`` holds for every run.
        argv: The command line, for the manifests.
        progress: Told of progress.

    Returns:
        The comparison and the files written.

    Raises:
        UsageError: A run is named twice, or something is asked for that only one run's report has.
        CanaryAuditError: A run cannot be read, or a stage fails.
    """
    places = [path.resolve() for path in paths]
    if twice := next((path for path, place in zip(paths, places, strict=True) if places.count(place) > 1), None):
        raise UsageError(f"{twice} is named twice: give each run once")
    if options.fail_worse:
        raise UsageError("--fail-worse: several runs have no one baseline; report each run on its own")
    formats = [name for name in options.format if name in COMPARISON_FORMATS]
    if len(formats) < len(options.format):
        other = next(name for name in options.format if name not in COMPARISON_FORMATS)
        raise UsageError(f"--format {other}: only a report of one run has it; a comparison has html, md and json")
    runs = [RunDirectory.open(path) for path in paths]  # All are there, before the first is measured.
    summaries = []
    for run in runs:
        with run.lock():
            summaries.append(Pipeline(run, argv, progress).summary(options, MeasureOptions()))
    comparison = compare(summaries, [str(place) for place in places])
    name = "-".join(place.name for place in places)[:_LONGEST_NAME]
    return comparison, write_comparison(comparison, options.output or DEFAULT_REPORTS / name, formats)
