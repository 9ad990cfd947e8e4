"""The report of a run on a table for pipelines: JUnit XML, SARIF, and a summary on the page of a pipeline's run."""

from collections.abc import Iterator
from xml.etree import ElementTree

from canaryaudit import formatting as figures
from canaryaudit.report.formats.junit import junit_case
from canaryaudit.report.formats.markdown import code
from canaryaudit.report.formats.sarif import Rule, sarif_document, sarif_result
from canaryaudit.report.rows.pipelines import (
    INCONCLUSIVE,
    UNSOUND,
    common_alerts,
    failed_because,
    rows_junit,
    rows_step_summary,
)
from canaryaudit.report.tables.schema import ResultLine, RunFigures, TablesSummary
from canaryaudit.report.tables.writer import markdown_results, result_words

_RESIDUAL = Rule(
    "CA201",
    "ResidualAboveTolerance",
    "error",
    "An updated linear model is not the retrained one.",
    "the norm of its gradient on the data after the requests is above the tolerance.",
)
_GIVEN_AWAY = Rule(
    "CA202",
    "ColumnGivenAway",
    "warning",
    "The other columns tell a removed one.",
    "a model of the columns that stay predicts the removed one with a cross-validated AUC of at least 0.8, or R² of at "
    "least 0.5: no unlearning removes that.",
)
_TOLD = Rule(
    "CA203",
    "CanariesTold",
    "warning",
    "The model still tells which canaries were planted.",
    "after the requests, the membership AUC of flipped labels or planted values is above 0.5 with its interval.",
)
_DIFFERENT = Rule(
    "CA204",
    "DeletedRowsDiffer",
    "warning",
    "Deleted rows differ from rows never seen.",
    "the AUC of their losses is above 0.5 with its interval, and another one in the retrained model.",
)
_WARNING = Rule(
    "CA205",
    "RequestIncomplete",
    "warning",
    "Something that a request removes stays elsewhere.",
    "a scaler, a vocabulary or other values were computed from what is removed.",
)
_REFUSED = Rule(
    "CA206",
    "CertificateRefused",
    "error",
    "The certificate that was asked for would not hold.",
    "the residual with its rounding is above the tolerance, or a coefficient is not regularized.",
)
_FAILED = failed_because("a residual is above the limit.")
RULES = (_RESIDUAL, _GIVEN_AWAY, _TOLD, _DIFFERENT, _WARNING, _REFUSED, UNSOUND, _FAILED, INCONCLUSIVE)


def render_tables_junit(summary: TablesSummary) -> str:
    """Return the report as JUnit XML: a case for each result of the run, its records, and the gate.

    With a gate, no case fails, is an error or is skipped if and only if the gate passes. Without one, a result fails if
    its residual is above the tolerance.
    """
    run = _run_of(summary)
    limit = run.gate.fail_residual if run.gate else summary.tolerance
    cases = [_result_case(line, limit) for line in run.results]
    return rows_junit(run.name, cases, run.faults, run.gate, f"residual at most {limit:g}")


def render_tables_sarif(summary: TablesSummary) -> str:
    """Return the report as SARIF: an alert for all that is not as it should be, with names masked as in the report."""
    run = _run_of(summary)
    results = [sarif_result(run.name, rule, text, what, run.table, RULES) for rule, text, what in _alerts(summary, run)]
    return sarif_document(run.name, results, RULES)


def render_tables_step_summary(summary: TablesSummary) -> str:
    """Return the result, the gate with its reasons, warnings, and all requests of the run, as Markdown."""
    run = _run_of(summary)
    title = f"Requests to the model of {code(run.name, 120)}"
    sentences, warnings = (summary.headline, result_words(summary)), (*run.faults, *summary.warnings)
    return rows_step_summary(title, sentences, run.gate, warnings, markdown_results(summary))


def _run_of(summary: TablesSummary) -> RunFigures:
    if summary.run is None:
        raise ValueError("pipelines are told of runs only")
    return summary.run


def _result_case(line: ResultLine, limit: float) -> ElementTree.Element:
    words = f"residual {figures.significant(line.residual)}, above {limit:g}" if line.residual > limit else ""
    note = f"{line.words}: {line.path}, residual {figures.significant(line.residual)}"
    return junit_case(line.name, failure=words, note=note)


def _alerts(summary: TablesSummary, run: RunFigures) -> Iterator[tuple[Rule, str, str]]:
    """Yield what is not as it should be: the rule, what to say, and what it is about."""
    for line in run.results:
        if line.residual > summary.tolerance:
            yield (
                _RESIDUAL,
                f"{line.name}: residual {figures.significant(line.residual)}; the tolerance is "
                f"{figures.significant(summary.tolerance)}",
                line.name,
            )
    for own in summary.disclosures:
        if own.telling:
            text = f"{own.column} was removed; the other columns predict it: {own.measure} "
            yield _GIVEN_AWAY, text + figures.decimal(own.value, 3), f"column/{own.column}"
    for coins in run.coins:
        auc, low, high, epsilon, *_ = coins.after
        if low > 0.5 or epsilon > 0:
            text = f"{coins.what}: AUC {auc:.3f} ({low:.3f} to {high:.3f}), epsilon at least {epsilon:.2f}"
            yield _TOLD, text, coins.what
    if (found := summary.membership) and found.told:
        yield _DIFFERENT, f"deleted rows: AUC {found.auc:.3f} ({found.low:.3f} to {found.high:.3f})", "deleted rows"
    for number, warning in enumerate(summary.warnings, 1):
        yield _WARNING, warning, f"warning/{number}"
    if summary.refused:
        yield _REFUSED, summary.refused, "certificate"
    yield from common_alerts(run.faults, run.gate, _FAILED)
