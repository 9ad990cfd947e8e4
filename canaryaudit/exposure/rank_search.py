"""Exact rank by branch and bound, with certified bounds when the budget runs out.

Costs of symbols add up and are never negative, so a prefix that already costs as much as the secret has
no likelier completion. Cheapest prefixes are expanded first, in batches; at any moment each unexpanded
prefix of cost c up to a secret's cost S holds at most min(completions below it, 2^(S - c)) members that
cost at most S, because their conditional probabilities, each at least 2^-(S - c), sum to at most 1.

Prefixes that are costlier than every target sought are not kept, nor those beyond the cheapest half million or more:
what lies there cannot come before a cheaper target. Targets beyond it get the bound that holds of all members together.

Ranks are exact for the costs that the model gives when it reads prefixes as ``advance_in_tiles`` does.
"""

from dataclasses import dataclass

import numpy as np
import torch

from canaryaudit.errors import MeasurementError
from canaryaudit.exposure.encoded_space import EncodedSpace
from canaryaudit.exposure.scored_members import ScoredMembers
from canaryaudit.exposure.scoring import TILE, Ticker, advance_in_tiles
from canaryaudit.models.language_model import PrefixReader, PrefixState
from canaryaudit.plan import SEARCH_BUDGET

_NOISE_BITS = 1e-3
"""How far a target's cost, as it was given, may lie from the one that the search will meet."""
_SUM_BITS = 1e-4
"""log2 of how far above 1 the float32 probabilities of a long completion's symbols may sum, generously."""
MOST_OPEN = 1_000_000
"""Unexpanded prefixes kept, 40 MB: the costliest half goes when there are more."""


@dataclass(frozen=True)
class RankBounds:
    """A certified interval for a rank; exact where both ends agree.

    Attributes:
        log_perplexity_bits: Cost of the secret, as the search met it or as it was given.
        lower: The rank is at least this; ties count half.
        upper: The rank is at most this; infinite where float cannot tell.
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


def search_ranks(
    model: PrefixReader,
    targets: ScoredMembers,
    budget: int = SEARCH_BUDGET,
    tick: Ticker | None = None,
    wanted: np.ndarray | None = None,
) -> Search:
    """Bound the ranks of several members of a space in one best-first search.

    Args:
        model: The model.
        targets: Members to rank, scored by this model; the inserted ones are no references for the others.
        budget: Prefixes to expand at most.
        tick: Told of progress.
        wanted: Which targets to look for, shape (K,), bool: the search ends when these are found; all if not given.

    Returns:
        Bounds in the order of ``targets``; equal where the search was complete.

    Raises:
        MeasurementError: A target is no member of the space, or is given twice.
    """
    space = targets.space
    trail = _Trail(targets.completions, space)
    # The search meets the targets themselves: the cost that it met is what counts, so that a rounding error never
    # makes a secret its own rival.
    own = _OwnCosts(targets.log_perplexity_bits.astype(float), np.full(len(targets.completions), _NOISE_BITS))
    frontier = _Frontier.at_start()
    pool = _StatePool(targets.start, budget + 1)
    found: list[np.ndarray] = []
    nodes, known_to = 0, np.inf
    sought = np.ones(len(own.bits), dtype=bool) if wanted is None else wanted
    symbols = torch.from_numpy(np.flatnonzero((space.next_node >= 0).any(0))).to(model.device)
    while nodes < budget and len(frontier.costs) and frontier.costs.min() <= _reach(own, sought):
        chosen, frontier = frontier.split_cheapest(min(getattr(model, "most_rows", TILE), budget - nodes))
        slots, log2_probs = pool.expand(model, chosen)
        nodes += len(slots)
        # Not the exact limit: a target that is met later may turn out to cost a little more than was said.
        highest = _reach(own, sought) + 100 * _NOISE_BITS
        known_to = min(known_to, highest)
        children = _children(chosen, slots, log2_probs, symbols, (space, trail, highest))
        whole = children.nodes == space.accept
        for row in np.flatnonzero(whole & (children.trail >= 0)):
            index = trail.target_at[int(children.trail[row])]
            if abs(children.costs[row] - own.bits[index]) > 100 * _NOISE_BITS:
                raise MeasurementError(
                    f"target {index} was said to cost {own.bits[index]:.3f} bits, and costs {children.costs[row]:.3f}: "
                    "score it with the same model and prefix"
                )
            own.bits[index], own.noise[index] = children.costs[row], 0.0
        found.append(children.costs[whole & (children.trail < 0)])
        frontier = frontier.joined(children.where(~whole))
        if len(frontier.costs) > MOST_OPEN:
            frontier, costly = frontier.split_cheapest(MOST_OPEN // 2)
            known_to = min(known_to, float(costly.costs.min()))
        if tick:
            tick(nodes, budget)
    ordinary = np.sort(np.concatenate(found)) if found else np.empty(0)
    met = _Met(ordinary, frontier, known_to, space)
    return Search(tuple(_bounds(k, own, targets.inserted, met) for k in range(len(own.bits))), nodes)


def _reach(own: "_OwnCosts", sought: np.ndarray) -> float:
    """Return the largest cost of the targets that are looked for; below 0 without any."""
    return float((own.bits + own.noise)[sought].max(initial=-1.0))


@dataclass(frozen=True)
class _OwnCosts:
    """The targets' costs, and how uncertain each is: not at all once the search has met it."""

    bits: np.ndarray
    noise: np.ndarray


