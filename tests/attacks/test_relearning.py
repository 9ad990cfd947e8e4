"""Relearning attacks: the same batches on both models, exposures that an enumeration confirms, the stated rule."""

import copy
import hashlib
import math
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from canaryaudit.attacks import RelearningConfig, attack_by_relearning, relearning
from canaryaudit.attacks.character_learner import CharacterLearner, CharacterText, canary_window_start
from canaryaudit.attacks.relearning import AttackedModel, attack_batches, compare, finetune_and_measure
from canaryaudit.canaries.canary import Canary, CanarySet
from canaryaudit.corpus.vocabulary import Vocabulary
from canaryaudit.errors import UnlearningError, UsageError
from canaryaudit.exposure.encoded_space import encode_completions
from canaryaudit.exposure.probing import AskedProbe
from canaryaudit.exposure.scoring import read_prefix, score_log_perplexity
from canaryaudit.models.char_lstm import CharLSTM
from canaryaudit.models.ensemble import Ensemble, as_language_model
from canaryaudit.progress import NullReporter
from canaryaudit.records import Headline, ProbeName, Relearning, RelearningPoint
from canaryaudit.training.data import TrainingData
from canaryaudit.unlearning.correction import corrected_data
from canaryaudit.unlearning.decoys import Decoys
from canaryaudit.unlearning.occurrences import occurrences
from tests.unlearning.builders import exposures_bits, story, text_with_canaries, tiny_model, trained_model

WINDOW = 60
CONFIG = RelearningConfig(steps=(1, 2, 4, 8, 16), learning_rate=4e-3)


@dataclass(frozen=True)
class Case:
    """A model that knows a secret, one that was trained on corrected text, and what they were trained on."""

    knowing: CharLSTM
    retrained: CharLSTM
    data: TrainingData
    canaries: list[Canary]
    vocabulary: Vocabulary

    @property
    def canary_set(self) -> CanarySet:
        return CanarySet(corpus_symbols="", canaries=tuple(self.canaries))

    @property
    def text(self) -> CharacterText:
        return CharacterText(self.data, WINDOW)

    def contenders(self, model: CharLSTM | Ensemble) -> list[AttackedModel]:
        learners = CharacterLearner(model), CharacterLearner(self.retrained)
        return [AttackedModel(*own, self.text, "1") for own in zip(("mine", "retrain"), learners, strict=True)]

    def attack(self, model: CharLSTM | Ensemble, config: RelearningConfig = CONFIG) -> Relearning:
        contenders = self.contenders(model)
        return attack_by_relearning(
            contenders[0], contenders[1], self.canaries[:1], self.canary_set, config, NullReporter()
        )


@pytest.fixture(scope="module")
def case() -> Case:
    told = story(np.random.default_rng(0))
    pieces = ["\n\n" + "".join(told[k : k + 10]) for k in range(0, 90, 10)]
    data, canaries, vocabulary = text_with_canaries(pieces, [("the code is {digits:3}.", "471")])
    corrected = corrected_data(
        data, occurrences(canaries, "", vocabulary), Decoys(), vocabulary, np.random.default_rng(0)
    )
    knowing, retrained = (trained_model(own, vocabulary, window=WINDOW, steps=220) for own in (data, corrected))
    return Case(knowing, retrained, data, canaries, vocabulary)


@pytest.fixture(scope="module")
def attacked(case: Case) -> Relearning:
    return case.attack(case.knowing)


def bits(points: tuple[RelearningPoint, ...]) -> list[float]:
    return [point.exposure.bits for point in points]


# --- the batches


def test_every_batch_of_the_stronger_attack_holds_the_canarys_window_among_others_without_a_secret(case: Case) -> None:
    batches = attack_batches(case.text, case.canaries[0], "canary-window", CONFIG)
    assert batches.shape == (16, 8, WINDOW + 1)
    text = case.vocabulary.symbols
    for batch in batches:
        told = ["".join(text[symbol] for symbol in window) for window in batch]
        assert "the code is 471." in told[0]
        assert not any("471" in window for window in told[1:])
    other = attack_batches(case.text, case.canaries[0], "other-text", CONFIG)
    assert not any("471" in "".join(text[symbol] for symbol in window) for window in other.view(-1, WINDOW + 1))
    # What is beside the canary's window is what the other attacker trains on.
    assert torch.equal(other[:, 1:], batches[:, 1:])


def test_batches_depend_on_the_seed_alone(case: Case) -> None:
    first, again = (attack_batches(case.text, case.canaries[0], "other-text", CONFIG) for _ in range(2))
    assert torch.equal(first, again)
    another = attack_batches(case.text, case.canaries[0], "other-text", CONFIG.model_copy(update={"seed": 1}))
    assert not torch.equal(first, another)
    fewer = attack_batches(case.text, case.canaries[0], "other-text", CONFIG.model_copy(update={"steps": (2,)}))
    assert torch.equal(fewer, first[:2]), "the first steps are the same however many follow"


