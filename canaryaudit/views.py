"""What the commands show of a plan and of a measurement, as renderables and documents; ``cli`` prints them."""

from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from canaryaudit.insertion import InsertionPlan
from canaryaudit.records import CanaryMeasurement, EstimatorName, Measurement
from canaryaudit.report.text import shorten

_OTHERS: tuple[EstimatorName, ...] = ("importance", "sampled", "skew-normal")


def plan_document(made: InsertionPlan, output: Path | None, expected_seconds: float | None) -> dict[str, Any]:
    """Return an insertion as JSON has it; no secret is in it.

    Args:
        made: The plan.
        output: The run directory; None if nothing was written.
        expected_seconds: What training would take; None if it was not estimated.
    """
    return {
        "schema_version": 1,
        "run": str(output) if output else None,
        "characters": len(made.training_text),
        "heldout_characters": len(made.heldout_text),
        "documents": made.num_documents,
        "paragraphs": made.num_paragraphs,
        "boundaries": made.num_boundaries,
        "vocabulary_size": len(made.vocabulary),
        "templates": [
            {
                "template": space.template,
                "space_size": str(space.size),
                "space_bits": space.bits,
                "canaries": space.canaries,
                "controls": space.controls,
            }
            for space in made.spaces
        ],
        "canaries": [
            canary.model_dump(mode="json", include={"id", "template", "repetitions", "origin", "places"})
            for canary in made.canary_set.inserted
        ],
        "controls": len(made.canary_set.controls),
        "warnings": list(made.warnings),
        "expected_training_seconds": expected_seconds,
    }


def plan_view(made: InsertionPlan, expected_seconds: float | None) -> RenderableType:
    """Return an insertion as the terminal shows it."""
    table = Table()
    table.add_column("template", overflow="fold")
    for heading in ("space, bits", "canaries", "controls"):
        table.add_column(heading, justify="right")
    for space in made.spaces:
        table.add_row(Text(shorten(space.template, 200)), f"{space.bits:.2f}", str(space.canaries), str(space.controls))
    lines = []
    for canary in made.canary_set.inserted:
        shown = ", ".join(f"{place:,}" for place in canary.places[:6]) + (", …" if len(canary.places) > 6 else "")
        times = "once" if canary.repetitions == 1 else f"{canary.repetitions} times"
        lines.append(f"{canary.id}: {times}, at {shown}")
    lines.append(
        f"{len(made.training_text):,} characters to train on, {len(made.heldout_text):,} held out, "
        f"{made.num_boundaries:,} places between paragraphs, {len(made.vocabulary)} symbols."
    )
    if expected_seconds is not None:
        lines.append(f"Training (small) would take about {expected_seconds:.0f} s here. Nothing was written.")
    return Group(table, Text("\n".join(lines)))


def measurement_view(measurement: Measurement) -> RenderableType:
    """Return a measurement as the terminal shows it: the inserted canaries, and the controls in one line."""
    table = Table(title=Text(f"Exposure {measurement.model}, bits"))
    for heading in ("canary", "times", "exposure", "95 %", "method", "import.", "sampled", "skew-n.", "greedy"):
        table.add_column(heading, justify="left" if heading in ("canary", "method") else "right")
    for canary in measurement.canaries:
        if not canary.control:
            table.add_row(*_measured_row(canary))
    lines = ["A figure with ? is not to be trusted, by its own diagnostics."]
    if calibration := measurement.calibration:
        verdict = "as they must be" if calibration.passed else f"FAILED: {calibration.note}"
        lines.append(
            f"Controls: {calibration.controls}, mean {calibration.mean_bits:.2f} bits (expected 1.44), "
            f"p = {calibration.ks_pvalue:.2g}: {verdict}."
        )
    return Group(table, Text("\n".join(lines)))


def _measured_row(canary: CanaryMeasurement) -> list[str]:
    others = []
    for name in _OTHERS:
        estimate = canary.estimates.get(name)
        others.append(f"{estimate.bits:.1f}{'' if estimate.trusted else '?'}" if estimate else "-")
    exposure = canary.exposure
    return [
        canary.id,
        str(canary.repetitions),
        f"{exposure.bits:.1f} of {canary.space_bits:.1f}",
        f"{exposure.low:.1f}-{exposure.high:.1f}",
        exposure.method,
        *others,
        "yes" if canary.extraction.greedy else "no",
    ]
