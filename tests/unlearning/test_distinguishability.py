"""Secrets beside fresh draws, against enumeration."""

import numpy as np
import pytest

from canaryaudit.models.char_lstm import LSTMLanguageModel
from canaryaudit.unlearning.distinguishability import FreshDrawComparison, compare_with_fresh_draws
from canaryaudit.unlearning.occurrences import occurrences
from tests.unlearning.builders import exposures_bits, text_with_canaries, tiny_model


def test_costs_are_those_of_an_enumeration_of_the_space() -> None:
    told = [("code {digits:2}!", "12"), ("code {digits:2}!", "77"), ("key {lower:1}.", "q")]
    _, canaries, vocabulary = text_with_canaries(["a", "b", "c", "d", "e", "f", "g"], told)
    model = tiny_model(vocabulary.symbols, scale=4.0)
    places = occurrences(canaries, "", vocabulary)
    found = compare_with_fresh_draws(LSTMLanguageModel(model), places, 20_000, np.random.default_rng(0))
    assert len(found) == 3
    sizes = np.array([100, 100, 26])
    expected = 2.0 ** -exposures_bits(model, canaries) - 1 / sizes
    np.testing.assert_allclose([(own.drawn < own.cost).mean() for own in found], expected, atol=0.012)


def test_many_canaries_of_a_template_are_compared_with_more_draws() -> None:
    told = [("code {digits:2}!", f"{number:02}") for number in range(12)]
    _, canaries, vocabulary = text_with_canaries(["a"] * 13, told)
    places = occurrences(canaries, "", vocabulary)
    found = compare_with_fresh_draws(
        LSTMLanguageModel(tiny_model(vocabulary.symbols)), places, 50, np.random.default_rng(0)
    )
    assert {len(own.drawn) for own in found} == {120}


def test_the_standard_score_is_the_distance_below_the_draws() -> None:
    drawn = np.linspace(20, 60, 500)
    assert FreshDrawComparison(1.0, drawn).standard_score == pytest.approx((40 - 1) / drawn.std())
    assert FreshDrawComparison(5.0, np.full(500, 5.0)).standard_score == 0
