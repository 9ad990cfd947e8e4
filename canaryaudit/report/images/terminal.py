"""The report on corrected labels of a network in the terminal."""

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from canaryaudit import formatting as figures
from canaryaudit.report.images.schema import ImagesSummary
from canaryaudit.report.images.writer import image_findings, image_gate_words

_MOST_LINES = 50


def render_images_terminal(summary: ImagesSummary) -> RenderableType:
    """Return the result and the methods."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("name", "accuracy", "restored", "flipped", "others", "time, s", "cost"):
        table.add_column(heading, justify="left" if heading == "name" else "right", no_wrap=True)
    for line in summary.results[:_MOST_LINES]:
        table.add_row(
            Text(figures.visible(line.name)),
            f"{line.accuracy:.4f}",
            figures.percent(line.restored, 0),
            figures.percent(line.flipped_right, 1),
            figures.percent(line.kept_right, 1),
            f"{line.seconds:.1f}",
            figures.percent(line.cost, 1),
        )
    found = [Text(f"- {figures.visible(sentence)}") for sentence in image_findings(summary)]
    note = "Flipped, others: share of these rows that get their own label. Cost: share of the training's time."
    return Group(Text(summary.headline), *found, table, Text(note), *_gate(summary))


def render_images_result(summary: ImagesSummary) -> RenderableType:
    """Return the result in a sentence or two."""
    return Group(Text(summary.headline), *_gate(summary))


def _gate(summary: ImagesSummary) -> list[Text]:
    words = image_gate_words(summary)
    return [Text(words)] if words else []