@dataclass(frozen=True)
class _Met:
    """What a search met.

    Attributes:
        ordinary: Sorted costs of the members, targets left out.
        frontier: What it left unexpanded.
        known_to: All that costs less was met or is in the frontier.
        space: R.
    """

    ordinary: np.ndarray
    frontier: "_Frontier"
    known_to: float
    space: EncodedSpace


def _bounds(index: int, own: _OwnCosts, excluded: np.ndarray, met: _Met) -> RankBounds:
    """Bound one target's rank.

    Args:
        index: Of the target.
        own: The targets' costs.
        excluded: Which targets are no reference.
        met: What the search met.
    """
    ordinary, frontier, space = met.ordinary, met.frontier, met.space
    cost = float(own.bits[index])
    others = ~excluded & (np.arange(len(excluded)) != index)
    noise = own.noise[index] + own.noise[others]
    lower = 1 + _likelier(ordinary, cost - own.noise[index]) + _likelier(own.bits[others], cost - noise)
    upper = 1 + _likelier(ordinary, cost + own.noise[index]) + _likelier(own.bits[others], cost + noise)
    limit = cost + own.noise[index]
    open_ = frontier.costs <= limit
    below = np.minimum(space.log2_counts[frontier.nodes[open_]], limit - frontier.costs[open_] + _SUM_BITS)
    upper += float(_whole(below).sum()) if limit < met.known_to else np.inf
    # At the very beginning the same holds of all members together, the target itself among them.
    upper = min(upper, float(_whole(min(limit + _SUM_BITS, space.bits))))
    return RankBounds(cost, lower, max(lower, upper))


def _likelier(costs: np.ndarray, limit: "float | np.ndarray") -> float:
    """Count costs below the limit; those that equal it count half."""
    return float((costs < limit).sum()) + 0.5 * float((costs == limit).sum())


def _whole(log2_number: "float | np.ndarray") -> np.ndarray:
    """Return the whole part of numbers of members, infinite where it is too large for a float."""
    number = np.floor(np.exp2(np.minimum(log2_number, 1000.0)) * (1 + 1e-9))
    return np.where(np.asarray(log2_number) < 1000, number, np.inf)


class _Trail:
    """The targets' own prefixes as a trie, so that the search knows a target when it meets one."""

    def __init__(self, targets: np.ndarray, space: EncodedSpace) -> None:
        next_: list[dict[int, int]] = [{}]
        self.target_at: dict[int, int] = {}
        for index, row in enumerate(targets):
            place = node = 0
            for symbol in row[row >= 0].tolist():
                node = int(space.next_node[node, symbol]) if node >= 0 else -1
                if symbol not in next_[place]:
                    next_[place][symbol] = len(next_)
                    next_.append({})
                place = next_[place][symbol]
            if node != space.accept:
                raise MeasurementError(f"target {index} is no member of the space: check its template and --space")
            if place in self.target_at:
                raise MeasurementError(f"targets {self.target_at[place]} and {index} are the same member")
            self.target_at[place] = index
        # The last row is for every prefix that is on no trail: index -1 leads to -1.
        self.next = np.full((len(next_) + 1, space.next_node.shape[1]), -1, dtype=np.int32)
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
    def at_start(cls) -> "_Frontier":
        zero = np.zeros(1, dtype=np.int64)
        return cls(np.zeros(1), zero, zero, zero, np.full(1, -1))

    def where(self, mask: np.ndarray) -> "_Frontier":
        return _Frontier(self.costs[mask], self.nodes[mask], self.trail[mask], self.parents[mask], self.symbols[mask])

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
        self.cache = tuple(part.new_empty((capacity, *part.shape[1:])) for part in start.cache)
        self.used = 0

    def expand(self, model: PrefixReader, chosen: _Frontier) -> tuple[np.ndarray, torch.Tensor]:
        """Read each chosen prefix's last symbol; return the new states' slots and next-symbol log-probabilities."""
        device = self.start.log2_probs.device
        if self.used == 0:
            state = self.start
        else:
            parents = torch.from_numpy(chosen.parents).to(device)
            empty = self.start.log2_probs.new_empty((len(parents), 0))
            above = PrefixState(empty, tuple(part[parents] for part in self.cache))
            state = advance_in_tiles(model, above, torch.from_numpy(chosen.symbols).to(device))
        slots = np.arange(self.used, self.used + len(state.log2_probs))
        self.used += len(slots)
        for part, new in zip(self.cache, state.cache, strict=True):
            part[slots[0] : slots[-1] + 1] = new
        return slots, state.log2_probs


def _children(
    chosen: _Frontier,
    slots: np.ndarray,
    log2_probs: torch.Tensor,
    symbols: torch.Tensor,
    within: tuple[EncodedSpace, _Trail, float],
) -> _Frontier:
    """Return all one-symbol continuations inside the space that cost at most a limit.

    Args:
        chosen: Prefixes, B of them.
        slots: Of their states, shape (B,).
        log2_probs: Of their next symbols, shape (B, V).
        symbols: The symbols of the space, shape (C,).
        within: The space, the trail and the limit.
    """
    space, trail, highest = within
    costs = chosen.costs[:, None] - log2_probs[:, symbols].double().cpu().numpy()  # (B, C)
    ids = symbols.cpu().numpy()
    rows, columns = np.nonzero((space.next_node[chosen.nodes][:, ids] >= 0) & (costs <= highest))
    return _Frontier(
        costs[rows, columns],
        space.next_node[chosen.nodes[rows], ids[columns]].astype(np.int64),
        trail.next[chosen.trail[rows], ids[columns]].astype(np.int64),
        slots[rows],
        ids[columns].astype(np.int64),
    )
