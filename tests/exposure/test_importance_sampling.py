"""Tests of canaryaudit.exposure.importance_sampling."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from canaryaudit.errors import MeasurementError
from canaryaudit.exposure import draw_members
from canaryaudit.exposure.estimators import importance_exposure
from canaryaudit.exposure.estimators.importance import TAIL
from canaryaudit.exposure.importance_sampling import TEMPERATURES
from canaryaudit.exposure.scoring import score_log_perplexity
from tests.fakes import TableModel, encoded

SYMBOLS = "\n!-0123456789abcdef"
TEMPLATES = ("{digits:3}", "{choice:a|bb|bcd}-{hex:1}{digits:1}", "{hex:1}{choice:0|1|2-}")


def mixture_probability(model: TableModel, template: str, member: np.ndarray) -> float:
    """The mixture's probability of a member, by the definition, one symbol and temperature at a time."""
    total = 0.0
    for temperature in TEMPERATURES:
        space, state = encoded(template, model)
        node, probability = 0, 1.0
        for symbol in member[member >= 0].tolist():
            weights = {}
            for other in range(len(model.vocabulary)):
                if space.next_node[node, other] >= 0:
                    p, u = 2.0 ** float(state.log2_probs[0, other]), float(space.shares[node, other])
                    weights[other] = p ** (1 / temperature) * u ** (1 - 1 / temperature)
            probability *= weights[symbol] / sum(weights.values())
            node = int(space.next_node[node, symbol])
            state = model.advance(state, torch.tensor([symbol]))
        total += probability / len(TEMPERATURES)
    return total


@pytest.mark.parametrize("template", TEMPLATES)
def test_weights_are_the_reciprocal_mixture_probabilities(template: str) -> None:
    model = TableModel(SYMBOLS, 5, memorized=["012"], certainty=0.9)
    space, start = encoded(template, model)
    draws = draw_members(model, start, space, 20, np.random.default_rng(0))
    for row in range(0, len(draws.bits), 7):
        expected = -math.log2(mixture_probability(model, template, draws.completions[row]))
        assert draws.log2_weights[row] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("template", TEMPLATES)
def test_draws_are_members_and_cost_what_the_scorer_says(template: str) -> None:
    model = TableModel(SYMBOLS, 6, memorized=["012"], certainty=0.9)
    space, start = encoded(template, model)
    draws = draw_members(model, start, space, 300, np.random.default_rng(1))
    members = {tuple(row) for row in space.members().tolist()}
    assert {tuple(row) for row in draws.completions.tolist()} <= members
    np.testing.assert_array_equal(draws.bits, score_log_perplexity(model, start, draws.completions))
    assert np.bincount(draws.strata).tolist() == [300] * len(TEMPERATURES)


@pytest.mark.parametrize("template", TEMPLATES)
def test_weights_sum_to_the_size_of_the_space(template: str) -> None:
    model = TableModel(SYMBOLS, 7, memorized=["012"], certainty=0.99)
    space, start = encoded(template, model)
    draws = draw_members(model, start, space, 2_000, np.random.default_rng(2))
    shares = np.exp2(draws.log2_weights - space.bits)
    assert shares.mean() == pytest.approx(1, abs=4 * shares.std() / math.sqrt(len(shares)))
    assert shares.std() > 0.1


def test_the_last_temperature_draws_uniformly_and_the_first_like_the_model() -> None:
    model = TableModel(SYMBOLS, 8, memorized=["7"], certainty=0.9)
    space, start = encoded("{digits:1}", model)
    draws = draw_members(model, start, space, 20_000, np.random.default_rng(3))
    own = np.exp2(start.log2_probs[0].double().numpy()) * (space.next_node[0] >= 0)
    uniform = (space.next_node[0] >= 0) / 10
    for stratum, distribution in ((0, own / own.sum()), (len(TEMPERATURES) - 1, uniform)):
        counts = np.bincount(draws.completions[draws.strata == stratum, 0], minlength=len(distribution))
        np.testing.assert_allclose(counts / 20_000, distribution, atol=4 * math.sqrt(0.25 / 20_000))


def test_the_same_seed_gives_the_same_draws() -> None:
    model = TableModel(SYMBOLS, 9)
    space, start = encoded("{digits:4}", model)
    one, two = (draw_members(model, start, space, 50, np.random.default_rng(4)) for _ in range(2))
    np.testing.assert_array_equal(one.completions, two.completions)
    np.testing.assert_array_equal(one.log2_weights, two.log2_weights)


def test_no_likelier_draw_leaves_the_rank_uncertain() -> None:
    """A normal interval would have no width here."""
    estimate = importance_exposure(1.0, [5.0, 6, 7, 8], 20.0, log2_weights=np.full(4, 8.0), strata=[0, 0, 1, 1])
    assert (estimate.bits, estimate.high) == (20.0, 20.0)
    assert estimate.low == pytest.approx(20 - math.log2(1 + 2**8 * -math.log(TAIL) / 4))
    assert not estimate.trusted
    assert "effective sample size 0" in estimate.note


def test_equal_weights_give_poisson_counts_interval() -> None:
    """40 of 4,000 draws that weigh the same: a Poisson count's interval (Garwood 1936), by chi-square quantiles."""
    bits = np.r_[np.zeros(40), np.full(3960, 9.0)]
    strata = np.random.default_rng(0).permutation(np.repeat([0, 1], 2000))
    estimate = importance_exposure(1.0, bits, 30.0, log2_weights=np.full(4000, 30.0), strata=strata)
    low, high = (stats.chi2.ppf(TAIL, 80) / 2, stats.chi2.ppf(1 - TAIL, 82) / 2)
    assert estimate.bits == pytest.approx(-math.log2(40 / 4000), abs=1e-6)
    assert estimate.high == pytest.approx(-math.log2(low / 4000), abs=0.01)
    assert estimate.low == pytest.approx(-math.log2(high / 4000), abs=0.01)


def test_few_effective_draws_are_not_trusted_and_many_are() -> None:
    bits = np.arange(1000.0)
    assert importance_exposure(500.0, bits, 30.0, log2_weights=np.full(1000, 30.0)).trusted
    lopsided = np.where(np.arange(1000) == 3, 30.0, 10.0)
    assert not importance_exposure(500.0, bits, 30.0, log2_weights=lopsided).trusted
    assert not importance_exposure(50.0, bits, 30.0, log2_weights=np.full(1000, 30.0)).trusted


def test_huge_spaces_do_not_overflow() -> None:
    bits, strata = np.arange(1000.0), np.zeros(1000, dtype=int)
    estimate = importance_exposure(500.0, bits, 5000.0, log2_weights=np.full(1000, 5000.0), strata=strata)
    assert estimate.bits == pytest.approx(-math.log2(0.5005))
    assert 0 < estimate.low < estimate.bits < estimate.high < 5000


def test_one_draw_is_too_few() -> None:
    with pytest.raises(MeasurementError, match="draws: expected 2 or more numbers, got 1"):
        importance_exposure(1.0, np.ones(1), 8.0, log2_weights=np.ones(1))
