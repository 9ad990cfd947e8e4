"""A small model trained on a text with canaries in it, for curves that need many updates."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from canaryaudit.canaries.canary import CanarySet
from canaryaudit.exposure import MeasurementConfig, measure
from canaryaudit.models.char_lstm import CharLSTM, LSTMLanguageModel
from canaryaudit.pipeline.insert import make_run
from canaryaudit.pipeline.pipeline import Pipeline
from canaryaudit.plan import InsertOptions, TrainOptions
from canaryaudit.progress import NullReporter
from canaryaudit.records import TRAINED_MODEL, Measurement
from canaryaudit.training import loop as training
from canaryaudit.training.data import TrainingData

_SIZE = (16, 128, 1)


@dataclass(frozen=True)
class Trained:
    """A model, what it was trained on, and the secrets in it."""

    model: CharLSTM
    data: TrainingData
    canary_set: CanarySet


def trained(text: str, template: tuple[str, ...], canaries: int, repetitions: tuple[int, ...], epochs: int) -> Trained:
    """Insert canaries into a text and train 128 units on it."""
    with tempfile.TemporaryDirectory() as scratch:
        corpus = Path(scratch, "part.txt")
        corpus.write_text(text, "utf-8")
        options = InsertOptions(corpus=str(corpus), template=template, canaries=canaries, repetitions=repetitions)
        made, _ = make_run(Path(scratch, "run"), options, ["bench"])
        size, training.SIZES["small"] = training.SIZES["small"], _SIZE
        try:
            stages = Pipeline(made, ["bench"], NullReporter())
            stages.train(TrainOptions(epochs=epochs, precision="fp32"))
            device = torch.device("cpu")
            model, (data, _) = stages.session.model(TRAINED_MODEL, device), stages.session.data(device)
        finally:
            training.SIZES["small"] = size
        assert isinstance(model, CharLSTM)
        return Trained(model, data, made.canary_set())


def measured(model: CharLSTM, canary_set: CanarySet, config: MeasurementConfig) -> Measurement:
    """Measure the exposures under a model."""
    return measure(LSTMLanguageModel(model), canary_set, config)
