"""Several models that predict together: against a calculation written out, and wherever one model serves."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from canaryaudit.canaries.canary import Canary, CanarySet
from canaryaudit.canaries.template import Template
from canaryaudit.errors import ModelError
from canaryaudit.exposure import MeasuredModel, MeasurementConfig, measure
from canaryaudit.exposure.encoded_space import EncodedSpace
from canaryaudit.exposure.scoring import read_prefix, score_log_perplexity
from canaryaudit.models.char_lstm import CharLSTM, LSTMLanguageModel
from canaryaudit.models.ensemble import Ensemble, EnsembleLanguageModel, as_language_model, load_model
from canaryaudit.models.weights import weights_bytes
from canaryaudit.records import ModelRecord
from canaryaudit.training.loop import evaluate
from tests.unlearning.builders import tiny_model

SYMBOLS = "\n 0123456789abcde"


def ensemble(*seeds: int) -> Ensemble:
    return Ensemble([tiny_model(SYMBOLS, seed=seed, scale=4.0) for seed in seeds]).eval()


def dense_law(model: Ensemble, prefix: str) -> np.ndarray:
    """Return the normalized geometric mean of the members' laws after a prefix, in float64."""
    symbols = torch.tensor([[SYMBOLS.index(character) for character in prefix]])
    product = np.ones(len(SYMBOLS))
    for member in model.models:
        distribution = torch.softmax(copy.deepcopy(member).double()(symbols)[0, -1], 0).detach().numpy()
        product *= distribution ** (1 / len(model.models))
    return product / product.sum()


def test_an_ensemble_reads_the_normalized_geometric_mean_of_its_members_laws() -> None:
    model = ensemble(0, 1, 2)
    reader = EnsembleLanguageModel(model)
    for prefix in ("a", "ab 0", "\nabc 123"):
        state = read_prefix(reader, prefix)
        assert np.exp2(state.log2_probs[0].numpy()) == pytest.approx(dense_law(model, prefix), rel=1e-4)
        symbols = torch.tensor([[SYMBOLS.index(character) for character in prefix]])
        trained_on = torch.softmax(model(symbols)[0, -1], 0).detach().numpy()
        assert trained_on == pytest.approx(dense_law(model, prefix), rel=1e-4)


def test_an_ensembles_log_perplexity_adds_up_step_by_step() -> None:
    model = ensemble(3, 4)
    reader = as_language_model(model)
    space = EncodedSpace.of(Template.parse("{digits:2}").space(""), reader.vocabulary)
    members = space.members()
    costs = score_log_perplexity(reader, read_prefix(reader, "ab "), members)
    for row, cost in zip(members[::17], costs[::17], strict=True):
        first, second = (SYMBOLS[symbol] for symbol in row)
        expected = dense_law(model, "ab ")[row[0]] * dense_law(model, f"ab {first}")[row[1]]
        assert cost == pytest.approx(-np.log2(expected), abs=1e-3), (first, second)


def test_an_ensemble_of_one_model_and_its_copy_is_that_model() -> None:
    one = tiny_model(SYMBOLS, seed=5, scale=4.0)
    both = Ensemble([one, tiny_model(SYMBOLS, seed=5, scale=4.0)])
    text = torch.from_numpy(np.random.default_rng(0).integers(0, len(SYMBOLS), 3000))
    alone, together = evaluate(one, text, text > 6, "fp32"), evaluate(both, text, text > 6, "fp32")
    assert (together.accuracy, together.accuracy_all) == (alone.accuracy, alone.accuracy_all)
    assert together.loss_bits == pytest.approx(alone.loss_bits, rel=1e-6)


def test_an_ensemble_is_measured_by_the_same_code() -> None:
    model = ensemble(0, 1)
    canaries = (Canary(id="canary-01", template="ab {digits:3}", completion="471", repetitions=1, places=(0,)),)
    measured = measure(
        as_language_model(model),
        CanarySet(corpus_symbols=SYMBOLS, canaries=canaries),
        MeasurementConfig(num_references=200),
        recorded_as=MeasuredModel("after-sisa"),
    )
    share = np.prod(
        [dense_law(model, f"ab {read}")[SYMBOLS.index(own)] for read, own in (("", "4"), ("4", "7"), ("47", "1"))]
    )
    assert measured.canaries[0].log_perplexity_bits == pytest.approx(-np.log2(share), abs=1e-3)
    assert measured.canaries[0].exposure.method == "exact"


def test_an_ensemble_is_written_and_read_like_a_model(tmp_path: Path) -> None:
    model, path = ensemble(0, 1, 2), tmp_path / "model.safetensors"
    path.write_bytes(weights_bytes(model))
    record = ModelRecord(architecture=model.architecture, sha256="", members=3)
    again = load_model(record, path, torch.device("cpu"))
    assert isinstance(again, Ensemble)
    assert not again.training
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))
    with pytest.raises(ModelError, match="do not match"):
        load_model(record.model_copy(update={"members": 2}), path, torch.device("cpu"))
    with pytest.raises(ModelError, match="do not match"):
        load_model(record.model_copy(update={"members": 1}), path, torch.device("cpu"))


def test_a_single_model_has_the_reader_of_one() -> None:
    model = tiny_model(SYMBOLS)
    assert isinstance(model, CharLSTM)
    assert isinstance(as_language_model(model), LSTMLanguageModel)
