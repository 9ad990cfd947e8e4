"""All estimators on spaces of words agree with an enumeration written here from scratch."""

import math
from functools import cache
from itertools import product

import numpy as np
import pytest
import torch

from canaryaudit.canaries.canary import Canary, CanarySet
from canaryaudit.canaries.word_lists import WordList
from canaryaudit.exposure import MeasurementConfig, measure
from canaryaudit.models.language_model import PrefixState
from canaryaudit.records import CanaryMeasurement
from tests.fakes import TableModel

SYMBOLS = "\n ,.abcdefghijklmnopqrstuvwxyz"
PHRASE, SENTENCE = "seed {words:w} {words:w},{words:w}.", "{words:refs}\n"


@cache
def words() -> tuple[str, ...]:
    """Eighteen words of one to five letters of an alphabet of three; many begin others."""
    rng = np.random.default_rng(5)
    drawn = ("".join(rng.choice([*"abc"], size=rng.integers(1, 6))) for _ in range(60))
    return tuple(dict.fromkeys(drawn))[:18]


@cache
def references() -> tuple[str, ...]:
    """Three hundred sentences of very different lengths."""
    rng = np.random.default_rng(6)
    drawn = ("".join(rng.choice([*"abcd ., "], size=rng.integers(2, 30))).strip() for _ in range(900))
    return tuple(dict.fromkeys(text for text in drawn if text))[:300]


def members(template: str) -> list[str]:
    if template == SENTENCE:
        return [text + "\n" for text in references()]
    return [f"{x} {y},{z}." for x, y, z in product(words(), repeat=3)]


PREFIX = {PHRASE: "seed ", SENTENCE: "\n"}


@cache
def model() -> TableModel:
    return TableModel(SYMBOLS, 3, "markov", memorized=[PREFIX[own] + members(own)[17] for own in (PHRASE, SENTENCE)])


@cache
def state_after(text: str) -> PrefixState:
    nothing = torch.zeros(0, dtype=torch.long)
    return (
        model().advance(state_after(text[:-1]), torch.tensor([SYMBOLS.index(text[-1])]))
        if text
        else model().read(nothing)
    )


def bits_of(prefix: str, text: str) -> float:
    """Add up what each symbol costs, one at a time."""
    costs = (state_after(prefix + text[:place]).log2_probs[0, SYMBOLS.index(c)] for place, c in enumerate(text))
    return -sum(float(cost) for cost in costs)


@cache
def true_exposures(template: str) -> dict[str, float]:
    """Return the exposure of some members by the definition: their rank among all, the other canaries left out."""
    every = members(template)
    # A sixth decimal, since costs that were added up in another order are equal to no more.
    costs = {text: round(bits_of(PREFIX[template], text), 6) for text in every}
    inserted = chosen(template)[:2]
    found = {}
    for text in chosen(template):
        others = [costs[own] for own in every if own != text and own not in inserted]
        rank = 1 + sum(cost < costs[text] for cost in others) + sum(cost == costs[text] for cost in others) / 2
        found[text] = math.log2(len(every)) - math.log2(rank)
    return found


def chosen(template: str) -> list[str]:
    """Return two canaries, of which the model knows the first, and ten controls."""
    every = members(template)
    return [
        every[17],
        *(every[index] for index in np.random.default_rng(7).permutation(len(every))[:11] if index != 17),
    ]


def canary_set() -> CanarySet:
    canaries = [
        Canary(
            id=f"{template[:3].strip()}-{index:02}",
            template=template,
            completion=completion,
            repetitions=int(index < 2),
            control=index >= 2,
        )
        for template in (PHRASE, SENTENCE)
        for index, completion in enumerate(chosen(template))
    ]
    lists = (WordList(name="w", words=words()), WordList(name="refs", words=references()))
    return CanarySet(corpus_symbols=SYMBOLS, word_lists=lists, canaries=tuple(canaries))


def measured(**options: object) -> dict[tuple[str, str], CanaryMeasurement]:
    config = MeasurementConfig.model_validate(
        {"num_references": 4_000, "draws_per_temperature": 500, "max_draws": 12_000, "seed": 3, "time_limit": 0}
        | options
    )
    made = measure(model(), canary_set(), config)
    return {
        (own.template, own.completion): found for own, found in zip(canary_set().canaries, made.canaries, strict=True)
    }


@pytest.mark.parametrize("enumerate_up_to", [0, 100_000])
def test_search_and_enumeration_give_the_rank_by_the_definition(enumerate_up_to: int) -> None:
    found = measured(estimators=("exact",), enumerate_up_to=enumerate_up_to, search_budget=200_000)
    for template in (PHRASE, SENTENCE):
        assert found[template, chosen(template)[0]].space_bits == math.log2(len(members(template)))
        for text, exposure in true_exposures(template).items():
            own = found[template, text].exposure
            assert (own.method, own.low == own.high) == ("exact", True)
            assert own.bits == pytest.approx(exposure, abs=1e-3)
        assert true_exposures(template)[members(template)[17]] > math.log2(len(members(template))) - 0.01


def test_sampling_estimates_hold_the_rank_by_the_definition() -> None:
    """95 % intervals of 24 members by two estimators: at most four of the 48 miss."""
    found = measured(estimators=("importance", "sampled", "skew-normal"), enumerate_up_to=0)
    missed = 0
    for template in (PHRASE, SENTENCE):
        for text, exposure in true_exposures(template).items():
            estimates = found[template, text].estimates
            for name in ("importance", "sampled"):
                missed += not estimates[name].low - 1e-6 <= exposure <= estimates[name].high + 1e-6
            assert estimates["importance"].bits == pytest.approx(exposure, abs=0.5)
            if exposure < 5:
                # A fitted curve: the costs of words of different lengths are no skew-normal distribution.
                assert estimates["skew-normal"].bits == pytest.approx(exposure, abs=1.5)
    assert missed <= 4
