"""Terminal views and JSON documents of runs on images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from canaryaudit.cli.table_views import coin_words
from canaryaudit.formatting import percent, shorten
from canaryaudit.records import ImagesFacts
from canaryaudit.records.images import ImageMeasurement, ImagesRecord


def image_insertion_document(record: ImagesRecord, facts: ImagesFacts, output: Path | None) -> dict[str, Any]:
    """Return an insertion into images as a JSON document.

    Args:
        record: Classes and canaries.
        facts: Of the manifest.
        output: The run directory; None if nothing was written.
    """
    planted = sum(canary.planted for canary in record.canaries)
    return {
        "schema_version": 1,
        "run": str(output) if output else None,
        "image": facts.image,
        "target": facts.target,
        "classes": list(record.classes),
        "height": record.height,
        "width": record.width,
        "channels": record.channels,
        "rows": facts.rows,
        "heldout_rows": facts.heldout_rows,
        "flipped_labels": planted,
        "label_controls": len(record.canaries) - planted,
    }


def image_measurement_view(measured: Sequence[ImageMeasurement]) -> RenderableType:
    """Return measurements as a table, a line for each network, and what each tells of the flipped labels."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("model", "accuracy", "F1", "own label", "flipped", "others"):
        table.add_column(heading, justify="left" if heading == "model" else "right", no_wrap=True)
    lines = []
    for own in measured:
        quality = own.heldout or own.train
        table.add_row(
            Text(shorten(str(own.model), 24)),
            f"{quality.accuracy:.4f}",
            f"{quality.f1:.4f}",
            percent(own.flipped_right, 1),
            percent(own.flipped_wrong, 1),
            percent(own.kept_right, 1),
        )
        if own.labels:
            lines.append(f"Flipped labels, {shorten(str(own.model), 40)}: {coin_words(own.labels)}.")
    quality = measured[0].heldout or measured[0].train
    rows = "images held out" if measured[0].heldout else "training images"
    note = f"Accuracy and F1 on the {rows}; the constant classifier has {quality.majority_accuracy:.4f}."
    meaning = "Rows with flipped labels that get their own label, or the flipped one; other rows that get their own."
    return Group(table, Text(note), Text(meaning), *map(Text, lines))
