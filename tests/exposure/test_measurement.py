"""Tests of canaryaudit.exposure.measurement."""

import itertools
import math
from functools import cache

import numpy as np
import pytest
import torch
from scipy import stats

from canaryaudit.canaries.canary import Canary, CanarySet
from canaryaudit.canaries.template import Template
from canaryaudit.errors import MeasurementError, UsageError
from canaryaudit.exposure import Execution, MeasuredModel, MeasurementConfig, measure
from canaryaudit.models.char_lstm import CharLSTM, LSTMLanguageModel
from canaryaudit.models.language_model import LanguageModel
from canaryaudit.records import Architecture, CanaryMeasurement, Measurement
from tests.fakes import Recorder, TableModel

SYMBOLS = "\n !-0123456789abcdefghijklmnopqrstuvwxyz"
CODE, WORD = "the code is {digits:3}-{digits:1}!", "{choice:red|green|blue} {lower:2}"
FULL = MeasurementConfig(num_references=500, draws_per_temperature=200, max_draws=1200, seed=3)
QUICK = FULL.model_copy(update={"estimators": ("exact", "importance", "sampled")})


@cache
def trained() -> LanguageModel:
    """A tiny LSTM that was shown two canaries and some noise, by a loop of this module's own."""
    torch.manual_seed(0)
    model = CharLSTM(Architecture(vocabulary=SYMBOLS, embedding=8, hidden=32, layers=1))
    rng = np.random.default_rng(0)
    lines = ["the code is 314-1!\n"] * 6 + ["red zq\n"] * 6
    lines += [
        "the code is " + "".join(map(str, rng.integers(10, size=3))) + f"-{rng.integers(10)}!\n" for _ in range(9)
    ]
    lines += [
        f"{c} {a}{b}\n"
        for c, (a, b) in zip(["red", "green", "blue"] * 2, itertools.combinations("abcd", 2), strict=True)
    ]
    ids = {symbol: number for number, symbol in enumerate(SYMBOLS)}
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(60):
        text = torch.tensor([ids[c] for c in "\n" + "".join(rng.permutation(lines))])
        loss = torch.nn.functional.cross_entropy(model(text[None, :-1])[0], text[1:])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return LSTMLanguageModel(model.eval())


def canary(name: str, template: str, completion: str, *, control: bool = False, given: bool = False) -> Canary:
    return Canary(
        id=name,
        template=template,
        completion=completion,
        repetitions=0 if control else 6,
        control=control,
        origin="given" if given else "generated",
    )


def some_controls(template: str, count: int, seed: int = 1) -> list[Canary]:
    rng, space = np.random.default_rng(seed), Template.parse(template).space(SYMBOLS)
    drawn = list(dict.fromkeys(space.sample(rng) for _ in range(3 * count)))[:count]
    return [canary(f"control-{template[:3]}-{n}", template, own, control=True) for n, own in enumerate(drawn)]


def two_templates(controls: int = 20, *, given: bool = False) -> CanarySet:
    inserted = [canary("canary-1", CODE, "314-1", given=given), canary("canary-2", WORD, "red zq")]
    return CanarySet(
        corpus_symbols=SYMBOLS,
        canaries=(*inserted, *some_controls(CODE, controls), *some_controls(WORD, controls)),
    )


def run(
    canary_set: CanarySet, config: MeasurementConfig = QUICK, model: LanguageModel | None = None, **changes: object
) -> Measurement:
    return measure(
        model or trained(),
        canary_set,
        config.model_copy(update=changes),
        recorded_as=MeasuredModel("before", "0" * 64),
        execution=Execution(progress=Recorder()),
    )


def by_id(measurement: Measurement) -> dict[str, CanaryMeasurement]:
    return {own.id: own for own in measurement.canaries}


def test_memorized_canaries_have_the_highest_exposure_and_controls_the_expected_one() -> None:
    measurement = run(two_templates(40))
    found = by_id(measurement)
    assert found["canary-1"].exposure.bits == found["canary-1"].space_bits == pytest.approx(math.log2(10**4))
    assert found["canary-2"].exposure.bits == pytest.approx(math.log2(3 * 26**2))
    assert found["canary-1"].extraction.greedy
    assert found["canary-1"].extraction.greedy_text == "314-1"
    assert (found["canary-1"].extraction.beam_rank, found["canary-1"].extraction.guesses_log2) == (1, 0)
    controls = [own.exposure.bits for own in measurement.canaries if own.control]
    assert np.mean(controls) == pytest.approx(1 / math.log(2), abs=0.6)
    assert stats.kstest(controls, "expon", args=(0, 1 / math.log(2))).pvalue > 0.01
    assert measurement.calibration is not None
    assert measurement.calibration.passed
    assert measurement.calibration.controls == 80


