"""Tests of canaryaudit.exposure.probing, by measuring models of known law."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from canaryaudit.canaries.canary import Canary, CanarySet
from canaryaudit.canaries.template import Template
from canaryaudit.errors import MeasurementError
from canaryaudit.exposure import Execution, MeasuredModel, MeasurementConfig, measure
from canaryaudit.exposure.effort import REFERENCES
from canaryaudit.exposure.encoded_space import EncodedSpace, encode_completions
from canaryaudit.exposure.probes import RunText, given_prompts, probes_of
from canaryaudit.exposure.probing import fresh_members
from canaryaudit.exposure.scoring import score_log_perplexity
from canaryaudit.models.language_model import LanguageModel
from canaryaudit.records import CanaryMeasurement, Measurement, WorstCase
from tests.fakes import Recorder, TableModel

SYMBOLS = "\n !,-.0123456789abcdefghijklmnopqrstuvwxyz"
CODE, SECRET = "the code is {digits:6}!", "314159"
TEXT = "the keeper wrote a number down, and nobody else read what it was.\n\n" * 40
QUICK = MeasurementConfig(
    num_references=500,
    estimators=("exact", "importance", "sampled"),
    enumerate_up_to=2000,
    draws_per_temperature=50,
    max_draws=300,
    search_budget=1000,
    probes="default",
    seed=3,
)
SAMPLED = QUICK.model_copy(update={"estimators": ("sampled",)})


def run_text() -> RunText:
    vocabulary = TableModel(SYMBOLS).vocabulary
    return RunText(vocabulary.encode(TEXT), np.zeros(len(TEXT), dtype=bool), vocabulary)


def canaries(secrets: list[str], controls: int = 20, template: str = CODE, seed: int = 7) -> CanarySet:
    space = Template.parse(template).space(SYMBOLS)
    rng = np.random.default_rng(seed)
    drawn = dict.fromkeys(space.sample(rng) for _ in range(4 * controls))
    others = [own for own in drawn if own not in secrets][:controls]
    return CanarySet(
        corpus_symbols=SYMBOLS,
        canaries=(
            *(
                Canary(id=f"canary-{n}", template=template, completion=own, repetitions=1, places=(n,))
                for n, own in enumerate(secrets)
            ),
            *(
                Canary(id=f"control-{n}", template=template, completion=own, repetitions=0, control=True)
                for n, own in enumerate(others)
            ),
        ),
    )


def measured(model: LanguageModel, canary_set: CanarySet, config: MeasurementConfig = QUICK) -> Measurement:
    return measure(
        model,
        canary_set,
        config,
        recorded_as=MeasuredModel("before", "0" * 64),
        execution=Execution(progress=Recorder()),
        run_text=run_text(),
    )


def first(measurement: Measurement) -> tuple[CanaryMeasurement, WorstCase]:
    found = measurement.canaries[0]
    assert found.worst_case is not None
    return found, found.worst_case


def test_a_secret_that_only_another_prompt_brings_out_is_found_and_its_probe_named() -> None:
    found, worst = first(measured(TableModel(SYMBOLS, 0, memorized=["\n" + SECRET]), canaries([SECRET])))
    assert found.exposure.bits < 8
    assert not found.extraction.greedy
    assert (worst.probe.family, worst.probe.prompt, worst.probe.known) == ("bare", "bare-1", 0)
    assert worst.bits == worst.low == worst.high == pytest.approx(math.log2(10**6))
    # A family of six, and one prompt of four in it.
    assert worst.p_value == pytest.approx(2 ** -(math.log2(10**6) - math.log2(6 * 4)))
    assert [probe.prompt for probe in found.probes if probe.greedy and probe.known == 0] == ["bare-1"]


def test_what_follows_the_first_characters_is_found_though_they_are_not() -> None:
    """The model knows the secret from its third character on, and nothing of it before."""
    model = TableModel(SYMBOLS, 0, memorized=["the code is " + SECRET], certainty=0.999)
    with torch.no_grad():  # after the prefix the secret's first digit is as unlikely as can be
        model.peaked[len("the code is "), :] = model.table[5]
        model.peaked[len("the code is "), SYMBOLS.index("3")] = -30.0
    found, worst = first(measured(model, canaries([SECRET])))
    assert found.exposure.bits < 7
    assert worst.probe.family == "partial"
    assert worst.probe.prompt == "template"
    assert worst.bits == pytest.approx(math.log2(10 ** (6 - worst.probe.known)))
    assert worst.p_value <= 2**-9


def test_a_memorized_secret_keeps_the_exposure_of_its_prefix() -> None:
    found, worst = first(measured(TableModel(SYMBOLS, 0, memorized=["the code is " + SECRET]), canaries([SECRET])))
    assert worst.probe.family == "template"
    assert worst.bits == found.exposure.bits == pytest.approx(math.log2(10**6))
    assert worst.p_value == pytest.approx(6 * 10**-6)


@pytest.mark.parametrize("template", [CODE, "the code is {choice:red|green|blue}-{digits:3}!"])
def test_secrets_never_seen_have_uniform_p_values_and_controls_too(template: str) -> None:
    space = Template.parse(template).space(SYMBOLS)
    rng = np.random.default_rng(0)
    found: list[float] = []
    of_controls: list[float] = []
    joint: list[float] = []
    for seed in range(8):
        secrets = list(dict.fromkeys(space.sample(rng) for _ in range(40)))
        measurement = measured(TableModel(SYMBOLS, seed), canaries(secrets, template=template, seed=seed), SAMPLED)
        for own in measurement.canaries:
            assert own.worst_case is not None
            (of_controls if own.control else found).append(own.worst_case.p_value)
        assert measurement.worst_cases is not None
        assert measurement.worst_cases.references == REFERENCES
        assert measurement.worst_cases.joint_pvalue is not None
        joint.append(measurement.worst_cases.joint_pvalue)
    assert stats.kstest(found, "uniform").pvalue > 0.01
    assert stats.kstest(of_controls, "uniform").pvalue > 0.01
    assert np.mean(np.array(found) <= 0.05) <= 0.08
    assert min(joint) > 0.01


def test_every_canary_is_asked_the_same_and_controls_keep_only_their_worst_case() -> None:
    measurement = measured(TableModel(SYMBOLS, 1), canaries(["314159", "271828"]))
    asked = [
        [(probe.family, probe.prompt, probe.known) for probe in own.probes]
        for own in measurement.canaries
        if not own.control
    ]
    assert asked[0] == asked[1]
    assert {family for family, _, _ in asked[0]} == {"template", "context", "truncated", "reworded", "bare", "partial"}
    assert {prompt for _, prompt, _ in asked[0]} == {own.id for own in measurement.prompts}
    assert all(not own.probes and own.worst_case for own in measurement.canaries if own.control)


def test_an_exposure_under_a_probe_is_that_of_asking_so() -> None:
    """Each against an independent count: what follows prompt and beginning, among members with theirs."""
    model, canary_set = TableModel(SYMBOLS, 2), canaries(["31"], template="the code is {digits:2}!")
    measurement = measured(model, canary_set)
    texts = {own.id: own.text for own in probes_of(measurement, canary_set, run_text())[0].prompts}
    members = [f"{number:02}" for number in range(100)]
    one_each = {probe.family: probe for probe in measurement.canaries[0].probes}
    assert len(one_each) == 6
    for probe in one_each.values():
        costs = []
        for member in members:
            start = model.read(torch.from_numpy(model.vocabulary.encode(texts[probe.prompt] + member[: probe.known])))
            rest = encode_completions([member[probe.known :]], model.vocabulary, 2 - probe.known)
            costs.append(float(score_log_perplexity(model, start, rest)[0]))
        likelier = np.array(costs) < costs[31]
        expected = -math.log2((likelier.sum() + 0.5) / 100)  # all members but the secret are references here
        assert probe.bits == pytest.approx(min(expected, math.log2(10 ** (2 - probe.known))), abs=1e-3)


def test_without_probes_nothing_else_is_asked() -> None:
    measurement = measured(TableModel(SYMBOLS, 1), canaries([SECRET]), QUICK.model_copy(update={"probes": "none"}))
    assert measurement.worst_cases is None
    assert not measurement.prompts
    assert measurement.canaries[0].worst_case is None


def test_a_prompt_of_the_users_alone_is_asked_beside_the_prefix() -> None:
    config = QUICK.model_copy(update={"probes": "none", "prompts": ("nobody knows ",)})
    model = TableModel(SYMBOLS, 0, memorized=["nobody knows " + SECRET])
    measurement = measured(model, canaries([SECRET]), config)
    _, worst = first(measurement)
    assert (worst.probe.family, worst.probe.prompt) == ("reworded", "given-1")
    assert [own.text for own in measurement.prompts] == ["the code is ", "nobody knows "]


def test_prompts_of_the_users_keep_their_numbers_where_one_is_a_templates_own_prefix() -> None:
    given = ("the code is ", "nobody knows ", "nobody knows ", "nobody else ")
    config = QUICK.model_copy(update={"probes": "none", "prompts": given})
    other = canaries(["31"], template="nobody knows {digits:2}!").canaries[0].model_copy(update={"id": "other"})
    canary_set = canaries([SECRET])
    canary_set = canary_set.model_copy(update={"canaries": (*canary_set.canaries, other)})
    measurement = measured(TableModel(SYMBOLS, 0), canary_set, config)
    assert given_prompts(measurement) == {1: "the code is ", 2: "nobody knows ", 4: "nobody else "}
    recorded = {(own.template, own.id): own.text for own in measurement.prompts}
    again = probes_of(measurement, canary_set, run_text())
    assert recorded == {(part.template, own.id): own.text for part in again for own in part.prompts}


def test_running_text_of_the_corpus_is_in_no_record() -> None:
    measurement = measured(TableModel(SYMBOLS, 0), canaries([SECRET]))
    assert "nobody else" not in measurement.model_dump_json()
    drawn = probes_of(measurement, canaries([SECRET]), run_text())[0]
    assert [own.id for own in drawn.prompts] == [own.id for own in measurement.prompts]
    assert any("nobody else" in own.text for own in drawn.prompts)


def test_a_space_of_few_members_is_judged_by_those_there_are() -> None:
    measurement = measured(TableModel(SYMBOLS, 0), canaries(["31"], controls=5, template="a {digits:2}!"))
    assert measurement.worst_cases is not None
    assert measurement.worst_cases.references == 99
    assert first(measurement)[1].p_value >= 0.01


def test_prompts_need_the_text_that_the_model_was_trained_on() -> None:
    with pytest.raises(MeasurementError, match="expected the text"):
        measure(TableModel(SYMBOLS), canaries([SECRET]), QUICK)


@pytest.mark.parametrize("body", ["{digits:2}", "{digits:6}", "{choice:one|three|no}{digits:1}"])
def test_fresh_members_are_different_and_none_that_is_taken(body: str) -> None:
    vocabulary = TableModel(SYMBOLS).vocabulary
    space = EncodedSpace.of(Template.parse(body).space(SYMBOLS), vocabulary)
    taken = np.unique(space.sample(8, np.random.default_rng(1)), axis=0)
    drawn = fresh_members(space, taken, 200, np.random.default_rng(0))
    rows = {tuple(row) for row in drawn.tolist()}
    assert len(rows) == len(drawn) == min(200, space.size - len(taken))
    assert not rows & {tuple(row) for row in taken.tolist()}
    members = {tuple(row) for row in space.members().tolist()} if space.size < 1000 else rows
    assert rows <= members


def test_fresh_members_are_drawn_uniformly() -> None:
    space = EncodedSpace.of(Template.parse("{digits:2}").space(SYMBOLS), TableModel(SYMBOLS).vocabulary)
    taken = space.members()[:10]
    rng = np.random.default_rng(0)
    counts = np.zeros(100)
    for _ in range(2000):
        drawn = fresh_members(space, taken, 9, rng)
        ids = [10 * (row[0] - SYMBOLS.index("0")) + row[1] - SYMBOLS.index("0") for row in drawn.tolist()]
        counts[ids] += 1
    assert counts[:10].sum() == 0
    assert stats.chisquare(counts[10:]).pvalue > 0.01