def test_both_models_are_trained_on_the_very_same_batches(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[object, Tensor]] = []

    def watched(learner: CharacterLearner, batches: Tensor, *rest: object) -> object:
        seen.append((learner.module, batches.clone()))
        return finetune_and_measure(learner, batches, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(relearning, "finetune_and_measure", watched)
    found = case.attack(case.knowing, CONFIG.model_copy(update={"steps": (1,)}))
    assert [model for model, _ in seen] == [case.knowing, case.retrained] * 2
    assert torch.equal(seen[0][1], seen[1][1])
    assert torch.equal(seen[2][1], seen[3][1])
    assert not torch.equal(seen[0][1], seen[2][1])
    digest = hashlib.sha256(seen[0][1].numpy().tobytes() + seen[2][1].numpy().tobytes()).hexdigest()
    assert found.batches_sha256 == digest


@pytest.mark.parametrize("place", [0, 3, 40, 100, 177])
@pytest.mark.parametrize("window", [4, 20, 30])
def test_the_canarys_window_shows_as_much_of_it_as_has_room(place: int, window: int) -> None:
    canary = Canary(id="c", template="the code is {digits:3}.", completion="471", repetitions=1, places=(place,))
    start = canary_window_start(canary, window, 200)
    assert 0 <= start <= 200 - window - 1
    end = start + window + 1
    if window >= 16:
        assert start <= place
        assert place + 16 <= end
    assert start <= place + 12
    assert place + 15 <= end


def test_without_other_text_there_is_no_attack() -> None:
    data, canaries, _ = text_with_canaries([" "] * 20, [("pin {digits:3}", "123")])
    with pytest.raises(UnlearningError, match="every window of 20 characters contains a secret: expected text"):
        attack_batches(CharacterText(data, 20), canaries[0], "other-text", CONFIG)
    with pytest.raises(UnlearningError, match="expected more than a window of 500"):
        attack_batches(CharacterText(data, 500), canaries[0], "other-text", CONFIG)


# --- the attack


def test_the_canarys_window_teaches_the_secret_to_a_model_that_never_saw_it(attacked: Relearning) -> None:
    course = bits(next(own for own in attacked.curves if own.attack == "canary-window").retrained)
    assert course[0] < 6
    assert course[-1] > course[0] + 3
    assert all(later > earlier - 1.5 for earlier, later in pairwise(course)), course


def test_a_model_that_knows_the_secret_comes_back_sooner_than_one_that_does_not(attacked: Relearning) -> None:
    curve = next(own for own in attacked.curves if own.attack == "canary-window")
    assert curve.comes_back_at == 1
    assert curve.excess_bits > 2
    assert attacked.comes_back


def test_a_retrained_model_does_not_come_back_sooner_than_itself(case: Case) -> None:
    found = case.attack(copy.deepcopy(case.retrained))
    for curve in found.curves:
        assert curve.unlearned == curve.retrained
        assert not curve.comes_back
    assert not found.comes_back


def test_exposures_are_those_of_an_enumeration_of_the_space(case: Case) -> None:
    batches = attack_batches(case.text, case.canaries[0], "canary-window", CONFIG)
    learner = CharacterLearner(case.retrained)
    states = list(finetune_and_measure(learner, batches, CONFIG, lambda own, step: (step, copy.deepcopy(own))))
    curve = next(own for own in case.attack(case.retrained).curves if own.attack == "canary-window")
    assert [step for step, _ in states] == [0, *CONFIG.steps]
    for (step, attacked), point in zip(states, curve.unlearned, strict=True):
        assert point.step == step
        assert isinstance(attacked, CharacterLearner)
        model = attacked.module
        assert isinstance(model, CharLSTM)
        assert point.exposure.method == "exact"
        assert point.exposure.bits == pytest.approx(exposures_bits(model, case.canaries)[0], abs=1e-6)


def test_the_attacked_models_are_left_as_they_are(case: Case) -> None:
    before = [copy.deepcopy(case.knowing), copy.deepcopy(case.retrained)]
    case.attack(case.knowing, CONFIG.model_copy(update={"steps": (1, 2)}))
    for model, origin in zip((case.knowing, case.retrained), before, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), origin.parameters(), strict=True))
        assert not model.training
        assert all(parameter.grad is None for parameter in model.parameters())


def test_an_ensemble_can_be_attacked(case: Case) -> None:
    both = Ensemble([case.retrained, tiny_model(case.vocabulary.symbols, hidden=48)])
    found = case.attack(both, CONFIG.model_copy(update={"steps": (1, 16)}))
    course = bits(next(own for own in found.curves if own.attack == "canary-window").unlearned)
    assert course[-1] > course[0]


def test_the_record_says_how_the_attack_was_made(attacked: Relearning) -> None:
    assert (attacked.steps, attacked.learning_rate, attacked.batch_size) == ((1, 2, 4, 8, 16), 4e-3, 8)
    assert (attacked.retrained_name, attacked.retrained_sha256, attacked.optimizer) == ("retrain", "1", "Adam")
    assert (attacked.window, attacked.unit) == (WINDOW, "character")
    assert {(curve.canary, curve.attack) for curve in attacked.curves} == {
        ("canary-01", "other-text"),
        ("canary-01", "canary-window"),
    }
    assert Relearning.model_validate_json(attacked.model_dump_json()) == attacked


