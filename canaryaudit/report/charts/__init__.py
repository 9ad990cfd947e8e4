"""All charts of a report, in the order of its sections: a new section adds its chart here."""

from altair.utils.schemapi import debug_mode

from canaryaudit.report.charts.base import MOST_TEMPLATES, Chart
from canaryaudit.report.charts.checkpoints import checkpoints_chart
from canaryaudit.report.charts.estimates import estimates_chart
from canaryaudit.report.charts.exposure import exposure_chart
from canaryaudit.report.charts.memorization import memorization_chart
from canaryaudit.report.charts.methods import method_chart
from canaryaudit.report.charts.probes import has_probes, probes_chart
from canaryaudit.report.charts.references import reference_chart
from canaryaudit.report.charts.relearning import relearning_charts
from canaryaudit.report.charts.training import training_chart
from canaryaudit.report.schema import Summary


def charts(summary: Summary) -> tuple[Chart, ...]:
    """Return all charts for which the summary has figures."""
    with debug_mode(False):  # Altair need not check each part against a schema: they differ in their numbers only.
        return tuple(_drawn(summary))


def _drawn(summary: Summary) -> list[Chart]:
    drawn = [exposure_chart(summary)]
    if has_probes(summary):
        drawn.append(probes_chart(summary))
    if summary.memorization:
        drawn.append(memorization_chart(summary.memorization, unlearned=summary.unlearned))
    for index, template in enumerate(summary.templates[:MOST_TEMPLATES]):
        if template.before or template.after:
            drawn.append(reference_chart(summary, index))
    drawn.append(estimates_chart(summary))
    if sum(method.measured for method in summary.methods) > 1:
        drawn.append(method_chart(summary))
    drawn += relearning_charts(summary)
    if summary.checkpoints:
        drawn.append(checkpoints_chart(summary))
    if summary.training:
        drawn.append(training_chart(summary))
    return drawn
