"""The report of a run on images for pipelines: JUnit XML, SARIF, and a summary on the page of a pipeline's run."""

from collections.abc import Iterator

from canaryaudit.report.formats.junit import junit_case
from canaryaudit.report.formats.markdown import code
from canaryaudit.report.formats.sarif import Rule, sarif_document, sarif_result
from canaryaudit.report.images.schema import ImagesSummary
from canaryaudit.report.images.writer import image_gate_words, markdown_results
from canaryaudit.report.rows.pipelines import (
    INCONCLUSIVE,
    UNSOUND,
    common_alerts,
    failed_because,
    rows_junit,
    rows_step_summary,
)

_WORSE = Rule(
    "CA301",
    "AccuracyNotRestored",
    "warning",
    "A network with corrected labels is no better than before.",
    "after the correction, the accuracy on the evaluated images is not above that before.",
)
_TOLD = Rule(
    "CA302",
    "FlippedLabelsTold",
    "warning",
    "The network still tells which labels were flipped.",
    "after the correction, the membership AUC of flipped labels differs from 0.5 with its interval.",
)
_CHEAPER = Rule(
    "CA303",
    "RetrainingCheaper",
    "warning",
    "Retraining took less time than the correction.",
    "the images are so few or small that steps on cached activations are as much work as the training's.",
)
_FAILED = failed_because("the AUC of flipped labels is outside the limits.")
RULES = (_WORSE, _TOLD, _CHEAPER, UNSOUND, _FAILED, INCONCLUSIVE)


def render_images_junit(summary: ImagesSummary) -> str:
    """Return the report as JUnit XML: a case for each result of the run, its records, and the gate.

    With a gate, no case fails, is an error or is skipped if and only if the gate passes. A result as such never fails.
    """
    cases = [junit_case(line.name, note=f"{line.words}: accuracy {line.accuracy:.4f}") for line in summary.results]
    gate = summary.gate
    condition = f"AUC of flipped labels at most {gate.fail_auc:g}" if gate else ""
    return rows_junit(summary.run, cases, summary.faults, gate, condition)


def render_images_sarif(summary: ImagesSummary) -> str:
    """Return the report as SARIF: an alert for all that is not as it should be."""
    alerts = _alerts(summary)
    results = [sarif_result(summary.run, rule, text, what, summary.images, RULES) for rule, text, what in alerts]
    return sarif_document(summary.run, results, RULES)


def render_images_step_summary(summary: ImagesSummary) -> str:
    """Return the result, the gate with its reasons, and all results of the run, as Markdown."""
    title = f"Corrected labels of {code(summary.run, 120)}"
    sentences = (summary.headline, image_gate_words(summary))
    return rows_step_summary(title, sentences, summary.gate, summary.faults, markdown_results(summary))


def _alerts(summary: ImagesSummary) -> Iterator[tuple[Rule, str, str]]:
    """Yield what is not as it should be: the rule, what to say, and what it is about."""
    main = summary.main
    if not summary.is_better:
        text = f"{main.name}: accuracy {main.accuracy:.4f}, {summary.accuracy_before:.4f} before"
        yield _WORSE, text, main.name
    if summary.coins:
        auc, low, high, epsilon, *_ = summary.coins.after
        if not low <= 0.5 <= high or epsilon > 0:
            text = f"{summary.coins.what}: AUC {auc:.3f} ({low:.3f} to {high:.3f}), epsilon at least {epsilon:.2f}"
            yield _TOLD, text, summary.coins.what
    if (retrained := summary.cheaper_retraining) is not None:
        text = f"{main.name} took {main.seconds:.1f} s, and {retrained.name} {retrained.seconds:.1f} s"
        yield _CHEAPER, text, main.name
    yield from common_alerts(summary.faults, summary.gate, _FAILED)
