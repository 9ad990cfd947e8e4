"""Run a whole audit of a table from a plan: existing results must match the plan, and missing stages run."""

from collections.abc import Sequence
from pathlib import Path

from canaryaudit.errors import RunDirectoryError
from canaryaudit.pipeline.tables.insertion import find_table_run, insertion_sentences, make_table_run
from canaryaudit.pipeline.tables.pipeline import TablePipeline
from canaryaudit.pipeline.tables.report import check_table_report
from canaryaudit.pipeline.tables.requests import Resolver
from canaryaudit.progress import ProgressReporter
from canaryaudit.records import TRAINED_MODEL, ModelId
from canaryaudit.records.tables import TableUnlearningRecord
from canaryaudit.report.tables.schema import TablesSummary
from canaryaudit.runs.layout import check_name
from canaryaudit.runs.table_directory import TableDirectory
from canaryaudit.table_plan import TablePlan, TableUnlearnOptions


def run_table_audit(
    audit: TablePlan, argv: Sequence[str], progress: ProgressReporter
) -> tuple[TablesSummary, list[Path]]:
    """Run a whole audit of a table, or resume an existing one.

    Args:
        audit: What to do.
        argv: The command line, for the manifest.
        progress: Told of progress.

    Returns:
        The report's figures and its files.

    Raises:
        CanaryAuditError: A stage fails, or was already run with other options than the plan's.
    """
    for options in audit.unlearn:
        check_name(options.resolved_name)
    if find_table_run(audit.run, audit.insert, progress) is None:
        for sentence in insertion_sentences(make_table_run(audit.run, audit.insert, argv, progress)):
            progress.info(sentence)
    else:
        progress.info(f"Resuming {audit.run}.")
    run = TableDirectory.open(audit.run)
    with run.lock():
        pipeline = TablePipeline(run, argv, progress)
        check_table_report(pipeline.session, audit.report)
        pipeline.train(audit.train)
        if not run.has_measurement(TRAINED_MODEL):
            pipeline.measure(TRAINED_MODEL)
        for options in audit.unlearn:
            _unlearn(pipeline, options)
        return pipeline.report(audit.report)


def _unlearn(pipeline: TablePipeline, options: TableUnlearnOptions) -> None:
    name, run = options.resolved_name, pipeline.run
    if not run.has_unlearning(name):
        pipeline.unlearn(options)
        return
    if part := _difference(pipeline, options, run.unlearning(name)):
        raise RunDirectoryError(
            f"{run.path} has an unlearning {name!r} that differs in its {part}: choose another name in the plan"
        )
    pipeline.progress.info(f"{name!r} was already unlearned.")
    if not run.has_measurement(ModelId(name)):
        pipeline.measure(ModelId(name))


def _difference(pipeline: TablePipeline, options: TableUnlearnOptions, record: TableUnlearningRecord) -> str:
    """Return in what an unlearning is not the one that is asked for; empty if in nothing."""
    if record.origin != options.start:
        return f"origin ({record.origin})"
    if record.method != options.method:
        return f"method ({record.method})"
    session = pipeline.session
    earlier = [own.request for own in session.lineage(options.start)]
    asked = Resolver(session.table, session.rows, earlier, pipeline.progress).resolve(options)
    # Columns that go along with their group are found in the values of a matrix, when the request is carried out.
    as_done = asked.model_copy(update={"columns": record.request.columns})
    removed = {name for own in earlier for name in own.columns}
    if as_done != record.request or not {*asked.columns} - removed <= {*record.request.columns}:
        return f"request ({record.words})"
    return ""
