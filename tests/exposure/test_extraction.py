"""Tests of canaryaudit.exposure.extraction."""

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canaryaudit.errors import MeasurementError
from canaryaudit.exposure.extraction import (
    SAMPLE_COUNTS,
    beam_completions,
    even_chance_log2,
    extraction,
    greedy_completion,
    log2_sampled,
)
from canaryaudit.records import Headline
from tests.fakes import TableModel, encoded, every_member

SYMBOLS = "\n!-0123456789abcdef"


def test_the_greedy_completion_takes_the_likeliest_symbol_each_time() -> None:
    model = TableModel(SYMBOLS, 1)
    _, start = encoded("{digits:1}", model)
    state, expected = start, ""
    for _ in range(6):
        best = max(range(len(SYMBOLS)), key=lambda symbol: float(state.log2_probs[0, symbol]))
        expected += SYMBOLS[best]
        state = model.advance(state, state.log2_probs.argmax(1))
    assert greedy_completion(model, start, 6) == expected


def test_a_memorized_secret_is_completed_greedily() -> None:
    model = TableModel(SYMBOLS, 1, memorized=["0123456789"])
    space, start = encoded("{digits:10}", model)
    assert greedy_completion(model, start, 10) == "0123456789"
    assert beam_completions(model, start, space)[0] == tuple(model.vocabulary.encode("0123456789").tolist())


@pytest.mark.parametrize("template", ["{digits:2}", "{choice:a|bb|bcd}-{digits:1}", "{choice:0|1|2}{choice:ab|cde}"])
def test_a_beam_as_wide_as_the_space_lists_it_in_order(template: str) -> None:
    model = TableModel(SYMBOLS, 2)
    space, start = encoded(template, model)
    members, costs = every_member(template, model)
    expected = [tuple(row[row >= 0].tolist()) for row in members[np.argsort(costs, kind="stable")]]
    assert beam_completions(model, start, space, width=space.size) == expected


def test_a_narrow_beam_gives_that_many_members_in_order() -> None:
    model = TableModel(SYMBOLS, 3)
    space, start = encoded("{choice:a|bb|bcd|bce}{digits:3}", model)
    found = beam_completions(model, start, space, width=5)
    members, costs = every_member("{choice:a|bb|bcd|bce}{digits:3}", model)
    cost_of = {tuple(row[row >= 0].tolist()): cost for row, cost in zip(members, costs, strict=True)}
    assert len(found) == 5
    assert [cost_of[own] for own in found] == sorted(cost_of[own] for own in found)


# --- the odds of sampling -------------------------------------------------------------------------------


def test_the_odds_are_those_of_every_member_drawn_from_the_model() -> None:
    """Simulate the attacker on a space that is enumerated, so that each completion's probability is known."""
    model = TableModel(SYMBOLS, 4, memorized=["42"], certainty=0.3)
    members, costs = every_member("{digits:2}", model)
    row = int(np.flatnonzero((members == np.asarray(model.vocabulary.encode("42"))).all(1))[0])
    probabilities = 2.0 ** -costs.astype(float)
    elsewhere = 1 - probabilities.sum()  # The model may leave the space.
    rng = np.random.default_rng(0)
    for count in (1, 10, 30):
        drawn = rng.choice(len(costs) + 1, size=(20_000, count), p=np.append(probabilities, elsewhere))
        share = float((drawn == row).any(1).mean())
        assert 2 ** log2_sampled(float(costs[row]), count) == pytest.approx(share, abs=0.012)


@pytest.mark.parametrize("bits", [1e-9, 0.01, 0.5, 1.0, 3.3, 20.0, 59.0, 61.0, 900.0, 5_000.0])
@pytest.mark.parametrize("count", SAMPLE_COUNTS)
def test_the_odds_agree_with_arithmetic_of_many_digits(bits: float, count: int) -> None:
    with localcontext() as context:
        context.prec = 40 + int(bits * 0.302)
        missed = 1 - Decimal(2) ** -Decimal(bits)
        chance = 1 - (Decimal(count) * missed.ln()).exp()
        expected = float(chance.ln() / Decimal(2).ln())
    assert log2_sampled(bits, count) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(st.floats(0, 1e5), st.integers(1, 10**12), st.integers(1, 10**12))
def test_the_odds_are_finite_and_grow_with_the_number_of_samples(bits: float, one: int, two: int) -> None:
    fewer, more = log2_sampled(bits, min(one, two)), log2_sampled(bits, max(one, two))
    assert math.isfinite(fewer)
    assert fewer <= more <= 0
    assert fewer >= -bits - 1e-9, "more samples are never worse than one"
    assert math.isfinite(even_chance_log2(bits))


@given(st.floats(1.001, 40))
def test_an_even_chance_is_even(bits: float) -> None:
    number = 2 ** even_chance_log2(bits)
    assert 1 - (1 - 2.0**-bits) ** number == pytest.approx(0.5, abs=1e-3)
    assert log2_sampled(bits, math.ceil(number)) >= -1 - 1e-9
    assert number < 2 or log2_sampled(bits, math.floor(number)) <= -1 + 1e-9


def test_one_sample_is_enough_for_a_secret_that_is_likelier_than_not() -> None:
    assert even_chance_log2(0.5) == even_chance_log2(0) == even_chance_log2(-1e-9) == 0


def test_a_secret_of_thousands_of_bits_keeps_its_digits() -> None:
    assert log2_sampled(5_000, 1_000_000) == pytest.approx(-5_000 + math.log2(1e6))
    assert even_chance_log2(5_000) == pytest.approx(5_000 + math.log2(math.log(2)))


def test_what_has_no_odds_is_refused() -> None:
    with pytest.raises(MeasurementError, match="at least 1 sample"):
        log2_sampled(3, 0)
    with pytest.raises(MeasurementError, match="measure again"):
        log2_sampled(math.nan, 1)
    assert log2_sampled(math.inf, 100) == -math.inf, "impossible, and no error"


def test_the_guesses_interval_mirrors_the_headlines() -> None:
    found = extraction(
        9.0,
        Headline(bits=12, low=10, high=15, method="importance"),
        20.0,
        greedy=False,
        greedy_text="x",
        beam_rank=None,
    )
    assert (found.guesses_low_log2, found.guesses_log2, found.guesses_high_log2) == (5, 8, 10)
    assert not found.guesses_exact
    assert [odds.samples for odds in found.sampling] == [1, 100, 10_000, 1_000_000]


@pytest.mark.parametrize(("low", "exact"), [(12.0, True), (10.0, False)])
def test_guesses_are_exact_only_where_the_rank_is_known(low: float, exact: bool) -> None:
    chosen = Headline(bits=12, low=low, high=12, method="exact")
    found = extraction(9.0, chosen, 20.0, greedy=False, greedy_text="x", beam_rank=None)
    assert found.guesses_exact is exact
