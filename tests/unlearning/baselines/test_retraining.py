"""Training again, training further and training by shards: on a small model that learned secrets by heart."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from canaryaudit.canaries.canary import Canary, CanarySet
from canaryaudit.corpus.vocabulary import Vocabulary
from canaryaudit.errors import Inconclusive, UnlearningError
from canaryaudit.models.char_lstm import CharLSTM
from canaryaudit.models.ensemble import Ensemble
from canaryaudit.progress import NullReporter
from canaryaudit.training import loop as training
from canaryaudit.training.config import TrainingConfig
from canaryaudit.training.data import TrainingData
from canaryaudit.training.loop import evaluate, train
from canaryaudit.unlearning import UnlearningResult
from canaryaudit.unlearning.baselines import retraining as baselines
from canaryaudit.unlearning.baselines.retraining import BaselineConfig, Original, training_of, unlearn_by_training
from canaryaudit.unlearning.baselines.sisa import shard_bounds
from canaryaudit.unlearning.correction import corrected_data
from canaryaudit.unlearning.decoys import Corrected, Decoys
from canaryaudit.unlearning.occurrences import occurrences
from canaryaudit.unlearning.replacement import Deletion
from tests.fakes import Recorder
from tests.unlearning.builders import exposures_bits, story, text_with_canaries

CONFIG = TrainingConfig(epochs=45, batch_size=8, window=50, learning_rate=1e-2)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True, scope="module")
def small_models() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(training.SIZES, "small", (8, 40, 1))
        yield


@dataclass(frozen=True)
class Case:
    """A trained model, its text, and the canaries in it; the second stands in the first half only."""

    original: Original
    canaries: list[Canary]
    vocabulary: Vocabulary

    def unlearn(
        self, place: Path, chosen: list[Canary] | None = None, progress: object = None, **options: object
    ) -> UnlearningResult:
        """Unlearn; ``place`` is where trainings keep what they go on from."""

        def workplace(shard: int | None = None, *, corrected: bool = False) -> Path:
            return place / ("checkpoint" if shard is None else f"{shard}{'-again' if corrected else ''}")

        return unlearn_by_training(
            self.original,
            self.canaries if chosen is None else chosen,
            CanarySet(corpus_symbols="", canaries=tuple(self.canaries)),
            BaselineConfig.model_validate({"max_fidelity_drop": 0.05, **options}),
            workplace,
            progress or Recorder(),
        )

    def corrected(self, seed: int = 0) -> TrainingData:
        """Return the corrected text as the request draws it."""
        places = occurrences(self.canaries, "", self.vocabulary)
        return corrected_data(self.original.data, places, Decoys(), self.vocabulary, np.random.default_rng(seed))


def make_case(config: TrainingConfig = CONFIG) -> Case:
    told = story(np.random.default_rng(0))
    pieces = ["\n\n" + "".join(told[k : k + 10]) for k in range(0, 90, 10)]
    data, canaries, vocabulary = text_with_canaries(
        pieces, [("the code is {digits:3}.", "471"), ("pin {digits:3}!", "806")]
    )
    held = vocabulary.encode("".join(story(np.random.default_rng(1)))[:800])
    data = TrainingData(data.train, data.secret, torch.from_numpy(held))
    model, record = train(data, vocabulary.symbols, config, NullReporter())
    return Case(Original(model, data, training_of(record, CPU), record), canaries, vocabulary)


@pytest.fixture(scope="module")
def case() -> Case:
    return make_case()


QUICK = CONFIG.model_copy(update={"epochs": 4})


@pytest.fixture(scope="module")
def quick(case: Case) -> Case:
    """The case with few epochs for whatever is trained again, where it is not the question what that learns."""
    return replace(case, original=replace(case.original, training=QUICK))


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_the_model_learned_the_secrets_by_heart(case: Case) -> None:
    assert (exposures_bits(case.original.model, case.canaries) > 7.5).all()


# --- the corrected text


def test_the_corrected_text_differs_in_the_secrets_places_alone(case: Case) -> None:
    data, corrected = case.original.data, case.corrected()
    assert torch.equal(corrected.train[~data.secret], data.train[~data.secret])
    assert torch.equal(corrected.secret, data.secret)
    assert torch.equal(corrected.heldout, data.heldout)
    drawn = {tuple(code) for code in corrected.train[data.secret].reshape(-1, 3).tolist()}
    assert len(drawn) >= 6, "a fresh decoy for every occurrence"


def test_a_replacement_of_another_length_moves_what_follows() -> None:
    data, canaries, vocabulary = text_with_canaries(["ab ", " cd ", " ef"], [("pin {digits:3}!", "806")])

    class Shorter(Decoys):
        def correct(self, *_: object) -> list[Corrected]:
            symbols = torch.from_numpy(vocabulary.encode("ab"))[None].long()
            return [Corrected(symbols, torch.zeros(1, 2, len(vocabulary)))]

    places = occurrences(canaries, "", vocabulary)
    corrected = corrected_data(data, places, Shorter(), vocabulary, np.random.default_rng(0))
    assert "".join(vocabulary.symbols[i] for i in corrected.train) == "ab pin ab! cd pin ab! ef"
    assert "".join("x" if own else "." for own in corrected.secret) == ".......xx.........xx...."
    assert len(corrected.secret) == len(corrected.train)


# --- retraining


def test_retraining_is_training_on_the_corrected_text_bit_for_bit(case: Case, tmp_path: Path) -> None:
    result = case.unlearn(tmp_path, method="retrain", max_fidelity_drop=1.0, seed=3)
    expected, record = train(case.corrected(3), case.vocabulary.symbols, CONFIG, NullReporter())
    assert same_weights(result.model, expected)
    assert (exposures_bits(expected, case.canaries) < 6).all()
    assert result.cost.gradients == pytest.approx(record.seconds * record.characters_per_second / CONFIG.window)
    assert result.cost.curvature_products == 0
    assert result.cost.retraining_seconds == case.original.record.seconds
    assert result.affected_windows + result.retention_windows == -(
        -(len(case.original.data.train) - 1) // CONFIG.window
    )
    assert result.notes == ()


def test_an_interrupted_retraining_goes_on_to_the_very_same_weights(
    quick: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = quick.unlearn(tmp_path / "whole", method="retrain", max_fidelity_drop=1.0)
    with pytest.raises(KeyboardInterrupt):
        quick.unlearn(tmp_path / "parts", progress=Recorder(interrupt_after=2), method="retrain", max_fidelity_drop=1.0)
    progress = Recorder()
    resumed = quick.unlearn(tmp_path / "parts", progress=progress, method="retrain", max_fidelity_drop=1.0)
    assert any("Resuming from a checkpoint" in said for said in progress.said)
    assert same_weights(resumed.model, whole.model)


def test_retraining_has_the_originals_cycle_where_a_target_ended_it_early() -> None:
    config = CONFIG.model_copy(update={"epochs": 40, "target_accuracy": 0.1})
    early = make_case(config)
    assert early.original.record.epochs < 40
    assert early.original.training == config


def test_a_retrained_model_is_brought_to_the_originals_accuracy_or_refused(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = replace(case, original=replace(case.original, training=CONFIG.model_copy(update={"epochs": 12})))
    bare = few.unlearn(tmp_path / "a", method="retrain", max_fidelity_drop=1.0)
    lost = bare.fidelity.train_accuracy_before - bare.fidelity.train_accuracy_after
    assert lost > 0.02
    topped = few.unlearn(tmp_path / "b", method="retrain", max_fidelity_drop=lost - 1e-6)
    assert topped.fidelity.train_accuracy_after > bare.fidelity.train_accuracy_after
    assert "to reach the original accuracy" in topped.notes[0]
    assert topped.cost.gradients > bare.cost.gradients
    with pytest.raises(
        Inconclusive, match=r"the retrained model has accuracy .* exceeds the limit of 1e-05, so nothing was"
    ):
        few.unlearn(tmp_path / "c", method="retrain", max_fidelity_drop=1e-5)


# --- fine-tuning


def test_fine_tuning_lowers_the_exposure_of_a_secret_known_by_heart(case: Case, tmp_path: Path) -> None:
    before = copy.deepcopy(case.original.model)
    result = case.unlearn(tmp_path, method="fine-tune")
    assert isinstance(result.model, CharLSTM)
    assert exposures_bits(result.model, case.canaries).mean() < exposures_bits(before, case.canaries).mean() - 1
    assert result.fidelity.train_accuracy_before - result.fidelity.train_accuracy_after <= 0.05
    assert same_weights(case.original.model, before)
    assert not list(tmp_path.iterdir()), "a few epochs keep nothing to go on from"


def test_fine_tuning_stops_where_secrets_cost_what_fresh_draws_cost(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([5.0, 0.9, 0.0])
    monkeypatch.setattr(baselines._Request, "standard_score", lambda *_: next(scores))
    result = case.unlearn(tmp_path, method="fine-tune")
    assert (
        result.notes[0]
        == "stopped after 2 epochs: the secrets' log-perplexity was 0.9 standard deviations below random draws"
    )
    one_pass = len(case.original.data.train) / CONFIG.window
    assert result.cost.gradients == pytest.approx(2 * one_pass, rel=0.05)
    monkeypatch.setattr(baselines._Request, "standard_score", lambda *_: 5.0)
    assert case.unlearn(tmp_path, method="fine-tune").notes[0].startswith("stopped after 4 epochs, the maximum")


def test_a_memorized_secret_stands_far_below_fresh_draws(case: Case) -> None:
    def score(model: CharLSTM) -> float:
        places = occurrences(case.canaries, "", case.vocabulary)
        config = BaselineConfig(method="fine-tune")
        request = baselines._Request(case.original, places, [], Decoys(), config, None, None, None)  # type: ignore[arg-type]
        return request.standard_score(model)

    assert score(case.original.model) > 2
    fresh, _ = train(case.corrected(), case.vocabulary.symbols, CONFIG, NullReporter())
    assert abs(score(fresh)) < 1.5


def test_fine_tuning_over_the_limit_is_scaled_back_or_refused(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baselines, "FINE_TUNING_RATE", 8.0)
    monkeypatch.setattr(baselines, "MOST_EPOCHS", 1)
    with pytest.raises(Inconclusive, match="even when scaled back to a quarter") as refused:
        case.unlearn(tmp_path, method="fine-tune", max_fidelity_drop=1e-9)
    assert str(refused.value).endswith("raise --max-fidelity-drop")  # and no option that fine-tuning refuses
    whole = case.unlearn(tmp_path, method="fine-tune", max_fidelity_drop=1.0)
    lost = whole.fidelity.train_accuracy_before - whole.fidelity.train_accuracy_after
    scaled = case.unlearn(tmp_path, method="fine-tune", max_fidelity_drop=lost * 0.9)
    assert any("scaled back to" in note for note in scaled.notes)


# --- shards


def shards_of(result: UnlearningResult) -> list[CharLSTM]:
    assert isinstance(result.model, Ensemble)
    return result.model.models


def test_only_shards_that_hold_a_chosen_secret_are_trained_again(quick: Case, tmp_path: Path) -> None:
    """The request is for one occurrence in the text's middle, as if it had been the only one."""
    only = [quick.canaries[0].model_copy(update={"places": quick.canaries[0].places[:1], "repetitions": 1})]
    result = quick.unlearn(tmp_path, only, method="sisa", shards=4, max_fidelity_drop=1.0)
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {"0", "1", "2", "3", "0-again"} <= set(kept)
    assert not {"1-again", "2-again", "3-again"} & set(kept)
    assert result.notes[0] == "1 of 4 shards were retrained"
    progress = Recorder()
    again = quick.unlearn(tmp_path, only, progress, method="sisa", shards=4, max_fidelity_drop=1.0, seed=9)
    assert [said for said in progress.said if said.startswith("Training")] == [
        "Training shard 1 again, without the secrets."
    ]
    first, second = shards_of(result), shards_of(again)
    assert [same_weights(a, b) for a, b in zip(first, second, strict=True)] == [False, True, True, True]
    assert {name: (tmp_path / name).read_bytes() for name in "0123"} == {name: kept[name] for name in "0123"}


