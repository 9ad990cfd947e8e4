"""Tests of canaryaudit.exposure.closing, against a loop that reads every text whole."""

import numpy as np
import pytest
import torch
from scipy import stats

from canaryaudit.canaries.canary import CanarySet
from canaryaudit.canaries.template import Template
from canaryaudit.exposure import MeasurementConfig, measure
from canaryaudit.exposure.closing import closing_of, judge_closings
from canaryaudit.exposure.consistency import measurement_fault
from canaryaudit.exposure.effort import CLOSING_REFERENCES, LONGEST_CLOSING, plan_effort
from canaryaudit.exposure.probing import fresh_members
from canaryaudit.exposure.targets import CharacterAsker
from canaryaudit.models.char_lstm import CharLSTM, LSTMLanguageModel
from canaryaudit.models.language_model import LanguageModel
from canaryaudit.records import Architecture, Closing
from tests.exposure.test_probing import SYMBOLS, canaries
from tests.fakes import TableModel

SAID = "the code is {digits:6}, wrote she!"
VARYING = "the code is {lower:2-4}.- and so on, and so on, and so on!"
DEFAULT = MeasurementConfig()
QUICK = MeasurementConfig(num_references=300, estimators=("sampled",), seed=3)


def lstm() -> CharLSTM:
    torch.manual_seed(4)
    model = CharLSTM(Architecture(vocabulary=SYMBOLS, embedding=6, hidden=16, layers=1)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 3  # what it says then depends on what it read
    return model


def naive_cost(model: CharLSTM, template: Template, completion: str) -> float:
    """Read one whole text, and add up what its closing text's first characters cost, one by one."""
    text = template.prefix + completion + template.suffix
    ids = torch.tensor([[SYMBOLS.index(c) for c in text]])
    with torch.no_grad():
        logits = model(ids)[0].double()
    bits = 0.0
    first = len(template.prefix + completion)
    for place in range(first, min(len(text), first + 24)):
        bits -= float(torch.log_softmax(logits[place - 1], 0)[ids[0, place]]) / np.log(2)
    return bits


def closings(model: LanguageModel, canary_set: CanarySet) -> list[Closing | None]:
    return [own.closing for own in measure(model, canary_set, QUICK).canaries]


@pytest.mark.parametrize("text", [SAID, VARYING])
def test_closings_agree_with_a_loop_over_whole_texts(text: str) -> None:
    model, template = lstm(), Template.parse(text)
    rng = np.random.default_rng(0)
    secrets = list(dict.fromkeys(template.space(SYMBOLS).sample(rng) for _ in range(3)))
    canary_set = canaries(secrets, controls=5, template=text)
    asker = CharacterAsker(LSTMLanguageModel(model), canary_set)
    targets = asker.targets(text, canary_set.canaries)
    found, symbols = judge_closings(asker, targets, 40, (1, 2))
    assert symbols > 40 * min(LONGEST_CLOSING, len(template.suffix))
    fresh = fresh_members(targets.text_space, targets.text_rows, 35, np.random.default_rng((1, 2)))
    others = ["".join(SYMBOLS[symbol] for symbol in row[row >= 0]) for row in fresh]
    controls = [own.completion for own in canary_set.controls]
    cost = {own: naive_cost(model, template, own) for own in [*secrets, *controls, *others]}
    assert np.std(list(cost.values())) > 0.1
    for own, closing in zip(canary_set.canaries, found, strict=True):
        alike = [cost[other] for other in [*controls, *others] if other != own.completion]
        assert closing is not None
        assert closing.references == len(alike) == (39 if own.control else 40)
        assert closing.bits == pytest.approx(np.mean(alike) - cost[own.completion], abs=2e-3)
        likelier = sum(other <= cost[own.completion] for other in alike)
        assert closing.p_value == pytest.approx((1 + likelier) / (1 + len(alike)))


def test_secrets_never_seen_and_controls_have_uniform_p_values() -> None:
    rng, of_secrets, of_controls = np.random.default_rng(0), [], []
    for seed in range(4):
        secrets = list(dict.fromkeys(Template.parse(SAID).space(SYMBOLS).sample(rng) for _ in range(40)))
        canary_set = canaries(secrets, controls=40, template=SAID, seed=seed)
        found = closings(TableModel(SYMBOLS, seed), canary_set)
        for own, closing in zip(canary_set.canaries, found, strict=True):
            assert closing is not None
            (of_controls if own.control else of_secrets).append(closing.p_value)
    for values in (of_secrets, of_controls):
        assert stats.kstest(values, "uniform").pvalue > 0.01
        assert np.mean(np.array(values) <= 0.05) <= 0.1


def test_a_secret_that_only_what_follows_confirms_is_found_though_it_has_no_exposure() -> None:
    """The model finds the secret no likelier than others, and knows all that follows it."""
    secret, prefix = "314159", "the code is "
    model = TableModel(SYMBOLS, 0, memorized=[prefix + secret + ", wrote she!"], certainty=0.99)
    with torch.no_grad():
        for place in range(len(prefix), len(prefix + secret)):  # behind each of its digits it is unlikely
            model.peaked[place] = model.table[place]
            model.peaked[place, SYMBOLS.index(secret[place - len(prefix)])] = -8.0
    measurement = measure(model, canaries([secret, "271828"], template=SAID), QUICK)
    known, unknown = measurement.canaries[:2]
    assert known.exposure.bits < 1.5
    assert known.closing is not None
    assert known.closing.p_value == pytest.approx(1 / (1 + QUICK.num_references))
    assert known.closing.bits > 20
    assert unknown.closing is not None
    assert unknown.closing.p_value > 0.02
    assert unknown.closing.bits < 20


def test_there_is_nothing_to_follow_without_a_suffix_or_with_one_that_the_model_cannot_write() -> None:
    for text in ("the code is {digits:6}", "the code is {lower:2-4}!", "the code is {digits:6} Ω"):
        assert set(closings(TableModel(SYMBOLS, 1), canaries([], template=text))) == {None}


def test_a_record_whose_closing_does_not_follow_is_found() -> None:
    canary_set = canaries(["314159", "271828"], template=SAID)
    measurement = measure(TableModel(SYMBOLS, 1), canary_set, QUICK)
    assert measurement_fault(measurement, canary_set) == ""

    def fault(**changes: object) -> str:
        first, *others = measurement.canaries
        assert first.closing is not None
        closing = first.closing.model_copy(update=changes) if changes else None
        canaries = (first.model_copy(update={"closing": closing}), *others)
        return measurement_fault(measurement.model_copy(update={"canaries": canaries}), canary_set)

    assert "p-value is none that its references allow" in fault(p_value=0.0123)
    assert "p-value is none that its references allow" in fault(p_value=1e-9)
    assert "not read after the same members" in fault(p_value=1 / 8, references=7)
    assert "not read after the same members" in fault()
    without = canaries(["314159"], template="the code is {digits:6}")
    silent = measure(TableModel(SYMBOLS, 1), without, QUICK)
    own = tuple(own.model_copy(update={"closing": measurement.canaries[0].closing}) for own in silent.canaries)
    assert "no closing text" in measurement_fault(silent.model_copy(update={"canaries": own}), without)


def test_ties_count_as_likelier() -> None:
    assert closing_of(3.0, np.array([3.0, 3.0, 3.0])) == Closing(bits=0.0, p_value=1.0, references=3)
    assert closing_of(3.0, np.array([3.0, 2.0, 4.0, 5.0])).p_value == pytest.approx(3 / 5)


def test_fewer_references_are_read_where_little_may_be_read() -> None:
    canary_set = canaries(["314159"], template=SAID)
    space = CharacterAsker(TableModel(SYMBOLS), canary_set).targets(SAID, canary_set.canaries).space

    def references(allowed: float, config: MeasurementConfig = DEFAULT) -> int:
        return plan_effort(config, space, 1e-5, allowed=allowed, targets=21, prompts=0).closing_references

    assert [references(own) for own in (np.inf, 1e7, 5e5, 0.0)] == [CLOSING_REFERENCES, 1000, 500, 250]
    assert references(np.inf, QUICK) == references(1e7, QUICK) == QUICK.num_references
