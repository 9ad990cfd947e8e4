"""Tests of canaryaudit.exposure.rank_search."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from canaryaudit.errors import MeasurementError
from canaryaudit.exposure import ScoredMembers, rank_search, search_ranks
from canaryaudit.exposure.estimators import enumerate_ranks
from canaryaudit.exposure.rank_search import Search
from tests.fakes import Law, TableModel, encoded, every_member, naive_ranks

SYMBOLS = "\n!-0123456789abcdef"
TEMPLATES = (
    "{digits:2}",
    "{digits:1}-{hex:1}!",
    "{choice:a|bb|bcd}{digits:1}",
    "{hex:1}{choice:0|1|2-}-{choice:c|d}",
    "{any:2}",
    "{digits:1}-{digits:1}-{digits:1}",
    "{digits:1-3}!",
    "{[a-c]:1-2}{[01]:1-2}-{any:1}",
)
LAWS: tuple[Law, ...] = ("random", "markov", "ties", "deterministic", "flat")


def setting(seed: int, **options: Any) -> tuple[TableModel, str, np.ndarray, np.ndarray, list[int], np.ndarray]:
    """Return a random model, template, its members, their costs, some targets, and which of them are inserted."""
    rng = np.random.default_rng(seed)
    template = TEMPLATES[seed % len(TEMPLATES)]
    model = TableModel(SYMBOLS, seed, LAWS[seed // len(TEMPLATES) % len(LAWS)], **options)
    members, costs = every_member(template, model)
    targets = rng.choice(len(members), min(len(members), 5), replace=False).tolist()
    return model, template, members, costs, targets, rng.random(len(targets)) < 0.5


def search(
    model: TableModel, template: str, targets: np.ndarray, inserted: np.ndarray, costs: np.ndarray, budget: int = 10**4
) -> Search:
    space, start = encoded(template, model)
    return search_ranks(model, ScoredMembers(space, start, targets, inserted, costs), budget)


@pytest.mark.parametrize("part", range(10))
def test_branch_and_bound_agrees_with_enumeration(part: int) -> None:
    for seed in range(30 * part, 30 * part + 30):
        model, template, members, costs, targets, inserted = setting(seed)
        excluded = [row for row, own in zip(targets, inserted, strict=True) if own]
        truth = naive_ranks(costs, targets, excluded)
        found = search(model, template, members[targets], inserted, costs[targets])
        assert all(bounds.exact for bounds in found.ranks), seed
        assert [bounds.lower for bounds in found.ranks] == truth, seed
        assert [bounds.log_perplexity_bits for bounds in found.ranks] == costs[targets].tolist()
        assert enumerate_ranks(costs, targets, excluded) == truth


@pytest.mark.parametrize("seed", range(0, 60, 4))
def test_bounds_hold_at_every_budget(seed: int) -> None:
    model, template, members, costs, targets, inserted = setting(seed)
    truth = naive_ranks(costs, targets, [row for row, own in zip(targets, inserted, strict=True) if own])
    widths = []
    complete = search(model, template, members[targets], inserted, costs[targets]).nodes
    for budget in range(1, complete + 2):
        found = search(model, template, members[targets], inserted, costs[targets], budget)
        assert found.nodes <= budget
        for bounds, rank in zip(found.ranks, truth, strict=True):
            assert 1 <= bounds.lower <= rank <= bounds.upper <= len(members), (budget, bounds, rank)
        widths.append(sum(bounds.upper - bounds.lower for bounds in found.ranks))
    assert widths[-1] == 0
    assert widths[0] >= widths[len(widths) // 2]


def test_bounds_hold_where_costly_prefixes_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_search, "MOST_OPEN", 30)
    decided = []
    for seed in range(0, 60, 3):
        model, template, members, costs, targets, inserted = setting(seed)
        truth = naive_ranks(costs, targets, [row for row, own in zip(targets, inserted, strict=True) if own])
        for budget in (1, 3, 9, 27, 81, 10**4):
            found = search(model, template, members[targets], inserted, costs[targets], budget)
            for bounds, rank in zip(found.ranks, truth, strict=True):
                assert 1 <= bounds.lower <= rank <= bounds.upper <= len(members), (budget, bounds, rank)
        decided += [bounds.exact for bounds in found.ranks]
    assert any(decided)
    assert not all(decided)


@pytest.mark.parametrize("seed", range(0, 60, 4))
def test_targets_that_are_not_sought_keep_certified_bounds_and_cost_nothing(seed: int) -> None:
    model, template, members, costs, targets, inserted = setting(seed)
    space, start = encoded(template, model)
    truth = naive_ranks(costs, targets, [row for row, own in zip(targets, inserted, strict=True) if own])
    scored = ScoredMembers(space, start, members[targets], inserted, costs[targets])
    whole = search_ranks(model, scored)
    cheapest = costs[targets] == costs[targets].min()
    for sought in (cheapest, np.zeros(len(targets), dtype=bool)):
        found = search_ranks(model, scored, wanted=sought)
        assert found.nodes <= (whole.nodes if sought.any() else 0)
        for bounds, rank, own in zip(found.ranks, truth, sought, strict=True):
            assert 1 <= bounds.lower <= rank <= bounds.upper <= len(members)
            assert bounds.exact or not own


@pytest.mark.parametrize("seed", range(0, 60, 5))
def test_rounding_noise_moves_bounds_by_near_ties_only(seed: int) -> None:
    """Costs that depend on the place in a batch: a secret must not become its own rival, nor a bound too low."""
    noise = 1e-5
    clean = TableModel(SYMBOLS, seed, LAWS[seed // len(TEMPLATES) % len(LAWS)])
    model, template, members, noisy, targets, inserted = setting(seed, noise_bits=noise)
    costs = every_member(template, clean)[1]
    excluded = [row for row, own in zip(targets, inserted, strict=True) if own]
    room = 2 * noise * members.shape[1]
    for budget in (1, 2, 3, 5, 8, 13, 21, 1000):
        found = search(model, template, members[targets], inserted, noisy[targets], budget)
        for bounds, target in zip(found.ranks, targets, strict=True):
            others = np.delete(costs, [*excluded, target])
            certain = 1 + (others < costs[target] - room).sum()
            possible = 1 + (others <= costs[target] + room).sum()
            assert bounds.upper >= certain
            assert bounds.lower <= possible


def test_a_memorized_secret_is_found_in_few_nodes() -> None:
    secret = "0123456789"
    model = TableModel(SYMBOLS, distribution="random", memorized=[secret], certainty=0.95)
    space, start = encoded("{digits:10}", model)
    targets = model.vocabulary.encode(secret)[None].astype(np.int32)
    cost = -10 * math.log2(0.95)
    found = search_ranks(model, ScoredMembers(space, start, targets, np.array([True]), np.array([cost])))
    assert found.ranks[0].exact
    assert found.ranks[0].lower == 1
    assert found.nodes <= 10


def test_inserted_canaries_are_not_each_others_references() -> None:
    secrets = ["01234567", "89898989", "55555555"]
    model = TableModel(SYMBOLS, memorized=secrets, certainty=0.99)
    space, start = encoded("{digits:8}", model)
    targets = np.stack([model.vocabulary.encode(secret) for secret in secrets]).astype(np.int32)
    costs = np.array([every_cost(model, secret) for secret in secrets])
    inserted = search_ranks(model, ScoredMembers(space, start, targets, np.full(3, True), costs))
    assert [bounds.lower for bounds in inserted.ranks] == [1, 1, 1]
    controls = search_ranks(model, ScoredMembers(space, start, targets, np.full(3, False), costs))
    assert sorted(bounds.lower for bounds in controls.ranks) == [1, 2, 3]
    assert all(bounds.exact for bounds in (*inserted.ranks, *controls.ranks))


def every_cost(model: TableModel, text: str) -> float:
    """Score one text symbol by symbol."""
    state, cost = encoded("{digits:1}", model)[1], 0.0
    for symbol in model.vocabulary.encode(text).tolist():
        cost -= float(state.log2_probs[0, symbol])
        state = model.advance(state, torch.tensor([symbol]))
    return cost


def test_a_space_too_large_for_a_float_still_gets_bounds() -> None:
    model = TableModel(SYMBOLS, distribution="flat")
    space, start = encoded("{hex:300}", model)
    target = model.vocabulary.encode("0" * 300)[None].astype(np.int32)
    cost = np.array([300 * math.log2(len(SYMBOLS))])
    bounds = search_ranks(model, ScoredMembers(space, start, target, np.array([True]), cost), budget=700).ranks[0]
    assert 1 <= bounds.lower < bounds.upper == math.inf


def test_targets_that_cannot_be_ranked_are_refused() -> None:
    model = TableModel(SYMBOLS)
    space, start = encoded("{digits:2}", model)

    def ask(*texts: str, costs: tuple[float, ...]) -> None:
        targets = np.stack([model.vocabulary.encode(text) for text in texts]).astype(np.int32)
        search_ranks(model, ScoredMembers(space, start, targets, np.full(len(texts), True), np.array(costs)))

    with pytest.raises(MeasurementError, match="no member of the space"):
        ask("0a", costs=(5.0,))
    with pytest.raises(MeasurementError, match="same member"):
        ask("01", "01", costs=(5.0, 5.0))
    with pytest.raises(MeasurementError, match="was said to cost"):
        ask("01", costs=(40.0,))
