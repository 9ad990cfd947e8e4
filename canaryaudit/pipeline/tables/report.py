"""Report stage of a run on a table: what its records say, other ways to the same data, and the gate."""

from collections.abc import Sequence

from canaryaudit.errors import Damaged, UnlearningError
from canaryaudit.pipeline.rows.figures import coin_figures, fault_doubts, gate_status
from canaryaudit.pipeline.rows.pipeline import nothing_unlearned
from canaryaudit.pipeline.tables.figures import table_measurement_fault
from canaryaudit.pipeline.tables.session import TableSession
from canaryaudit.records import TRAINED_MODEL, ModelId
from canaryaudit.records.tables import TableRecord, TableUnlearningRecord, last_result
from canaryaudit.report.tables.schema import (
    ReleaseFigures,
    ResultLine,
    RunFigures,
    TableGate,
    TablesSummary,
)
from canaryaudit.runs.rows_verification import RowsChecks
from canaryaudit.runs.table_verification import TableVerifier
from canaryaudit.table_plan import TableReportOptions
from canaryaudit.tabular.certificate import Certificate, certify
from canaryaudit.tabular.reporting import Subject, Test, summarize

CHECKS = RowsChecks(TableVerifier, table_measurement_fault)


def summarize_table_run(session: TableSession, options: TableReportOptions, faults: Sequence[str]) -> TablesSummary:
    """Return what a report says of a run."""
    unlearnings = session.run.unlearnings_in_order()
    result = last_result(unlearnings)
    if result is None:
        raise nothing_unlearned(session.run, options)
    model = ModelId(result.name)
    prepared, lineage = session.model(model), session.lineage(model)
    certificate: Certificate | UnlearningError | None = None
    if options.certify:
        try:
            plan = _releases(session)
            planned = plan.planned if plan and (plan.epsilon, plan.delta) == options.certify else 1
            certificate = certify(prepared.solved.point, prepared.tolerance, *options.certify, planned)
        except UnlearningError as error:
            certificate = error
    subject = Subject(
        estimator=type(prepared.prototype).__name__,
        names=shown_columns(session.table, reveal=options.reveal_secrets),
        start=prepared.start,
        point=prepared.solved.point,
        requests=tuple(record.words for record in lineage),
        path=result.path,
        seconds=sum(record.seconds for record in lineage),
        preparation_seconds=prepared.preparation_seconds,
        tolerance=prepared.tolerance,
        warnings=tuple(dict.fromkeys(own for record in lineage for own in record.warnings)),
    )
    present = prepared.solved.point.objective.rows
    test = Test(present.matrix(), present.present_signs, unseen=False)
    if session.rows.heldout.any():
        test = Test(*prepared.test_rows(*session.heldout_rows()), unseen=True)
    summary = summarize(subject, test, options.against, certificate)
    return summary.model_copy(update={"run": _run_figures(session, options, unlearnings, result, faults)})


def shown_columns(table: TableRecord, *, reveal: bool) -> tuple[str, ...]:
    """Return the columns' names as a report shows them.

    Categories, and the columns of a matrix, may be words of the data themselves: they are numbered instead, unless they
    are to be revealed. The names of columns of cells are their owner's.
    """
    if reveal:
        return table.columns
    if table.matrix:
        return tuple(f"column {number:,}" for number in range(1, len(table.columns) + 1))
    return tuple(
        name if group.categories is None else f"{group.name}, value {number:,}"
        for group in table.groups
        for number, name in enumerate(group.columns, 1)
    )


def _run_figures(
    session: TableSession,
    options: TableReportOptions,
    unlearnings: Sequence[TableUnlearningRecord],
    result: TableUnlearningRecord,
    faults: Sequence[str],
) -> RunFigures:
    run, manifest = session.run, session.run.manifest
    before, after = run.measurement(TRAINED_MODEL), run.measurement(ModelId(result.name))
    coins = (
        coin_figures("flipped labels", before.labels, after.labels),
        coin_figures("planted values", before.values, after.values),
    )
    lines = []
    for record in unlearnings:
        measured = run.measurement(ModelId(record.name))
        lines.append(
            ResultLine(
                name=record.name,
                origin=str(record.origin),
                words=record.words,
                path=record.path,
                update_work=record.update_work,
                retraining_work=record.retraining_work,
                residual=measured.residual,
                max_loss_difference=measured.max_loss_difference,
                accuracy=(measured.heldout or measured.train).accuracy,
                seconds=record.seconds,
                retraining_seconds=measured.retraining_seconds,
            )
        )
    return RunFigures(
        name=run.path.resolve().name,
        table=manifest.facts.name,
        target=manifest.facts.target,
        result=result.name,
        results=tuple(lines),
        coins=tuple(own for own in coins if own),
        releases=_releases(session),
        gate=table_gate(options, lines, faults),
        faults=tuple(faults),
        signed=options.key is not None,
        revealed=options.reveal_secrets,
        versions=tuple(f"{name} {version}" for name, version in manifest.versions.items()),
    )


def _releases(session: TableSession) -> ReleaseFigures | None:
    try:
        plan = session.run.releases()
    except Damaged:  # which is among the faults
        return None
    if plan is None:
        return None
    return ReleaseFigures(epsilon=plan.epsilon, delta=plan.delta, made=len(plan.made), planned=plan.planned)


def table_gate(options: TableReportOptions, lines: Sequence[ResultLine], faults: Sequence[str]) -> TableGate | None:
    """Return the gate's result: passed only if every residual is small enough and all records are verified."""
    limit = options.fail_residual
    if limit is None:
        return None
    above = [f"{line.name}: residual {line.residual:.2g}, above {limit:g}" for line in lines if line.residual > limit]
    doubts = fault_doubts(faults)
    status = gate_status(above, doubts)
    return TableGate(fail_residual=limit, status=status, reasons=tuple(above), doubts=tuple(doubts))
