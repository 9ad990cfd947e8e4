"""The stages of a run on a table."""

from collections.abc import Sequence
from pathlib import Path

from canaryaudit.pipeline.rows.pipeline import RowsPipeline
from canaryaudit.pipeline.tables.figures import measure_table
from canaryaudit.pipeline.tables.report import CHECKS, shown_columns, summarize_table_run
from canaryaudit.pipeline.tables.requests import Resolver, scaling_warning, to_request
from canaryaudit.pipeline.tables.session import TableSession
from canaryaudit.pipeline.tables.skops_files import check_destination, save_estimator
from canaryaudit.pipeline.tables.training import train_table
from canaryaudit.records import ModelId
from canaryaudit.records.tables import LinearModelRecord, RequestRecord, TableMeasurement, TableUnlearningRecord
from canaryaudit.report.rows.files import Makers
from canaryaudit.report.tables.files import table_report_files
from canaryaudit.report.tables.pipelines import render_tables_step_summary
from canaryaudit.report.tables.schema import TablesSummary
from canaryaudit.runs.table_directory import TableDirectory
from canaryaudit.storage.arrays import arrays_bytes
from canaryaudit.table_plan import TableReportOptions, TableTrainOptions, TableUnlearnOptions
from canaryaudit.tabular.baselines import check_methods
from canaryaudit.tabular.changes import along_words


class TablePipeline(RowsPipeline[TableReportOptions, TablesSummary]):
    """The stages of one run on a table."""

    checks = CHECKS
    training = TableTrainOptions
    opened = TableSession
    run: TableDirectory
    session: TableSession

    def train(self, options: TableTrainOptions, *, anew: bool = False) -> LinearModelRecord:
        """Train the model, or report that it is already trained.

        Raises:
            ModelError: A model was made with other options.
        """
        return train_table(self.session, options, anew=anew)

    def measure_model(self, model: ModelId, device: str) -> TableMeasurement:  # noqa: ARG002
        """Measure a model."""
        return measure_table(self.session, model)

    def check_unlearning(self, options: TableUnlearnOptions, *, anew: bool) -> None:
        """Refuse to save an estimator over a stranger's file."""
        if options.save:
            check_destination(options.save, self.run.path, "--save", replace=anew)

    def resolve(
        self, options: TableUnlearnOptions, lineage: Sequence[TableUnlearningRecord]
    ) -> tuple[RequestRecord, Sequence[str]]:
        """Return the request, and what must be known of it."""
        earlier = [record.request for record in lineage]
        resolver = Resolver(self.session.table, self.session.rows, earlier, self.progress)
        return resolver.resolve(options), resolver.notes

    def carry_out(
        self,
        options: TableUnlearnOptions,
        name: str,
        request: tuple[RequestRecord, Sequence[str]],
        lineage: Sequence[TableUnlearningRecord],  # noqa: ARG002
    ) -> TableUnlearningRecord:
        """Carry out a request on a model, and write the result with what must be known of it."""
        session, before = self.session, self.session.model(options.start)
        asked_for, notes = request
        asked = to_request(asked_for, session.table, session.label)
        with session.stage("unlearn", name, seed=options.seed):
            after = before.apply(asked, retrain=options.method == "retrain")
        scaled = scaling_warning(asked_for, session.table, session.rows)
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
            request=asked_for.model_copy(update={"columns": after.removed_since(before)}),
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

    def check_report(self, options: TableReportOptions) -> Path:
        """Return where the report goes, after checking what it needs besides the run.

        Raises:
            UnlearningError: A method is unknown.
        """
        check_methods(options.against)
        return super().check_report(options)

    def summarize(self, options: TableReportOptions, faults: Sequence[str]) -> TablesSummary:
        """Return what a report says."""
        return summarize_table_run(self.session, options, faults)

    def report_files(self, summary: TablesSummary) -> Makers:
        """Return what makes each format's files."""
        return table_report_files(summary)

    def step_summary(self, summary: TablesSummary) -> str:
        """Return what the page of a pipeline's run says."""
        return render_tables_step_summary(summary)

    def is_same_request(self, options: TableUnlearnOptions, record: TableUnlearningRecord) -> bool:
        """Return whether an unlearning carried out what is asked for."""
        earlier = self.session.lineage(options.start)
        asked, _ = self.resolve(options, earlier)
        # Columns that go along with their group are found in the values of a matrix, when the request is carried out.
        as_done = asked.model_copy(update={"columns": record.request.columns})
        removed = {name for own in earlier for name in own.request.columns}
        return as_done == record.request and {*asked.columns} - removed <= {*record.request.columns}