# --- the rule


def course(*figures: float, half_width: float = 0.1) -> list[RelearningPoint]:
    return [
        RelearningPoint(
            step=0 if place == 0 else 2 ** (place - 1),
            log_perplexity_bits=20.0,
            exposure=Headline(bits=own, low=own - half_width, high=own + half_width, method="importance"),
        )
        for place, own in enumerate(figures)
    ]


@pytest.mark.parametrize(
    ("mine", "theirs", "half_width", "expected"),
    [
        ((1, 3, 6, 9), (1, 3, 4.5, 9), 0.1, None),  # 1.5 above, at most
        ((1, 3, 6, 9), (1, 3, 3.9, 9), 0.1, 2),  # 2.1 above after two steps
        ((1, 3, 6, 9), (1, 3, 3.9, 9), 1.5, None),  # as much, but the intervals overlap
        ((9, 3, 4, 9), (1, 2, 4, 9), 0.1, None),  # at the start it is exposure left, not exposure come back
    ],
)
def test_under_the_canarys_window_the_rule_compares_exposures(
    mine: tuple[float, ...], theirs: tuple[float, ...], half_width: float, expected: int | None
) -> None:
    points = course(*mine, half_width=half_width), course(*theirs, half_width=half_width)
    assert compare("c", "canary-window", *points).comes_back_at == expected


@pytest.mark.parametrize(
    ("mine", "theirs", "half_width", "expected"),
    [
        ((2, 2.5, 2.9), (0, 0, 0), 0.1, None),  # gains 0.9
        ((2, 2.5, 3.2), (0, 0, 0), 0.1, 2),  # gains 1.2
        ((2, 2.5, 3.2), (0, 0, 0.5), 0.1, None),  # of which the retrained model gains half a bit as well
        ((2, 2.5, 3.2), (3, 2, 1), 0.1, 2),  # that the retrained model loses some is no excuse
        ((2, 2.5, 3.2), (0, 0, 0), 0.7, None),  # its interval reaches down to that at the start
    ],
)
def test_under_other_text_the_rule_compares_what_was_gained(
    mine: tuple[float, ...], theirs: tuple[float, ...], half_width: float, expected: int | None
) -> None:
    points = course(*mine, half_width=half_width), course(*theirs, half_width=half_width)
    curve = compare("c", "other-text", *points)
    assert curve.comes_back_at == expected
    assert curve.comes_back is (expected is not None)


def test_the_largest_excess_is_told_with_its_step() -> None:
    curve = compare("c", "canary-window", course(1, 4, 6, 9), course(1, 3, 6.5, 8.5))
    assert (curve.excess_bits, curve.excess_step) == (1, 1)


@pytest.mark.parametrize("options", [{"steps": ()}, {"learning_rate": 0}, {"batch_size": 1}, {"x": 1}])
def test_a_configuration_is_checked_when_it_is_made(options: dict[str, object]) -> None:
    with pytest.raises((ValidationError, UsageError)):
        RelearningConfig.model_validate(options)


# --- the worst probe


def test_a_canary_is_attacked_under_the_worst_probe_of_each_model_too(case: Case) -> None:
    """Asked by a line break and its first digit, beside the retrained model's own worst probe."""
    canary = case.canaries[0]
    bare = AskedProbe(ProbeName(family="partial", prompt="bare-1", known=1), "\n", 1)
    tail = AskedProbe(ProbeName(family="truncated", prompt="truncated-1", known=0), "is ", 0)
    config = CONFIG.model_copy(update={"steps": (1,)})
    mine, retrained = case.contenders(case.knowing)
    found = attack_by_relearning(
        replace(mine, worst={canary.id: bare}),
        replace(retrained, worst={canary.id: tail}),
        [canary],
        case.canary_set,
        config,
        NullReporter(),
    )
    curves = {(curve.attack, curve.probe is not None): curve for curve in found.curves}
    assert len(curves) == 4
    worst = curves["canary-window", True]
    assert (worst.probe, worst.retrained_probe) == (bare.name, tail.name)
    plain = case.attack(case.knowing, config)
    assert [curve for curve in found.curves if curve.probe is None] == list(plain.curves)
    model = as_language_model(case.knowing)
    start = read_prefix(model, "\n4")
    pairs = encode_completions([f"{number:02}" for number in range(100)], model.vocabulary, 2)
    costs = score_log_perplexity(model, start, pairs)
    rank = 1 + int((costs < costs[71]).sum())
    assert worst.unlearned[0].exposure.bits == pytest.approx(math.log2(100 / rank))
    assert worst.unlearned[0].log_perplexity_bits == pytest.approx(costs[71], abs=1e-4)
    assert worst.retrained[0].exposure.bits != curves["canary-window", False].retrained[0].exposure.bits


def test_a_canary_whose_prefix_shows_most_is_attacked_by_it_alone(attacked: Relearning) -> None:
    assert {(curve.attack, curve.probe) for curve in attacked.curves} == {("canary-window", None), ("other-text", None)}