def test_each_shard_is_the_model_trained_on_its_part_alone(quick: Case, tmp_path: Path) -> None:
    result = quick.unlearn(tmp_path, quick.canaries[:1], method="sisa", shards=2, max_fidelity_drop=1.0, seed=1)
    data, newline = quick.original.data, quick.vocabulary.symbols.index("\n")
    bounds = shard_bounds(data.train.numpy(), newline, quick.canaries, 2, QUICK.window)
    for index, (start, end) in enumerate(bounds):
        inside = [
            replace(place, start=place.start - start)
            for place in occurrences(quick.canaries[:1], "", quick.vocabulary)
            if start <= place.start < end
        ]
        part = TrainingData(data.train[start:end], data.secret[start:end], data.heldout[:0])
        part = corrected_data(part, inside, Decoys(), quick.vocabulary, np.random.default_rng((1, index)))
        expected, _ = train(part, quick.vocabulary.symbols, QUICK.model_copy(update={"seed": index}), NullReporter())
        assert same_weights(shards_of(result)[index], expected)


def test_the_first_training_of_shards_is_told_apart_from_the_request(quick: Case, tmp_path: Path) -> None:
    result = quick.unlearn(tmp_path, method="sisa", shards=3, max_fidelity_drop=1.0)
    cost = result.cost
    assert cost.preparation_seconds > 0
    # All three shards hold a secret: the request takes what the first training took.
    assert cost.gradients == pytest.approx(cost.preparation_gradients, rel=0.02)
    again = quick.unlearn(tmp_path, method="sisa", shards=3, max_fidelity_drop=1.0)
    assert again.cost.preparation_seconds == cost.preparation_seconds
    assert same_weights(again.model, result.model)
    # The fidelity is the ensemble's against the run's own model, by the same evaluation.
    alone = evaluate(quick.original.model, quick.original.data.train, quick.original.data.secret, "fp32")
    assert result.fidelity.train_accuracy_before == alone.accuracy
    whole = evaluate(result.model, quick.original.data.train, quick.original.data.secret, "fp32")
    assert result.fidelity.train_accuracy_after == whole.accuracy


