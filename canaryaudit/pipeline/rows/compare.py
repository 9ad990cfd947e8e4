"""Compare several runs on rows on one page: open each run, run missing measurements, and compare the reports."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from canaryaudit.errors import UsageError
from canaryaudit.pipeline.report_place import DEFAULT_REPORTS, refuse_inside
from canaryaudit.pipeline.rows.pipeline import RowsPipeline
from canaryaudit.progress import ProgressReporter
from canaryaudit.report import COMPARISON_FORMATS
from canaryaudit.report.rows.comparison import ComparisonView
from canaryaudit.runs.rows_verification import AnyRows
from canaryaudit.table_plan import RowsReportOptions

_LONGEST_NAME = 80


@dataclass(frozen=True)
class RowsComparing:
    """How runs on one kind of rows are compared.

    Attributes:
        directory: Their run directory.
        pipeline: Their stages.
        read: Reads an earlier report.
        compare: Compares reports, given their paths and which of these are earlier reports.
        view: How the comparison is shown.
        needed: Options that a comparison needs less of than a report of one run, where the user did not say.
    """

    directory: type[AnyRows]
    pipeline: type[RowsPipeline[Any, Any]]
    read: Callable[[Path], Any]
    compare: Callable[..., Any]
    view: ComparisonView
    needed: dict[str, Any]

    def compare_runs(
        self, paths: Sequence[Path], options: RowsReportOptions, argv: Sequence[str], progress: ProgressReporter
    ) -> tuple[Any, list[Path]]:
        """Write a page that compares runs.

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
        if options.is_gated and (earlier := next((path for path in paths if path.is_file()), None)):
            raise UsageError(
                f"{options.gate_flag}: {earlier} cannot be verified; give run directories, or drop the gate"
            )
        directory = options.output or DEFAULT_REPORTS / "-".join(path.name for path in resolved)[:_LONGEST_NAME]
        refuse_inside([path for path in resolved if path.is_dir()], directory)
        # All are opened before the first is measured.
        runs = [None if path.is_file() else self.directory.open(path) for path in paths]
        earlier_reports = {path: self.read(path) for path, run in zip(paths, runs, strict=True) if run is None}
        unsaid = {name: value for name, value in self.needed.items() if name not in options.model_fields_set}
        chosen = options.model_copy(update=unsaid)
        summaries = []
        for path, run in zip(paths, runs, strict=True):
            if run is None:
                summaries.append(earlier_reports[path])
                continue
            with run.lock(reading=True):
                summaries.append(self.pipeline(run, argv, progress).summary(chosen))
        names = [str(path) for path in resolved]
        reports = {name for name, run in zip(names, runs, strict=True) if run is None}
        comparison = self.compare(summaries, names, reports)
        return comparison, self.view.write(comparison, directory, options.format)
