"""Tests of canaryaudit.training.evaluation: texts that are mapped files, and texts too long to be read whole."""

import numpy as np
import pytest
import torch

from canaryaudit.progress import NullReporter
from canaryaudit.training import evaluation
from canaryaudit.training import loop as training
from canaryaudit.training.config import TrainingConfig
from canaryaudit.training.data import TrainingData
from canaryaudit.training.evaluation import evaluate
from canaryaudit.training.loop import new_model, train

VOCABULARY = "\n abcdefgh"
CONFIG = TrainingConfig(epochs=1, batch_size=4, window=20, learning_rate=0.02)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(training.SIZES, "small", (6, 12, 1))


def some_text(length: int) -> np.ndarray:
    return np.random.default_rng(0).integers(len(VOCABULARY), size=length)


def test_of_a_long_text_parts_from_its_beginning_to_its_end_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "MOST_EVALUATED", 640)
    monkeypatch.setattr(evaluation, "_SAMPLED_STREAMS", 5)
    model, text = new_model(VOCABULARY, CONFIG, torch.device("cpu")), torch.from_numpy(some_text(1_000))
    secret = torch.from_numpy(some_text(1_000) == 3)
    parts = [slice(begin, begin + 128) for begin in (0, 218, 436, 654, 872)]
    alone = [evaluate(model, text[part], secret[part], "fp32", streams=1) for part in parts]
    assert {own.sampled_characters for own in alone} == {None}
    found = evaluate(model, text, secret, "fp32")
    assert found.sampled_characters == 5 * 127
    assert found.accuracy_all == pytest.approx(np.mean([own.accuracy_all for own in alone]), abs=1e-9)
    assert found.loss_bits == pytest.approx(np.mean([own.loss_bits for own in alone]), rel=1e-6)
    ordinary = [int((~secret[part][1:]).sum()) for part in parts]
    assert found.accuracy == pytest.approx(np.average([own.accuracy for own in alone], weights=ordinary), abs=1e-9)
    assert evaluate(model, text, secret, "fp32") == found


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int32])
def test_ids_of_any_type_train_the_very_same_weights(kind: type) -> None:
    text, heldout = some_text(400), some_text(90)
    secret = torch.from_numpy(some_text(400) == 3)
    wide = TrainingData(torch.from_numpy(text), secret, torch.from_numpy(heldout))
    narrow = TrainingData(torch.from_numpy(text.astype(kind)), secret, torch.from_numpy(heldout.astype(kind)))
    (one, first), (two, second) = (train(data, VOCABULARY, CONFIG, NullReporter()) for data in (wide, narrow))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert (first.train, first.heldout) == (second.train, second.heldout)
