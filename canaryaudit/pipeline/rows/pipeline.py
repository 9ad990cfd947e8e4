"""Orchestration of the stages of a run on rows: what each needs runs first, and existing results are kept."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from canaryaudit.errors import Inconclusive, NewerVersion, RunDirectoryError, UnlearningError, command
from canaryaudit.pipeline.report_place import DEFAULT_REPORTS, fault_words, refuse_inside, refuse_summary_inside
from canaryaudit.progress import ProgressReporter
from canaryaudit.records import TRAINED_MODEL, ModelId
from canaryaudit.report.formats.files import check_files
from canaryaudit.report.formats.step_summary import append_to_step, step_summary_path
from canaryaudit.report.rows.files import Makers, report_files, write_rows_report
from canaryaudit.runs.findings import PROBLEMS, Finding
from canaryaudit.runs.layout import check_name
from canaryaudit.runs.lineage import checked_lineage
from canaryaudit.runs.rows_verification import AnyRows, RowsChecks, verify_rows_run
from canaryaudit.runs.seals import read_key
from canaryaudit.table_plan import RowsReportOptions

O = TypeVar("O", bound=RowsReportOptions)  # noqa: E741
S = TypeVar("S")
"""What a report says."""


class RowsPipeline(ABC, Generic[O, S]):
    """The stages of one run on rows, each with what it needs.

    Attributes:
        checks: How the run is verified.
        training: Makes the options of a training that nobody asked for.
        opened: Opens the session.
        session: The open run.

    Args:
        run: The run directory, whose lock the caller holds.
        argv: The command line, for the manifest.
        progress: Told of progress.
    """

    checks: ClassVar[RowsChecks]
    training: ClassVar[type]
    opened: ClassVar[type]
    run: Any
    session: Any

    def __init__(self, run: Any, argv: Sequence[str], progress: ProgressReporter) -> None:
        self.run, self.progress = run, progress
        self.session = self.opened(run, argv, progress)

    # --- what depends on the kind of rows

    @abstractmethod
    def train(self, options: Any, *, anew: bool = False) -> Any:
        """Train the model, or report that it is already trained.

        Raises:
            ModelError: A model was made with other options.
        """

    @abstractmethod
    def measure_model(self, model: ModelId, device: str) -> Any:
        """Measure a model that is there."""

    @abstractmethod
    def resolve(self, options: Any, lineage: Sequence[Any]) -> Any:
        """Return the request, resolved to training rows; the options are compared with others by it.

        Raises:
            UnlearningError: It does not fit the rows.
        """

    @abstractmethod
    def carry_out(self, options: Any, name: str, request: Any, lineage: Sequence[Any]) -> Any:
        """Carry out a request on a model, and write the result; return its record."""

    @abstractmethod
    def summarize(self, options: O, faults: Sequence[str]) -> S:
        """Return what a report says of a run in which everything is measured.

        Raises:
            Inconclusive: Nothing was unlearned yet.
        """

    @abstractmethod
    def report_files(self, summary: S) -> Makers:
        """Return what makes each format's files of a report."""

    @abstractmethod
    def step_summary(self, summary: S) -> str:
        """Return what the page of a pipeline's run says, as Markdown."""

    @abstractmethod
    def is_same_request(self, options: Any, record: Any) -> bool:
        """Return whether an unlearning carried out what is asked for."""

    def check_unlearning(self, options: Any, *, anew: bool) -> None:
        """Refuse what cannot be done, before anything is trained."""

    # --- what every kind does alike

    def measure(self, model: ModelId, device: str = "cpu") -> Any:
        """Measure a model, even if it was measured before.

        Raises:
            RunDirectoryError: There is no such model.
        """
        if model.is_trained:
            self._need_model()
        return self.measure_model(model, device)

    def unlearn(self, options: Any, *, anew: bool = False) -> Any:
        """Carry out a request and measure; a finished unlearning of that name is an error unless ``anew``.

        Raises:
            UnlearningError: The name is taken, or the request does not fit the rows.
            Inconclusive: The update does not reach its tolerance.
        """
        name = check_name(options.resolved_name)
        self.check_unlearning(options, anew=anew)
        if not anew and self.run.has_unlearning(name):
            raise UnlearningError(
                f"{self.run.path} already has an unlearning {name!r}: use --force to replace it, or another --name"
            )
        lineage = checked_lineage(self.run, options.start, name, self.session.models(), self.progress)
        request = self.resolve(options, lineage)
        self._need_model()
        if not self.run.has_measurement(TRAINED_MODEL):
            self.progress.info("Not measured yet: measuring before unlearning.")
            self.measure(TRAINED_MODEL)
        record = self.carry_out(options, name, request, lineage)
        self.measure(ModelId(name), getattr(options, "device", "cpu"))
        return record

    def check_report(self, options: O) -> Path:
        """Return where the report goes, after checking what it needs besides the run.

        Raises:
            UsageError: The key cannot be read, the report would be in the run directory, or there is no file for the
                pipeline's summary.
            RunDirectoryError: A file there is not a report's.
        """
        if options.key:
            read_key(options.key)
        directory = options.output or DEFAULT_REPORTS / self.run.path.resolve().name
        refuse_inside([self.run.path], directory)
        if options.step_summary:
            refuse_summary_inside(self.run.path, step_summary_path())
        check_files(directory, report_files(options.format))
        return directory

    def report(self, options: O) -> tuple[S, list[Path]]:
        """Verify the run and write the report, after missing measurements.

        Raises:
            Inconclusive: There is a gate, and no report can be made of the run.
        """
        directory = self.check_report(options)
        faults = self._verified(options)
        with self._inconclusive_at_a_gate(options, faults), self.session.stage("report"):
            summary = self.summarize(options, faults)
            private = options.reveals
            written = write_rows_report(self.report_files(summary), directory, options.format, private=private)
            if options.step_summary:
                append_to_step(self.step_summary(summary))
            return summary, written

    def summary(self, options: O) -> S:
        """Verify the run and return what its report would say, after missing measurements.

        Raises:
            Inconclusive: There is a gate, and no report can be made of the run.
        """
        faults = self._verified(options)
        with self._inconclusive_at_a_gate(options, faults):
            return self.summarize(options, faults)

    def _verified(self, options: O) -> tuple[str, ...]:
        """Measure what is not measured, and return the faults of the run's files."""
        found = self._faults(options)
        if {finding.state for finding in found} <= {"stale"} and not self.run.is_read_only:
            self._need_measurements()
            found = self._faults(options) if found else found
        return tuple(map(fault_words, found))

    def _faults(self, options: O) -> tuple[Finding, ...]:
        """Verify the run, whose lock the caller holds, and its signature if a key is given."""
        key = read_key(options.key) if options.key else None
        verification = verify_rows_run(self.run.path, checks=self.checks, key=key, is_locked=True)
        return tuple(finding for finding in verification.findings if finding.state in PROBLEMS)

    @contextmanager
    def _inconclusive_at_a_gate(self, options: O, faults: Sequence[str]) -> Iterator[None]:
        """Name the run's first fault if its faults make a report impossible; with a gate, that is inconclusive."""
        try:
            yield
        except (Inconclusive, NewerVersion):  # their messages say what to do: there is nothing to repair
            raise
        except Exception as error:  # what somebody edited may break anything that computes with it
            if not faults:
                raise
            if not options.is_gated:
                raise RunDirectoryError(f"{self.run.path}/{faults[0]}: {self.run.see_how}") from error
            raise Inconclusive(f"the gate cannot pass: {faults[0]}; {self.run.see_how}") from error

    def _need_model(self) -> None:
        if not self.run.has_model(TRAINED_MODEL):
            self.progress.info("Not trained yet: training first.")
            self.train(self.training())
        self.run.verify_weights(TRAINED_MODEL)

    def _need_measurements(self) -> None:
        for model in self.session.models() if self.run.has_model(TRAINED_MODEL) else ():
            if not self.run.has_measurement(model):
                self.progress.info(f"{model} is not measured yet: measuring first.")
                self.measure(model)


def nothing_unlearned(run: AnyRows, options: RowsReportOptions) -> Inconclusive | UnlearningError:
    """Return the error of a report on a run in which nothing was unlearned."""
    message = f"nothing was unlearned yet: run {command('canaryaudit', 'unlearn', run.path)}"
    return Inconclusive(f"the gate cannot pass: {message}") if options.is_gated else UnlearningError(message)
