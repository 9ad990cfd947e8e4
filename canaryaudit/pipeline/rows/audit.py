"""Run a whole audit of rows from a plan: existing results must match the plan, and missing stages run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from canaryaudit.errors import RunDirectoryError
from canaryaudit.pipeline.rows.insertion import RowsInsertion
from canaryaudit.pipeline.rows.pipeline import RowsPipeline
from canaryaudit.progress import ProgressReporter
from canaryaudit.records import TRAINED_MODEL, ModelId
from canaryaudit.runs.layout import check_name


def run_rows_audit(
    audit: Any,
    insertion: RowsInsertion,
    pipeline_type: type[RowsPipeline[Any, Any]],
    argv: Sequence[str],
    progress: ProgressReporter,
) -> tuple[Any, list[Path]]:
    """Run a whole audit of rows, or resume an existing one.

    Args:
        audit: The plan: what to do.
        insertion: How the rows are inserted.
        pipeline_type: Their stages.
        argv: The command line, for the manifest.
        progress: Told of progress.

    Returns:
        The report's figures and its files.

    Raises:
        CanaryAuditError: A stage fails, or was already run with other options than the plan's.
    """
    for options in audit.unlearn:
        check_name(options.resolved_name)
    if insertion.find(audit.run, audit.insert, progress) is None:
        for sentence in insertion.sentences(insertion.make(audit.run, audit.insert, argv, progress)):
            progress.info(sentence)
    else:
        progress.info(f"Resuming {audit.run}.")
    run = insertion.directory.open(audit.run)
    with run.lock():
        pipeline = pipeline_type(run, argv, progress)
        pipeline.check_report(audit.report)
        pipeline.train(audit.train)
        if not run.has_measurement(TRAINED_MODEL):
            pipeline.measure(TRAINED_MODEL)
        for options in audit.unlearn:
            _unlearn(pipeline, options)
        return pipeline.report(audit.report)


def _unlearn(pipeline: RowsPipeline[Any, Any], options: Any) -> None:
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


def _difference(pipeline: RowsPipeline[Any, Any], options: Any, record: Any) -> str:
    """Return in what an unlearning is not the one that is asked for; empty if in nothing."""
    if record.origin != options.start:
        return f"origin ({record.origin})"
    if record.method != options.method:
        return f"method ({record.method})"
    return "" if pipeline.is_same_request(options, record) else f"request ({record.words})"
