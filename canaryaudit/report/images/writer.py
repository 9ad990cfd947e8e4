"""The report on corrected labels of a network, as one HTML page, Markdown or JSON."""

from collections.abc import Sequence

from canaryaudit import formatting as figures
from canaryaudit.report.charts.base import Chart
from canaryaudit.report.formats.html import UNFOLDED, drawing, make_environment
from canaryaudit.report.formats.markdown import plain
from canaryaudit.report.images.schema import ImageResultLine, ImagesSummary
from canaryaudit.report.tables.writer import bullets, coin_sentence, gate_words, markdown_table


def render_images_page(summary: ImagesSummary, drawn: Sequence[Chart]) -> str:
    """Return the page."""
    return (
        make_environment()
        .get_template("images.html.j2")
        .render(
            s=summary,
            charts={chart.name: drawing(chart) for chart in drawn},
            findings=image_findings(summary),
            gate=image_gate_words(summary),
            cells=[result_cells(line) for line in summary.results],
            headings=HEADINGS,
            unfolded=UNFOLDED,
        )
    )


def render_images_markdown(summary: ImagesSummary, drawn: Sequence[Chart]) -> str:
    """Return the report as Markdown, which refers to its pictures in the same folder."""
    pictures = [f"![{plain(c.title)}. {plain(c.alternative)}]({c.file_name})" for c in drawn]
    blocks = [f"# Corrected labels of {plain(summary.images)}", f"## {plain(summary.headline)}"]
    blocks += [f"> **Warning:** {plain(fault)}" for fault in summary.faults]
    blocks += [plain(image_gate_words(summary)), bullets(summary.gate.remarks) if summary.gate else ""]
    blocks += [bullets(image_findings(summary)), "## Methods", *pictures]
    blocks += [markdown_results(summary), "## Limitations", bullets(summary.limits)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def markdown_results(summary: ImagesSummary) -> str:
    """Return all results as a table."""
    return markdown_table(HEADINGS, [[plain(cell, 80) for cell in result_cells(line)] for line in summary.results])


def image_findings(summary: ImagesSummary) -> tuple[str, ...]:
    """Return what was achieved, in sentences."""
    main, retrained = summary.main, summary.retrained
    sentences = [
        f"{main.words}.",
        f"Accuracy on the {summary.evaluated_on}: {figures.percent(summary.accuracy_before)} before, "
        f"{figures.percent(main.accuracy)} after; the constant classifier has "
        f"{figures.percent(summary.majority_accuracy)}.",
    ]
    if retrained is None:
        sentences.append("No retrained network to compare with: add one with canaryaudit unlearn RUN --method retrain.")
    elif main.restored is None:
        sentences.append(
            f"The retrained network has {figures.percent(retrained.accuracy)}, no more than before: nothing was lost "
            "that could come back."
        )
    else:
        error = (
            f", with a standard error of at most {figures.percent(main.restored_error, 0)}"
            if main.restored_error
            else ""
        )
        sentences.append(
            f"The retrained network has {figures.percent(retrained.accuracy)}: {figures.percent(main.restored, 0)} of "
            f"the lost accuracy is back{error}."
        )
    if cheaper := summary.cheaper_retraining:
        sentences.append(
            f"Retraining was cheaper: it took {cheaper.seconds:.1f} s, and {main.name} {main.seconds:.1f} s. On so "
            "few small images it is the better answer."
        )
    if main.flipped_right is not None:
        sentences.append(
            f"Of the rows with flipped labels {figures.percent(summary.flipped_right_before, 1)} got their own label "
            f"before and {figures.percent(main.flipped_right, 1)} after; of the other rows "
            f"{figures.percent(summary.kept_right_before, 1)} before and {figures.percent(main.kept_right, 1)} after."
        )
    if summary.coins:
        sentences.append(coin_sentence(summary.coins))
        if not summary.coins.after[1] <= 0.5 <= summary.coins.after[2]:
            sentences.append(
                "The flipped labels can still be told: next, try canaryaudit unlearn RUN --method blocks, or --method "
                "retrain."
            )
    if main.residual is not None:
        sentences.append(f"The output layer is solved to a residual of {figures.significant(main.residual)} an image.")
    return tuple(sentences)


HEADINGS = (
    "Name",
    "From",
    "Labels corrected",
    "Accuracy",
    "F1",
    "Restored",
    "Flipped rows right",
    "Flipped label said",
    "Other rows right",
    "Time, s",
    "Of the training's",
)


def result_cells(line: ImageResultLine) -> list[str]:
    """Return a result's row of the table of methods, under ``HEADINGS``."""
    return [
        line.name,
        line.origin,
        f"{line.corrected:,}",
        f"{line.accuracy:.4f}",
        f"{line.f1:.4f}",
        figures.percent(line.restored, 0),
        figures.percent(line.flipped_right, 1),
        figures.percent(line.flipped_wrong, 1),
        figures.percent(line.kept_right, 1),
        f"{line.seconds:.1f}",
        figures.percent(line.cost, 1),
    ]


def image_gate_words(summary: ImagesSummary) -> str:
    """Return the gate's result; empty without a gate."""
    if summary.gate is None:
        return ""
    return gate_words(summary.gate.status, f"AUC of flipped labels at most {summary.gate.fail_auc:g}")
