"""Comparison of several runs on tables: the last result of each beside the others', on one page."""

from collections.abc import Collection, Sequence
from pathlib import Path

from canaryaudit import formatting as figures
from canaryaudit.errors import UsageError
from canaryaudit.report.comparison.comparison import unique_names
from canaryaudit.report.earlier import read_earlier
from canaryaudit.report.judgment import Figure, GateStatus, Number, Part
from canaryaudit.report.rows.comparison import ComparisonView, change_words, judged, unverified_note
from canaryaudit.report.tables.schema import TABLES_VERSION, TablesSummary

TABLES_COMPARISON_VERSION = 1


class TableRunLine(Part):
    """The last result of one run."""

    name: str
    verified: bool
    """Whether the figures are those of a run directory, which was verified; false for a ``report.json``."""
    table: str
    target: str
    estimator: str
    rows: int
    columns: int
    result: str
    """The unlearning that the figures are of."""
    requests: int
    """How many led to it."""
    path: str
    residual: Number
    tolerance: Number
    max_loss_difference: Figure
    """Largest difference of a row's loss to the retrained model; None if that was not asked for."""
    accuracy: Number
    f1: Number
    majority_accuracy: Number
    """Of the constant classifier."""
    sigma: Figure
    """Noise of the certificate; None without one."""
    coins_before: Figure
    coins_after: Figure
    """AUC of the canaries' coins, the largest of its kinds; None without canaries."""
    told: int
    """Removed columns that the others still tell."""
    seconds: Number
    speedup: Figure
    warnings: tuple[str, ...]


class TablesComparison(Part):
    """comparison.json of runs on tables."""

    schema_version: int = TABLES_COMPARISON_VERSION
    estimators: tuple[str, ...]
    """Estimators of all runs, each once."""
    runs: tuple[TableRunLine, ...]
    reasons: tuple[str, ...]
    """Why the gate did not pass; empty if it passed or there was no gate."""
    status: GateStatus | None
    """The worst result of any run's gate; None without a gate."""

    @property
    def headline(self) -> str:
        """The result in one sentence."""
        exact = sum(run.residual <= run.tolerance for run in self.runs)
        return f"{exact:,} of {len(self.runs):,} updated models are the retrained ones, within their tolerances."

    @property
    def note(self) -> str:
        """Says which figures nothing verified; empty if all are of run directories."""
        return unverified_note(self.runs)


def read_tables_report(path: Path) -> TablesSummary:
    """Read an earlier report of a run on a table, without its gate, which may have judged another state of the run.

    Raises:
        UsageError: It cannot be read, or is no such report.
    """
    wanted = "a run directory on a table, or the report.json of its report"
    report = read_earlier(path, TablesSummary, str(path), wanted, "write the report again", TABLES_VERSION)
    if report.run is None:
        raise UsageError(f"{path} is not the report of a run: expected {wanted}")
    return report.model_copy(update={"run": report.run.model_copy(update={"gate": None})})


def compare_tables(
    summaries: Sequence[TablesSummary], paths: Sequence[str], reports: Collection[str] = ()
) -> TablesComparison:
    """Compare runs, in the given order.

    Args:
        summaries: The report of each run.
        paths: The runs' paths, which distinguish runs with the same name.
        reports: The paths of those that were read from a ``report.json``.
    """
    names = unique_names([own.run.name if own.run else "" for own in summaries], paths)
    lines = [
        _line(name, summary, verified=path not in reports)
        for name, path, summary in zip(names, paths, summaries, strict=True)
    ]
    reasons, status = judged([(name, own.gate) for name, own in zip(names, summaries, strict=True)])
    return TablesComparison(
        estimators=tuple(dict.fromkeys(own.estimator for own in summaries)),
        runs=tuple(lines),
        reasons=reasons,
        status=status,
    )


def _line(name: str, summary: TablesSummary, *, verified: bool) -> TableRunLine:
    run, update = summary.run, summary.update
    if run is None:
        raise ValueError("only runs are compared")
    coins = run.coins
    return TableRunLine(
        name=name,
        verified=verified,
        table=run.table,
        target=run.target,
        estimator=summary.estimator,
        rows=summary.rows,
        columns=summary.columns,
        result=run.result,
        requests=len(summary.requests),
        path=summary.path,
        residual=summary.residual,
        tolerance=summary.tolerance,
        max_loss_difference=update.max_loss_difference if summary.retrained else None,
        accuracy=update.accuracy,
        f1=update.f1,
        majority_accuracy=summary.majority_accuracy,
        sigma=summary.certificate.sigma if summary.certificate else None,
        coins_before=max((own.before[0] for own in coins), default=None),
        coins_after=max((own.after[0] for own in coins), default=None),
        told=sum(line.telling for line in summary.disclosures),
        seconds=update.seconds,
        speedup=update.speedup,
        warnings=(*run.faults, *summary.warnings),
    )


def _cells(own: TableRunLine) -> list[str]:
    return [
        own.name,
        f"{own.table}, {own.target}",
        f"{own.estimator}, {own.rows:,} rows, {own.columns:,} columns",
        f"{own.result}, {figures.counted(own.requests, 'request')}",
        own.path,
        figures.significant(own.residual),
        figures.significant(own.max_loss_difference),
        f"{own.accuracy:.4f}",
        f"{own.f1:.4f}",
        f"{own.majority_accuracy:.4f}",
        change_words(own.coins_before, own.coins_after),
        f"{own.told:,}",
        figures.significant(own.sigma),
        f"{1000 * own.seconds:.1f}",
        figures.times(own.speedup),
    ]


def _short_cells(own: TableRunLine) -> list[str]:
    return [
        figures.significant(own.residual),
        figures.significant(own.max_loss_difference),
        f"{own.accuracy:.4f}",
        f"{own.f1:.4f}",
        change_words(own.coins_before, own.coins_after),
        figures.times(own.speedup),
    ]


TABLES_VIEW = ComparisonView(
    "tables",
    "Runs in the given order, each with its last result. Loss difference: the largest of a row to the retrained model. "
    "AUC of canaries: whether the model tells which were planted, before → after. Columns told: removed ones that the "
    "others still tell. See each run's report for details.",
    "Requests after Warnecke et al., “Machine Unlearning of Features and Labels”, NDSS 2023; noise after Balle and "
    "Wang, ICML 2018.",
    (
        "Run",
        "Table, target",
        "Model",
        "Result",
        "By",
        "Residual",
        "Largest loss difference",
        "Accuracy",
        "F1",
        "Constant classifier",
        "AUC of canaries",
        "Columns told",
        "Noise",
        "Time, ms",
        "Against retraining",
    ),
    _cells,
    ("residual", "loss difference", "accuracy", "F1", "AUC", "speed"),
    _short_cells,
)