def test_the_record_survives_its_own_json() -> None:
    measurement = run(two_templates(3), FULL)
    assert Measurement.model_validate_json(measurement.model_dump_json()) == measurement
    assert [own.id for own in measurement.canaries] == [own.id for own in two_templates(3).canaries]
    for own in measurement.canaries:
        assert 0 <= own.exposure.low <= own.exposure.bits <= own.exposure.high <= own.space_bits
        for estimate in own.estimates.values():
            assert 0 <= estimate.low <= estimate.bits <= estimate.high <= own.space_bits
    for reference in measurement.references:
        assert sum(reference.counts) == reference.num_references
        assert len(reference.edges_bits) == len(reference.counts) + 1


def test_the_same_seed_gives_the_same_figures() -> None:
    one, two = (run(two_templates(5), FULL, enumerate_up_to=0, search_budget=20) for _ in range(2))
    assert one.model_copy(update={"cost": None}) == two.model_copy(update={"cost": None})
    other = run(two_templates(5), enumerate_up_to=0, search_budget=20, seed=4)
    assert one.canaries != other.canaries


def test_search_and_enumeration_agree() -> None:
    enumerated = run(two_templates(10), estimators=("exact",))
    searched = run(two_templates(10), estimators=("exact",), enumerate_up_to=0)
    assert (enumerated.cost.search_nodes, searched.cost.search_nodes > 0) == (0, True)
    for one, two in zip(enumerated.canaries, searched.canaries, strict=True):
        assert one.exposure == two.exposure
        assert one.exposure.method == "exact"


def test_estimates_agree_with_enumeration_where_the_search_gives_up() -> None:
    truth = by_id(run(two_templates(20), estimators=("exact",)))
    outside = undecided = 0
    for seed in range(6):
        found = by_id(run(two_templates(20), enumerate_up_to=0, search_budget=30, max_draws=10_000, seed=seed))
        for own in found.values():
            true_bits = truth[own.id].exposure.bits
            assert own.estimates["exact"].low <= true_bits <= own.estimates["exact"].high, "certified bounds"
            if "importance" in own.estimates:
                undecided += 1
                outside += not own.exposure.low - 1e-9 <= true_bits <= own.exposure.high + 1e-9
                if own.estimates["importance"].trusted:
                    assert own.estimates["importance"].bits == pytest.approx(true_bits, abs=0.2)
    assert undecided >= 120
    assert outside <= 0.1 * undecided


def test_importance_sampling_goes_on_until_the_interval_is_narrow_enough() -> None:
    coarse, fine, cut_short = (
        run(two_templates(20), enumerate_up_to=0, search_budget=30, **changes)
        for changes in ({"precision_bits": 1.0}, {"precision_bits": 0.04, "max_draws": 10**6}, {"precision_bits": 0.04})
    )

    def half_widths(measurement: Measurement) -> np.ndarray:
        estimates = (own.estimates.get("importance") for own in measurement.canaries if own.control)
        return np.array([(own.high - own.low) / 2 for own in estimates if own is not None and own.trusted])

    assert half_widths(fine).max() <= 0.04 < half_widths(cut_short).max()
    assert half_widths(cut_short).max() <= half_widths(coarse).max() <= 1.0
    assert coarse.cost.characters_scored < fine.cost.characters_scored


def test_importance_sampling_is_spared_where_every_rank_is_exact() -> None:
    measurement = run(two_templates(3))
    assert all("importance" not in own.estimates for own in measurement.canaries)
    assert all(own.exposure.method == "exact" for own in measurement.canaries)


@pytest.mark.parametrize("estimator", ["exact", "importance", "sampled"])
def test_one_estimator_is_enough_for_a_headline(estimator: str) -> None:
    measurement = run(two_templates(2), estimators=(estimator,))
    assert {own.exposure.method for own in measurement.canaries} == {estimator}
    assert all(reference.skew_normal is None for reference in measurement.references)


def test_the_skew_normal_fit_alone_is_refused() -> None:
    with pytest.raises(UsageError, match="no headline"):
        MeasurementConfig(estimators=("skew-normal",))


def test_inserted_canaries_are_not_each_others_references() -> None:
    secrets = ["1111", "2222", "3333"]
    model = TableModel(SYMBOLS, memorized=["\n" + own for own in secrets], certainty=0.99)
    canaries = [canary(f"canary-{own}", "{digits:4}", own) for own in secrets]
    for up_to in (0, 10**5):
        found = run(CanarySet(corpus_symbols=SYMBOLS, canaries=tuple(canaries)), model=model, enumerate_up_to=up_to)
        assert [own.exposure.bits for own in found.canaries] == [math.log2(10**4)] * 3
        assert all(own.estimates["sampled"].note.startswith("none of") for own in found.canaries)


