"""Secrets beside fresh draws: against enumeration, and calibrated over draws."""

import numpy as np
import pytest
from scipy import stats

from canaryaudit.models.char_lstm import LSTMLanguageModel
from canaryaudit.unlearning.distinguishability import FreshDrawComparison, compare_with_fresh_draws, unseen_pvalue
from canaryaudit.unlearning.occurrences import occurrences
from tests.unlearning.builders import exposures_bits, text_with_canaries, tiny_model


def test_shares_are_those_of_an_enumeration_of_the_space() -> None:
    told = [("code {digits:2}!", "12"), ("code {digits:2}!", "77"), ("key {lower:1}.", "q")]
    _, canaries, vocabulary = text_with_canaries(["a", "b", "c", "d", "e", "f", "g"], told)
    model = tiny_model(vocabulary.symbols, scale=4.0)
    places = occurrences(canaries, "", vocabulary)
    found = compare_with_fresh_draws(LSTMLanguageModel(model), places, 20_000, np.random.default_rng(0))
    assert len(found) == 3
    sizes = np.array([100, 100, 26])
    expected = 2.0 ** -exposures_bits(model, canaries) - 0.5 / sizes  # the secret itself counts half
    np.testing.assert_allclose([own.share_below for own in found], expected, atol=0.012)


def test_secrets_never_seen_stand_out_as_often_as_the_probability_says() -> None:
    rng = np.random.default_rng(1)
    distribution = rng.normal(40, 7, 100_000)
    found = [
        unseen_pvalue(
            [FreshDrawComparison(float(rng.choice(distribution)), rng.choice(distribution, 500)) for _ in range(3)]
        )
        for _ in range(2000)
    ]
    assert stats.kstest(found, "uniform").pvalue > 0.01


def test_canaries_that_share_their_draws_stand_out_hardly_more_often() -> None:
    rng = np.random.default_rng(2)
    found = []
    for _ in range(2000):
        drawn = rng.normal(size=500)
        found.append(unseen_pvalue([FreshDrawComparison(float(cost), drawn) for cost in rng.normal(size=50)]))
    assert 0.005 < np.mean(np.array(found) < 0.01) < 0.025


def test_many_canaries_of_a_template_are_compared_with_more_draws() -> None:
    told = [("code {digits:2}!", f"{number:02}") for number in range(12)]
    _, canaries, vocabulary = text_with_canaries(["a"] * 13, told)
    places = occurrences(canaries, "", vocabulary)
    found = compare_with_fresh_draws(
        LSTMLanguageModel(tiny_model(vocabulary.symbols)), places, 50, np.random.default_rng(0)
    )
    assert {len(own.drawn) for own in found} == {120}


def test_one_secret_known_by_heart_stands_out_among_others() -> None:
    drawn = np.linspace(20, 60, 500)
    middling = [FreshDrawComparison(40.0, drawn) for _ in range(5)]
    assert unseen_pvalue(middling) > 0.2
    assert unseen_pvalue([*middling, *[FreshDrawComparison(1.0, drawn)] * 2]) < 0.01
    assert FreshDrawComparison(1.0, drawn).standard_score == pytest.approx((40 - 1) / drawn.std())


def test_where_all_members_cost_the_same_nothing_stands_out() -> None:
    same = FreshDrawComparison(5.0, np.full(500, 5.0))
    assert same.share_below == pytest.approx(0.5)
    assert same.standard_score == 0
