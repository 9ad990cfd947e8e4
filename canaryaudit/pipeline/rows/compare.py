"""Compare several runs on rows on one page: open each run, run missing measurements, and compare the reports."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from canaryaudit.errors import UsageError
from canaryaudit.pipeline.report_place import comparison_directory
from canaryaudit.pipeline.rows.pipeline import RowsPipeline
from canaryaudit.progress import ProgressReporter
from canaryaudit.report.rows.comparison import ComparisonView
from canaryaudit.runs.rows_verification import AnyRows
from canaryaudit.table_plan import RowsReportOptions


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
        directory = comparison_directory(paths, options)
        if options.is_gated and (earlier := next((path for path in paths if path.is_file()), None)):
            raise UsageError(
                f"{options.gate_flag}: {earlier} cannot be verified; give run directories, or drop the gate"
            )
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
        names = [str(path.resolve()) for path in paths]
        reports = {name for name, run in zip(names, runs, strict=True) if run is None}
        comparison = self.compare(summaries, names, reports)
        return comparison, self.view.write(comparison, directory, options.format)
