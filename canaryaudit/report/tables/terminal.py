"""The report on requests to a linear model in the terminal."""

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from canaryaudit import formatting as figures
from canaryaudit.report.tables.schema import TablesSummary
from canaryaudit.report.tables.writer import certified, efficacy, result_words, run_sentences


def render_tables_terminal(summary: TablesSummary) -> RenderableType:
    """Return the result, the methods and the certificate."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("method", "residual", "loss difference", "accuracy", "F1", "ms", "speed"):
        table.add_column(heading, justify="left" if heading == "method" else "right", no_wrap=True)
    for line in summary.methods:
        table.add_row(
            Text(line.name),
            figures.significant(line.residual),
            figures.significant(line.mean_loss_difference),
            f"{line.accuracy:.4f}",
            f"{line.f1:.4f}",
            f"{1000 * line.seconds:.1f}",
            figures.times(line.speedup),
        )
    sentences = (*efficacy(summary), *run_sentences(summary), *certified(summary))
    return Group(Text(summary.headline), *_lines(sentences), table, *_gate(summary))


def render_tables_result(summary: TablesSummary) -> RenderableType:
    """Return the result in a sentence or two."""
    return Group(Text(summary.headline), *_gate(summary))


def _lines(sentences: tuple[str, ...]) -> list[Text]:
    return [Text(f"- {figures.visible(sentence)}") for sentence in sentences]


def _gate(summary: TablesSummary) -> list[Text]:
    words = result_words(summary)
    return [Text(words)] if words else []
