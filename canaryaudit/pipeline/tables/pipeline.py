"""Orchestration of the stages of a run on a table: what each needs runs first, and existing results are kept."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from canaryaudit.errors import Inconclusive, NewerVersion, RunDirectoryError, UnlearningError
from canaryaudit.pipeline.report_place import fault_words
from canaryaudit.pipeline.tables.figures import measure_table
from canaryaudit.pipeline.tables.publication import Published, publish_table
from canaryaudit.pipeline.tables.report import (
    check_table_report,
    run_table_report,
    shown_columns,
    summarize_table_run,
    verify_table_report,
)
from canaryaudit.pipeline.tables.requests import Resolver, scaling_warning, to_request
from canaryaudit.pipeline.tables.session import TableSession
from canaryaudit.pipeline.tables.skops_files import check_destination, save_estimator
from canaryaudit.pipeline.tables.training import train_table
from canaryaudit.progress import ProgressReporter
from canaryaudit.records import TRAINED_MODEL, ModelId
from canaryaudit.records.tables import LinearModelRecord, RequestRecord, TableMeasurement, TableUnlearningRecord
from canaryaudit.report.tables.schema import TablesSummary
from canaryaudit.runs.layout import check_name
from canaryaudit.runs.lineage import checked_lineage
from canaryaudit.runs.table_directory import TableDirectory
from canaryaudit.storage.arrays import arrays_bytes
from canaryaudit.table_plan import TablePublishOptions, TableReportOptions, TableTrainOptions, TableUnlearnOptions
from canaryaudit.tabular.changes import along_words
from canaryaudit.tabular.prepared import PreparedModel


class TablePipeline:
    """The stages of one run on a table, each with what it needs.

    Args:
        run: The run directory, whose lock the caller holds.
        argv: The command line, for the manifest.
        progress: Told of progress.
    """

    def __init__(self, run: TableDirectory, argv: Sequence[str], progress: ProgressReporter) -> None:
        self.session = TableSession(run, argv, progress)
        self.run, self.progress = run, progress

    def train(self, options: TableTrainOptions, *, anew: bool = False) -> LinearModelRecord:
        """Train the model, or report that it is already trained.

        Raises:
            ModelError: A model was made with other options.
        """
        return train_table(self.session, options, anew=anew)

    def measure(self, model: ModelId) -> TableMeasurement:
        """Measure a model, even if it was measured before.

        Raises:
            RunDirectoryError: There is no such model.
        """
        if model.is_trained:
            self._need_model()
        return measure_table(self.session, model)

    def unlearn(self, options: TableUnlearnOptions, *, anew: bool = False) -> TableUnlearningRecord:
        """Carry out a request and measure; a finished unlearning of that name is an error unless ``anew``.

        Raises:
            UnlearningError: The name is taken, or the request does not fit the table.
            Inconclusive: The residual stays above the tolerance.
        """
        name = check_name(options.resolved_name)
        if options.save:
            check_destination(options.save, self.run.path, "--save", replace=anew)
        if not anew and self.run.has_unlearning(name):
            raise UnlearningError(
                f"{self.run.path} already has an unlearning {name!r}: use --force to replace it, or another --name"
            )
        self._need_model()
        if not self.run.has_measurement(TRAINED_MODEL):
            self.progress.info("Not measured yet: measuring before unlearning.")
            self.measure(TRAINED_MODEL)
        lineage = checked_lineage(self.run, options.start, name, self.session.models(), self.progress)
        before = self.session.model(options.start)
        earlier = [record.request for record in lineage]
        resolver = Resolver(self.session.table, self.session.rows, earlier, self.progress)
        request = resolver.resolve(options)
        record = self._carry_out(options, name, request, before, resolver.notes)
        self.measure(ModelId(name))
        return record

    def _carry_out(
        self,
        options: TableUnlearnOptions,
        name: str,
        request: RequestRecord,
        before: PreparedModel,
        notes: Sequence[str],
    ) -> TableUnlearningRecord:
        """Carry out a request on a model, and write the result with what must be known of it."""
        session = self.session
        asked = to_request(request, session.table, session.label)
        with session.stage("unlearn", name, seed=options.seed):
            after = before.apply(asked, retrain=options.method == "retrain")
        scaled = scaling_warning(request, session.table, session.rows)
        known = dict(zip(session.table.columns, shown_columns(session.table, reveal=False), strict=True))
        along = after.history[-1].along
        found = [
            along_words([known[name] for name in along]) if along and own == along_words(along) else own
            for own in after.warnings
            if own not in before.warnings
        ]
        warnings = tuple(own for own in (*notes, *found, scaled) if own)
        for warning in warnings:
            self.progress.warn(warning)
        work = after.estimate
        record = TableUnlearningRecord(
            name=name,
            method=options.method,
            request=request.model_copy(update={"columns": after.removed_since(before)}),
            words=after.history[-1].words,
            path=after.solved.path,
            residual=after.residual,
            tolerance=after.tolerance,
            update_work=work.update if work else 0.0,
            retraining_work=work.retraining if work else 0.0,
            seconds=after.seconds - before.seconds,
            seed=options.seed,
            model_sha256=self.run.write_weights(ModelId(name), arrays_bytes({"theta": after.solved.point.theta})),
            origin=options.start,
            origin_sha256=self.run.model_sha256(options.start),
            warnings=warnings,
        )
        self.run.write_unlearning(record)
        if options.save:
            save_estimator(after.estimator, options.save)
        self.progress.info(f"{record.words}: {record.way}, residual {record.residual:.1e}.")
        return record

    def publish(self, options: TablePublishOptions, *, anew: bool = False) -> Published:
        """Write a model with the certificate's noise; every release is counted.

        Raises:
            UnlearningError: The certificate would not hold, or no release is left.
        """
        return publish_table(self.session, options, anew=anew)

    def report(self, options: TableReportOptions) -> tuple[TablesSummary, list[Path]]:
        """Verify the run and write the report, after missing measurements.

        Raises:
            Inconclusive: There is a gate, and no report can be made of the run.
        """
        directory = check_table_report(self.session, options)
        faults = self._verified(options)
        with self._inconclusive_at_a_gate(options, faults):
            return run_table_report(self.session, options, directory, faults)

    def summary(self, options: TableReportOptions) -> TablesSummary:
        """Verify the run and return what its report would say, after missing measurements.

        Raises:
            Inconclusive: There is a gate, and no report can be made of the run.
        """
        faults = self._verified(options)
        with self._inconclusive_at_a_gate(options, faults):
            return summarize_table_run(self.session, options, faults)

    def _verified(self, options: TableReportOptions) -> tuple[str, ...]:
        """Measure what is not measured, and return the faults of the run's files."""
        found = verify_table_report(self.session, options)
        if {finding.state for finding in found} <= {"stale"} and not self.run.is_read_only:
            self._need_measurements()
            found = verify_table_report(self.session, options) if found else found
        return tuple(map(fault_words, found))

    @contextmanager
    def _inconclusive_at_a_gate(self, options: TableReportOptions, faults: Sequence[str]) -> Iterator[None]:
        """Name the run's first fault if its faults make a report impossible; with a gate, that is inconclusive."""
        try:
            yield
        except (Inconclusive, NewerVersion):  # their messages say what to do: there is nothing to repair
            raise
        except Exception as error:  # what somebody edited may break anything that computes with it
            if not faults:
                raise
            if options.fail_residual is None:
                raise RunDirectoryError(f"{self.run.path}/{faults[0]}: {self.run.see_how}") from error
            raise Inconclusive(f"the gate cannot pass: {faults[0]}; {self.run.see_how}") from error

    def _need_model(self) -> None:
        if not self.run.has_model(TRAINED_MODEL):
            self.progress.info("Not trained yet: training first.")
            self.train(TableTrainOptions())
        self.run.verify_weights(TRAINED_MODEL)

    def _need_measurements(self) -> None:
        for model in self.session.models() if self.run.has_model(TRAINED_MODEL) else ():
            if not self.run.has_measurement(model):
                self.progress.info(f"{model} is not measured yet: measuring first.")
                self.measure(model)
