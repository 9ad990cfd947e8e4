"""Fidelity against the number of retained windows, 0 being text that the model itself says."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import torch

from canaryaudit import training
from canaryaudit.exposure import MeasurementConfig, measure
from canaryaudit.model import LSTMReader
from canaryaudit.narration import Silent
from canaryaudit.newrun import make_run
from canaryaudit.pipeline import Pipeline
from canaryaudit.plan import InsertOptions, TrainOptions
from canaryaudit.unlearning import UnlearningConfig, unlearn

WINDOWS = (0, 10, 30, 100, 300, 1000)
SEEDS = (0, 1, 2)
_SIZE = (16, 128, 1)
_CHARACTERS = 60_000


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
    with tempfile.TemporaryDirectory() as scratch:
        text = Path(__file__).parents[2] / "corpora" / "harbour.txt"
        corpus = Path(scratch, "part.txt")
        corpus.write_text(text.read_text("utf-8")[:_CHARACTERS], "utf-8")
        options = InsertOptions(
            corpus=str(corpus),
            template=("The strong-room opens to {digits:4}-{digits:4}.", "My number is {digits:6}."),
            canaries=9,
            repetitions=(6, 12),
        )
        made, _ = make_run(Path(scratch, "run"), options, ["bench"])
        size, training.SIZES["small"] = training.SIZES["small"], _SIZE
        try:
            stages = Pipeline(made, ["bench"], Silent())
            stages.train(TrainOptions(epochs=30, precision="fp32"))
            return [_point(stages, windows) for windows in WINDOWS]
        finally:
            training.SIZES["small"] = size


def _point(stages: Pipeline, windows: int) -> Point:
    device = torch.device("cpu")
    model, (data, _) = stages._model("before", device), stages._data(device)
    canary_set = stages.run.canary_set()
    results, exposures = [], []
    for seed in SEEDS:
        config = UnlearningConfig(retain_windows=windows, max_fidelity_drop=1.0, seed=seed)
        result = unlearn(model, data, canary_set.inserted, canary_set.corpus_symbols, config, 0.0, Silent())
        measured = measure(
            LSTMReader(result.model),
            canary_set,
            MeasurementConfig(num_references=2_000, search_budget=2_000),
            name="after-benchmark",
            model_sha256="",
            precision="fp32",
            narrator=Silent(),
        )
        results.append(result)
        exposures += [canary.exposure.bits for canary in measured.canaries if not canary.control]
    kept = [result.fidelity for result in results]
    return Point(
        windows,
        100 * mean(own.train_accuracy_after - own.train_accuracy_before for own in kept),
        mean(own.heldout_loss_after - own.heldout_loss_before for own in kept),
        mean(exposures),
        mean(result.cost.seconds for result in results),
    )