def test_an_ensemble_over_the_limit_is_refused_before_anything_is_trained_again(quick: Case, tmp_path: Path) -> None:
    with pytest.raises(
        Inconclusive, match=r"the ensemble of 3 shards .* --max-fidelity-drop 0\.\d+ or use fewer --shards"
    ):
        quick.unlearn(tmp_path, method="sisa", shards=3, max_fidelity_drop=1e-6)
    assert {path.name for path in tmp_path.iterdir()} >= {"0", "1", "2"}
    assert not any(path.name.endswith("again") for path in tmp_path.iterdir())


def test_a_damaged_shard_is_trained_anew(quick: Case, tmp_path: Path) -> None:
    whole = quick.unlearn(tmp_path, method="sisa", shards=2, max_fidelity_drop=1.0)
    (tmp_path / "1").write_bytes(b"damaged")
    progress = Recorder()
    again = quick.unlearn(tmp_path, None, progress, method="sisa", shards=2, max_fidelity_drop=1.0)
    assert any("is damaged; retraining it" in said for said in progress.said)
    assert same_weights(again.model, whole.model)


@pytest.mark.parametrize("moment", [2, 9, 14])
def test_an_interrupted_training_of_shards_goes_on_to_the_very_same_weights(
    quick: Case, tmp_path: Path, moment: int
) -> None:
    options = {"method": "sisa", "shards": 2, "max_fidelity_drop": 1.0}
    whole = quick.unlearn(tmp_path / "whole", **options)
    with pytest.raises(KeyboardInterrupt):
        quick.unlearn(tmp_path / "parts", progress=Recorder(interrupt_after=moment), **options)
    assert same_weights(quick.unlearn(tmp_path / "parts", **options).model, whole.model)


