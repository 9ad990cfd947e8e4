"""Exact rank by branch and bound, with certified bounds when the budget runs out.

Costs of symbols add up and are never negative, so a prefix that already costs as much as the secret has
no likelier completion. Cheapest prefixes are expanded first, in batches; at any moment each unexpanded
prefix of cost c below a secret's cost S holds at most min(completions below it, 2^(S - c)) likelier
members, because their conditional probabilities, each above 2^-(S - c), sum to at most 1.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from canaryaudit.model import LanguageModel, PrefixState
from canaryaudit.scoring import TILE, EncodedSpace, advance_in_tiles

DEFAULT_BUDGET = 50_000
"""Prefixes that one search may expand: about two seconds of the 3.3 M-parameter model on two cores, and
400 MB of states."""


@dataclass(frozen=True)
class RankBounds:
    """A certified interval for a rank; exact where both ends agree.

    Attributes:
        log_perplexity_bits: Cost of the secret, as the search met it or as it was given.
        lower: The rank is at least this; ties count half.
        upper: The rank is at most this.
    """

    log_perplexity_bits: float
    lower: float
    upper: float

    @property
    def exact(self) -> bool:
        """Whether the rank is known."""
        return self.lower == self.upper


@dataclass(frozen=True)
class Search:
    """The result of a search: bounds for each target, and the number of prefixes expanded."""

    ranks: tuple[RankBounds, ...]
    nodes: int


def enumerate_ranks(
    costs_bits: np.ndarray, target_rows: Sequence[int], excluded_rows: Sequence[int]
) -> list[float]:
    """Rank targets among all members of a space whose costs are known: 1 + likelier ones, ties count half.

    Args:
        costs_bits: Log-perplexity of every member, shape (size,).
        target_rows: Rows of the members to rank.
        excluded_rows: Rows that are nobody's reference: the inserted canaries.
    """
    kept = np.ones(len(costs_bits), dtype=bool)
    kept[list(excluded_rows)] = False
    ordered = np.sort(costs_bits[kept])
    ranks = []
    for row in target_rows:
        cost = costs_bits[row]
        below, up_to = np.searchsorted(ordered, cost, "left"), np.searchsorted(ordered, cost, "right")
        ties = up_to - below - int(kept[row])  # a target that is itself a reference does not tie with itself
        ranks.append(1 + float(below) + 0.5 * float(ties))
    return ranks


def search_ranks(
    model: LanguageModel,
    start: PrefixState,
    space: EncodedSpace,
    targets: np.ndarray,
    excluded: np.ndarray,
    costs_bits: np.ndarray,
    budget: int = DEFAULT_BUDGET,
    tick: Callable[[int, int], None] | None = None,
) -> Search:
    """Bound the ranks of several members of a space in one best-first search.

    Args:
        model: The model.
        start: State after the template's prefix, one row.
        space: R.
        targets: Members to rank, symbol ids, shape (K, max_length), padded with -1.
        excluded: Which targets are no reference for the others (inserted canaries), shape (K,), bool.
        costs_bits: Log-perplexity of the targets, shape (K,).
        budget: Prefixes to expand at most.
        tick: Told of progress.

    Returns:
        Bounds in the order of ``targets``; equal where the search was complete.
    """
    trail = _Trail(targets, space.next_node.shape[1])
    # The search meets each target itself, in other batches than the scorer did: what it met is what counts,
    # so that a rounding error never makes a secret its own rival.
    own_costs = costs_bits.astype(float).copy()
    frontier = _Frontier.at_start(space, trail)
    pool = _StatePool(start, budget + 1)
    found: list[np.ndarray] = []
    highest = float(own_costs.max()) + 1e-3
    nodes = 0
    while len(frontier.costs) and nodes < budget:
        chosen, frontier = frontier.split_cheapest(min(TILE, budget - nodes))
        slots, log2_probs = pool.expand(model, chosen)
        nodes += len(slots)
        children = _children(chosen, slots, -log2_probs.double().cpu().numpy(), space, trail, highest)
        whole = space_accepts = children.nodes == space.accept
        ended_on_trail = np.flatnonzero(whole & (children.trail >= 0))
        for row in ended_on_trail:
            own_costs[trail.target_at[children.trail[row]]] = children.costs[row]
        ordinary = space_accepts & (children.trail < 0)
        found.append(children.costs[ordinary])
        frontier = frontier.joined(children.where(~whole))
        if tick:
            tick(nodes, budget)
        if nodes >= 64 and len(frontier.costs) and frontier.costs.min() > own_costs.max():
            break
    likelier = np.sort(np.concatenate(found)) if found else np.empty(0)
    return Search(tuple(_bounds(k, own_costs, excluded, likelier, frontier, space) for k in range(len(targets))), nodes)


def _bounds(
    index: int, costs: np.ndarray, excluded: np.ndarray, likelier: np.ndarray, frontier: "_Frontier", space: EncodedSpace
) -> RankBounds:
    cost = costs[index]
    below, up_to = np.searchsorted(likelier, cost, "left"), np.searchsorted(likelier, cost, "right")
    others = ~excluded & (np.arange(len(costs)) != index)
    rivals = float((costs[others] < cost).sum()) + 0.5 * float((costs[others] == cost).sum())
    lower = 1 + float(below) + 0.5 * float(up_to - below) + rivals
    open_ = frontier.costs <= cost
    if not open_.any():
        return RankBounds(cost, lower, lower)
    hidden = np.exp2(np.minimum(space.log2_counts[frontier.nodes[open_]], cost - frontier.costs[open_])).sum()
    # All likelier members' probabilities sum to at most 1, and each is at least 2^-cost.
    upper = min(lower + float(hidden), 2.0 ** min(cost, 1000.0) + 1, float(space.size))
    return RankBounds(cost, lower, max(lower, upper))


class _Trail:
    """The targets' own prefixes as a trie, so that the search knows a target when it meets one."""

    def __init__(self, targets: np.ndarray, symbols: int) -> None:
        next_: list[dict[int, int]] = [{}]
        self.target_at: dict[int, int] = {}
        for index, row in enumerate(targets):
            place = 0
            for symbol in row[row >= 0].tolist():
                if symbol not in next_[place]:
                    next_[place][symbol] = len(next_)
                    next_.append({})
                place = next_[place][symbol]
            self.target_at[place] = index
        # The last row is for every prefix that is on no trail: index -1 leads to -1.
        self.next = np.full((len(next_) + 1, symbols), -1, dtype=np.int32)
        for place, edges in enumerate(next_):
            self.next[place, list(edges)] = list(edges.values())


