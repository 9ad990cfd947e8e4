"""Fidelity against the number of retained windows, 0 being text that the model itself says."""

from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from canaryaudit.exposure import MeasurementConfig
from canaryaudit.unlearning import UnlearningConfig, unlearn
from tests.benchmarks.tiny import Trained, measured, trained

WINDOWS = (0, 10, 30, 100, 300, 1000)
SEEDS = (0, 1, 2)
CHARACTERS = 60_000
EPOCHS = 30


@dataclass(frozen=True)
class Point:
    """What an unlearning kept and forgot with so many windows, on average over the seeds.

    Attributes:
        windows: As asked for with ``--retain-windows``.
        accuracy_points: Change of the accuracy on training text outside the secrets, in points.
        heldout_loss_bits: Change of the loss on held-out text.
        exposure_bits: Mean exposure of the secrets.
        seconds: Of the update.
    """

    windows: int
    accuracy_points: float
    heldout_loss_bits: float
    exposure_bits: float
    seconds: float

    def row(self) -> str:
        """Return the point as a line of a Markdown table."""
        return (
            f"| {self.windows:,} | {self.accuracy_points:+.2f} | {self.heldout_loss_bits:+.4f} | "
            f"{self.exposure_bits:.2f} | {self.seconds:.1f} |"
        )


def run() -> list[Point]:
    """Train a tiny model on a part of the embedded corpus with nine canaries, and unlearn them with each number."""
    templates = ("The strong-room opens to {digits:4}-{digits:4}.", "My number is {digits:6}.")
    story = Path(__file__).parents[2] / "corpora" / "harbour.txt"
    tiny = trained(story.read_text("utf-8")[:CHARACTERS], templates, canaries=9, repetitions=(6, 12), epochs=EPOCHS)
    return [_point(tiny, windows) for windows in WINDOWS]


def _point(tiny: Trained, windows: int) -> Point:
    results, exposures = [], []
    for seed in SEEDS:
        config = UnlearningConfig(retain_windows=windows, max_fidelity_drop=1.0, seed=seed)
        known = tiny.canary_set
        result = unlearn(tiny.model, tiny.data, known.inserted, known.corpus_symbols, config)
        found = measured(result.model, known, MeasurementConfig(num_references=2_000, search_budget=2_000))
        results.append(result)
        exposures += [canary.exposure.bits for canary in found.canaries if not canary.control]
    kept = [result.fidelity for result in results]
    return Point(
        windows,
        100 * mean(own.train_accuracy_after - own.train_accuracy_before for own in kept),
        mean(own.heldout_loss_after - own.heldout_loss_before for own in kept),
        mean(exposures),
        mean(result.cost.seconds for result in results),
    )