def test_shards_are_cut_at_line_breaks_and_never_inside_a_canary() -> None:
    text = "one\n" * 60 + "pin 8\n6!\n" + "two\n" * 60
    vocabulary = Vocabulary.of([text])
    canary = Canary(id="canary-01", template="pin {any:3}!", completion="8\n6", repetitions=1, places=(240,))
    symbols, newline = vocabulary.encode(text), vocabulary.symbols.index("\n")
    for shards in (2, 3, 7):
        bounds = shard_bounds(symbols, newline, [canary], shards, 4)
        assert bounds[0][0] == 0
        assert bounds[-1][1] == len(text)
        assert all(a[1] == b[0] for a, b in pairwise(bounds))
        for start, _ in bounds[1:]:
            assert text[start - 1] == "\n"
            assert not 240 < start < 248
        lengths = [end - start for start, end in bounds]
        assert max(lengths) - min(lengths) <= 20
    unbroken = shard_bounds(np.zeros(100, dtype=np.int64), -1, [], 4, 5)
    assert [end - start for start, end in unbroken] == [25, 25, 25, 25]


def test_too_many_shards_are_an_error(case: Case, tmp_path: Path) -> None:
    with pytest.raises(UnlearningError, match=r"of 80 shards of .* characters has \d+: expected at least 102;"):
        case.unlearn(tmp_path, method="sisa", shards=80)


# --- requests that cannot be carried out


def test_a_request_for_no_canary_or_for_a_control_is_an_error(case: Case, tmp_path: Path) -> None:
    with pytest.raises(UnlearningError, match="no canary to unlearn"):
        case.unlearn(tmp_path, [], method="retrain")
    control = Canary(id="control-01", template="pin {digits:3}!", completion="123", repetitions=0, control=True)
    with pytest.raises(UnlearningError, match="control-01 does not occur in the text"):
        case.unlearn(tmp_path, [control], method="sisa")


@pytest.mark.parametrize("options", [{"method": "second-order"}, {"shards": 1}, {"max_fidelity_drop": 0}, {"x": 1}])
def test_a_configuration_is_checked_when_it_is_made(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        BaselineConfig.model_validate({"method": "sisa", **options})


def test_after_deletion_the_corrected_text_is_without_the_sentence() -> None:
    data, canaries, vocabulary = text_with_canaries(["One. ", " Two. ", " Three."], [("The pin is {digits:3}.", "806")])
    places = occurrences(canaries, "", vocabulary)
    corrected = corrected_data(data, places, Deletion(), vocabulary, np.random.default_rng(0))
    assert "".join(vocabulary.symbols[i] for i in corrected.train) == "One. Two. Three."
    assert not corrected.secret.any()