@dataclass(frozen=True)
class _Frontier:
    """Prefixes not yet expanded: cost, node of the space, place on the trail, parent's state, last symbol."""

    costs: np.ndarray
    nodes: np.ndarray
    trail: np.ndarray
    parents: np.ndarray
    symbols: np.ndarray

    @classmethod
    def at_start(cls, space: EncodedSpace, trail: _Trail) -> "_Frontier":
        zero = np.zeros(1, dtype=np.int64)
        return cls(np.zeros(1), zero, zero, zero, np.full(1, -1))

    def where(self, mask: np.ndarray) -> "_Frontier":
        return _Frontier(
            self.costs[mask], self.nodes[mask], self.trail[mask], self.parents[mask], self.symbols[mask]
        )

    def joined(self, other: "_Frontier") -> "_Frontier":
        return _Frontier(
            np.concatenate((self.costs, other.costs)),
            np.concatenate((self.nodes, other.nodes)),
            np.concatenate((self.trail, other.trail)),
            np.concatenate((self.parents, other.parents)),
            np.concatenate((self.symbols, other.symbols)),
        )

    def split_cheapest(self, count: int) -> tuple["_Frontier", "_Frontier"]:
        cheapest = np.zeros(len(self.costs), dtype=bool)
        cheapest[np.argpartition(self.costs, count - 1)[:count] if count < len(self.costs) else slice(None)] = True
        return self.where(cheapest), self.where(~cheapest)


class _StatePool:
    """States of the expanded prefixes; children find their parent's by its slot."""

    def __init__(self, start: PrefixState, capacity: int) -> None:
        self.start = start
        # Allocated and not touched: pages that the search does not reach cost nothing.
        self.memory = tuple(part.new_empty((capacity, *part.shape[1:])) for part in start.memory)
        self.used = 0

    def expand(self, model: LanguageModel, chosen: _Frontier) -> tuple[np.ndarray, torch.Tensor]:
        """Read each chosen prefix's last symbol; return the new states' slots and next-symbol log-probabilities."""
        device = self.start.log2_probs.device
        if self.used == 0:
            state = self.start
        else:
            parents = torch.from_numpy(chosen.parents).to(device)
            empty = self.start.log2_probs.new_empty((len(parents), 0))
            above = PrefixState(empty, tuple(part[parents] for part in self.memory))
            state = advance_in_tiles(model, above, torch.from_numpy(chosen.symbols).to(device))
        slots = np.arange(self.used, self.used + len(state.log2_probs))
        self.used += len(slots)
        for part, new in zip(self.memory, state.memory, strict=True):
            part[slots[0] : slots[-1] + 1] = new
        return slots, state.log2_probs


def _children(
    chosen: _Frontier, slots: np.ndarray, step_bits: np.ndarray, space: EncodedSpace, trail: _Trail, highest: float
) -> _Frontier:
    """Return all one-symbol continuations inside the space that cost at most ``highest``."""
    costs = chosen.costs[:, None] + step_bits  # (B, V)
    rows, symbols = np.nonzero((space.next_node[chosen.nodes] >= 0) & (costs <= highest))
    return _Frontier(
        costs[rows, symbols],
        space.next_node[chosen.nodes[rows], symbols].astype(np.int64),
        trail.next[chosen.trail[rows], symbols].astype(np.int64),
        slots[rows],
        symbols.astype(np.int64),
    )
