"""Terminal views and JSON documents of runs on tables."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from canaryaudit.formatting import shorten, significant
from canaryaudit.records import Privacy, TableFacts
from canaryaudit.records.tables import TableMeasurement, TableRecord


def insertion_document(record: TableRecord, facts: TableFacts, output: Path | None) -> dict[str, Any]:
    """Return an insertion into a table as a JSON document, without any value of it.

    Args:
        record: Columns and canaries.
        facts: Of the manifest.
        output: The run directory; None if nothing was written.
    """
    kinds = {kind: [own.planted for own in record.canaries if own.kind == kind] for kind in ("label", "value")}
    return {
        "schema_version": 1,
        "run": str(output) if output else None,
        "target": facts.target,
        "classes": list(record.classes),
        "rows": facts.rows,
        "heldout_rows": facts.heldout_rows,
        "columns": facts.columns,
        "sensitive_columns": len(record.sensitive),
        "flipped_labels": sum(kinds["label"]),
        "label_controls": len(kinds["label"]) - sum(kinds["label"]),
        "planted_values": sum(kinds["value"]),
        "value_controls": len(kinds["value"]) - sum(kinds["value"]),
    }


def table_measurement_view(measured: Sequence[TableMeasurement]) -> RenderableType:
    """Return measurements as a table, a line for each model, and what each model tells of the canaries."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("model", "residual", "loss difference", "accuracy", "F1", "constant classifier"):
        table.add_column(heading, justify="left" if heading == "model" else "right", no_wrap=heading != "model")
    lines = []
    for own in measured:
        quality = own.heldout or own.train
        table.add_row(
            Text(shorten(str(own.model), 40)),
            significant(own.residual),
            significant(own.max_loss_difference),
            f"{quality.accuracy:.4f}",
            f"{quality.f1:.4f}",
            f"{quality.majority_accuracy:.4f}",
        )
        for what, privacy in (("flipped labels", own.labels), ("planted values", own.values)):
            if privacy:
                lines.append(f"{what.capitalize()}, {shorten(str(own.model), 40)}: {coin_words(privacy)}.")
    rows = "held-out" if measured and measured[0].heldout else "training"
    note = f"Accuracy and F1 on the {rows} rows; loss difference: the largest of a row to a model fitted from nothing."
    return Group(table, Text(note), *map(Text, lines))


def coin_words(privacy: Privacy) -> str:
    """Return what a model tells of the coins."""
    own = privacy.membership
    return f"AUC {own.auc:.3f} ({own.auc_low:.3f} to {own.auc_high:.3f}), epsilon at least {privacy.epsilon_low:.2f}"