def test_a_control_is_not_its_own_rival() -> None:
    """In a small space a control is among its own references many times over."""
    model = TableModel(SYMBOLS, memorized=["\n42"], certainty=0.99)
    canary_set = CanarySet(
        corpus_symbols=SYMBOLS,
        canaries=(canary("canary-1", "{digits:2}", "77"), canary("control-1", "{digits:2}", "42", control=True)),
    )
    found = by_id(run(canary_set, model=model, estimators=("sampled", "importance")))
    for estimate in found["control-1"].estimates.values():
        assert estimate.high == pytest.approx(math.log2(100))


def test_wider_spaces_are_measured_in_the_wider_alphabet() -> None:
    canary_set = two_templates(2).model_copy(update={"wider_space": "any"})
    codes = tuple(own for own in canary_set.canaries if own.template == CODE)
    measurement = run(canary_set.model_copy(update={"canaries": codes}), estimators=("sampled",))
    assert all(own.space_bits == pytest.approx(4 * math.log2(len(SYMBOLS))) for own in measurement.canaries)


def test_the_costs_of_a_secrets_characters_add_up_to_its_log_perplexity() -> None:
    for own in run(two_templates(2)).canaries:
        if own.control:
            assert own.character_bits is None
        else:
            assert own.character_bits is not None
            assert sum(own.character_bits) == pytest.approx(own.log_perplexity_bits, abs=1e-3)


# --- secrets that their owners gave ---------------------------------------------------------------------


def test_a_given_secret_is_nowhere_in_the_record() -> None:
    measurement = run(two_templates(3, given=True), FULL)
    assert by_id(measurement)["canary-1"].extraction.greedy
    assert by_id(measurement)["canary-1"].extraction.greedy_text == "•••-•"
    # Character by character, whoever has the model could put it together.
    assert by_id(measurement)["canary-1"].character_bits is None
    text = measurement.model_dump_json()
    assert "314-1" not in text
    assert "3141" not in text
    # The controls' greedy completion is the same: it must not give the secret away either.
    assert all("314" not in own.extraction.greedy_text for own in measurement.canaries if own.template == CODE)


def test_a_given_secret_one_place_off_is_not_shown_either() -> None:
    model = TableModel(SYMBOLS, memorized=["\n9876543210"], certainty=0.9)
    canary_set = CanarySet(
        corpus_symbols=SYMBOLS,
        canaries=(
            canary("canary-1", "{digits:10}", "8765432109", given=True),
            canary("canary-2", "{digits:10}", "1111111111"),
        ),
    )
    measurement = run(canary_set, model=model, estimators=("sampled",))
    assert "87654321" not in measurement.model_dump_json()
    assert not any(own.extraction.greedy for own in measurement.canaries)


# --- what cannot be measured ----------------------------------------------------------------------------


def test_a_space_that_is_all_canaries_cannot_be_measured() -> None:
    canaries = tuple(canary(f"canary-{word}", "{choice:red|green}", word) for word in ("red", "green"))
    with pytest.raises(MeasurementError, match="longer slots"):
        run(CanarySet(corpus_symbols=SYMBOLS, canaries=canaries))


def test_a_model_that_finds_everything_alike_gives_no_exposure_and_no_error() -> None:
    model = TableModel(SYMBOLS, distribution="flat")
    measurement = run(two_templates(5), FULL, model, enumerate_up_to=0, search_budget=50)
    for own in measurement.canaries:
        assert own.estimates["skew-normal"].trusted is False
        if own.template == CODE:  # The other one's completions differ in length, and so in cost.
            assert own.exposure.bits == pytest.approx(1, abs=0.05)
    assert measurement.calibration is not None


def test_a_huge_space_is_measured_like_any_other() -> None:
    template = "{[a-z0-9]:300}"
    canary_set = CanarySet(
        corpus_symbols=SYMBOLS,
        canaries=(canary("canary-1", template, "a1" * 150), canary("control-1", template, "b2" * 150, control=True)),
    )
    config = QUICK.model_copy(update={"num_references": 100, "draws_per_temperature": 20, "search_budget": 100})
    for own in run(canary_set, config, TableModel(SYMBOLS)).canaries:
        assert own.space_bits == pytest.approx(300 * math.log2(36))
        assert 0 <= own.exposure.low <= own.exposure.bits <= own.exposure.high <= own.space_bits


def test_without_controls_there_is_no_calibration() -> None:
    assert run(two_templates(0)).calibration is None


def test_progress_that_is_told_never_falls() -> None:
    """More draws move the end away; a share that fell would look like work undone."""
    progress = Recorder()
    tick = Execution("measure", progress).ticker("importance sampling")
    for done, total in ((0, 100), (89, 100), (100, 160), (120, 160), (160, 160)):
        tick(done, total)
    assert [done / total for _, done, total, _ in progress.told] == pytest.approx([0, 0.89, 0.89, 0.89, 1])
