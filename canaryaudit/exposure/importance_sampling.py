"""The rank by importance sampling from tempered copies of the model.

Members of R are drawn from a deterministic mixture of proposals between the uniform law and the model
itself; each is weighted by the balance heuristic, w(x) = 1 / sum_t (n_t / n) q_t(x), so that
rank(s) - 1 = E[w(x) 1(Px(x) < Px(s))], without bias, whatever the rank. One set of draws serves every
secret of a template. (Veach & Guibas 1995; Dell'Amico & Filippone 2015, *Monte Carlo Strength Evaluation*.)
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from canaryaudit.distributed import Arrays, ProcessGroup, Task
from canaryaudit.exposure.encoded_space import PAD, EncodedSpace, match_targets
from canaryaudit.exposure.estimators.importance import importance_exposure
from canaryaudit.exposure.execution import Execution
from canaryaudit.exposure.scored_members import ScoredMembers
from canaryaudit.exposure.scoring import Ticker, advance_and_read, packed_state, unpacked_state
from canaryaudit.exposure.scoring_models import ScoringModels
from canaryaudit.models.language_model import PrefixReader, PrefixState
from canaryaudit.records import Estimate

TEMPERATURES = (1.0, 2.0, 4.0, 8.0, 16.0, math.inf)


_NEVER = np.float32(-1e30)
"""log2 of the probability of a symbol outside R."""
_LOT = 2_000
"""Draws from each proposal that one generator gives: small enough for many processes to share a round, large enough
for the draws of a lot to share their prefixes."""
_LARGEST_ROUND = 16_000
"""Draws from each proposal in one round: some ten seconds of the 3.3 M-parameter model on two cores."""


@dataclass(frozen=True)
class WeightedDraws:
    """Members of R drawn from a mixture of proposals.

    Attributes:
        completions: Symbol ids, shape (n, max_length), padded with -1.
        bits: Their log-perplexity, shape (n,).
        log2_weights: log2 of 1 / mixture probability, shape (n,).
        strata: Which proposal each came from, shape (n,).
    """

    completions: np.ndarray
    bits: np.ndarray
    log2_weights: np.ndarray
    strata: np.ndarray


def draw_members(
    model: PrefixReader,
    start: PrefixState,
    space: EncodedSpace,
    per_temperature: int,
    rng: np.random.Generator,
    tick: Ticker | None = None,
) -> WeightedDraws:
    """Draw ``per_temperature`` members of R from each proposal.

    A proposal of temperature T continues a prefix by symbol a with probability proportional to
    p(a)^(1/T) u(a)^(1 - 1/T), u the uniform law over R.
    """
    strata = np.repeat(np.arange(len(TEMPERATURES)), per_temperature)
    count, size = len(strata), space.next_node.shape[1]
    completions = np.full((count, space.max_length), PAD, dtype=np.int32)
    bits = np.zeros(count)
    log2_proposals = np.zeros((count, len(TEMPERATURES)))
    alive = np.arange(count)  # draws that are not whole yet, A of them
    state, nodes = start, np.zeros(1, dtype=np.int64)  # of each distinct prefix, U of them
    row_of = np.zeros(count, dtype=np.int64)  # which distinct prefix each living draw stands at
    parents = added = np.zeros(0, dtype=np.int64)
    for place in range(space.max_length):
        tiles = _Tiles(space, nodes, row_of, rng.random(count)[alive], strata[alive])
        if place == 0:
            tiles.read(0, start.log2_probs)
        else:
            chosen, continued = (torch.from_numpy(part).to(model.device) for part in (added, parents))
            state = advance_and_read(model, state, chosen, continued, tiles.read)
        completions[alive, place] = tiles.symbols
        bits[alive] -= tiles.log2_probs
        log2_proposals[alive] += tiles.log2_proposals
        if tick:
            tick(place + 1, space.max_length)
        reached = space.next_node[nodes[row_of], tiles.symbols]
        going_on = reached != space.accept
        alive = alive[going_on]
        if len(alive) == 0:
            break
        # Prefixes that several draws share are read once.
        keys, firsts, row_of = np.unique(
            (row_of * size + tiles.symbols)[going_on], return_index=True, return_inverse=True
        )
        nodes = reached[going_on][firsts].astype(np.int64)
        parents, added = keys // size, keys % size
    log2_mixture = np.logaddexp2.reduce(log2_proposals - math.log2(len(TEMPERATURES)), axis=1)
    return WeightedDraws(completions, bits, -log2_mixture, strata)


class _Tiles:
    """Draws the next symbol of every living draw, as the model reads their prefixes tile by tile.

    Args:
        space: R.
        nodes: Of each distinct prefix, shape (U,).
        row_of: Which distinct prefix each draw stands at, shape (A,).
        uniform: What decides, shape (A,).
        strata: Which proposal each draw comes from, shape (A,).

    Attributes:
        symbols: What each draw goes on with, shape (A,).
        log2_probs: What the model gives it, shape (A,).
        log2_proposals: What each proposal gives it, shape (A, K).
    """

    def __init__(
        self, space: EncodedSpace, nodes: np.ndarray, row_of: np.ndarray, uniform: np.ndarray, strata: np.ndarray
    ) -> None:
        self._space, self._nodes, self._row_of, self._uniform, self._strata = space, nodes, row_of, uniform, strata
        self._order = np.argsort(row_of, kind="stable")
        self._ordered = row_of[self._order]
        self.symbols = np.zeros(len(row_of), dtype=np.int64)
        self.log2_probs = np.zeros(len(row_of))
        self.log2_proposals = np.zeros((len(row_of), len(TEMPERATURES)))

    def read(self, first: int, log2_probs: Tensor) -> None:
        """Draw for the prefixes of one tile.

        Args:
            first: The tile's first prefix.
            log2_probs: Of the tile, shape (rows, V).
        """
        nodes = self._nodes[first : first + len(log2_probs)]
        symbols = np.flatnonzero((self._space.next_node[nodes] >= 0).any(0))  # (C,)
        ids = torch.from_numpy(symbols).to(log2_probs.device)
        own_probs = log2_probs[:, ids].cpu().numpy()
        shares = self._space.shares[nodes][:, symbols]
        with np.errstate(divide="ignore"):
            log2_shares = np.maximum(np.log2(shares), _NEVER).astype(np.float32)
        allowed = np.where(shares > 0, own_probs, _NEVER)
        begin, end = np.searchsorted(self._ordered, (first, first + len(nodes)))
        draws = self._order[begin:end]
        rows = self._row_of[draws] - first
        proposals = [_tempered(allowed, log2_shares, temperature) for temperature in TEMPERATURES]
        chosen = np.zeros(len(draws), dtype=np.int64)
        for stratum, proposal in enumerate(proposals):
            mine = self._strata[draws] == stratum
            cumulative = proposal[rows[mine]].cumsum(1, dtype=np.float64)  # (own draws, C)
            limits = np.minimum(self._uniform[draws[mine]] * cumulative[:, -1], np.nextafter(cumulative[:, -1], 0))
            chosen[mine] = (cumulative <= limits[:, None]).sum(1)  # the first whose interval ends beyond the limit
        self.symbols[draws] = symbols[chosen]
        self.log2_probs[draws] = own_probs[rows, chosen]
        for stratum, proposal in enumerate(proposals):
            with np.errstate(divide="ignore"):
                taken = np.log2(proposal[rows, chosen].astype(np.float64))
            self.log2_proposals[draws, stratum] = taken - np.log2(proposal.sum(1, dtype=np.float64))[rows]


def _tempered(log2_probs: np.ndarray, log2_shares: np.ndarray, temperature: float) -> np.ndarray:
    """Return numbers proportional to a proposal's next-symbol probabilities, (U, C) and (U, C) -> (U, C), float32.

    Draws and weights use the very same numbers, so that rounding them makes another proposal, and no error.
    """
    inverse = np.float32(1 / temperature)
    mixed: np.ndarray = inverse * log2_probs
    mixed += (1 - inverse) * log2_shares
    mixed -= mixed.max(1, keepdims=True)
    mixed *= np.float32(math.log(2))
    np.exp(mixed, out=mixed)
    return mixed


@dataclass(frozen=True)
class SamplingBudget:
    """How long to go on drawing.

    Attributes:
        first_round: Draws from each proposal in the first round.
        precision_bits: Half-width of the interval that is enough.
        max_draws: Draws in all after which no other round begins.
        seed: Of the draws; each round has a generator of its own.
    """

    first_round: int
    precision_bits: float
    max_draws: int
    seed: tuple[int, ...]


def importance_exposures(
    model: PrefixReader,
    targets: ScoredMembers,
    wanted: Sequence[int],
    budget: SamplingBudget,
    execution: Execution,
    label: str = "importance",
) -> tuple[list[Estimate], int]:
    """Estimate the exposure of several secrets of one space, drawing until each is known well enough.

    Args:
        model: The model.
        targets: Secrets and controls, scored by the model.
        wanted: Which of them to estimate.
        budget: When to stop.
        execution: How to carry it out; its cache keeps finished rounds, but for the first. Progress is told in draws
            of the most that there may be.
        label: What to keep them under.

    Returns:
        The estimates, in the order of ``wanted``, and the number of draws.
    """
    cache, tick = execution.cache, execution.ticker("importance sampling")
    rounds: list[Arrays] = []
    drawn = 0
    while True:
        left = math.ceil((budget.max_draws - drawn) / len(TEMPERATURES))
        size = budget.first_round if not rounds else min(drawn // len(TEMPERATURES), _LARGEST_ROUND, left)
        name = f"{label}-{len(rounds):05d}"
        own = cache.get(name) if rounds else None
        if own is None:
            lots = _Lots(targets.start, targets.space, targets.completions, size, (*budget.seed, len(rounds)))
            own = _drawn(model, lots, _shifted(tick, drawn, size, budget.max_draws), execution.processes)
            if rounds:
                cache.put(name, own)
        rounds.append(own)
        drawn += size * len(TEMPERATURES)
        whole = {key: np.concatenate([part[key] for part in rounds]) for key in own}
        # A draw of an inserted secret, or of the secret itself, keeps its place among the n and counts for nothing.
        bits = np.where(np.r_[targets.inserted, False][whole["owner"]], np.inf, whole["bits"])
        estimates = [
            importance_exposure(
                float(targets.log_perplexity_bits[k]),
                np.where(whole["owner"] == k, np.inf, bits),
                targets.space.bits,
                log2_weights=whole["log2_weights"],
                strata=whole["strata"],
            )
            for k in wanted
        ]
        enough = all(own.trusted and own.high - own.low <= 2 * budget.precision_bits for own in estimates)
        if enough or drawn >= budget.max_draws:
            return estimates, drawn


@dataclass(frozen=True)
class _Lots:
    """One round of draws, in lots that may be drawn anywhere.

    Attributes:
        start: The model's state after the prompt, one row.
        space: R.
        targets: Secrets and controls, to be known when they are drawn, shape (K, max_length).
        size: Draws from each proposal, in all lots together.
        seed: Of the round; each lot has a generator of its own.
    """

    start: PrefixState
    space: EncodedSpace
    targets: np.ndarray
    size: int
    seed: tuple[int, ...]

    def __len__(self) -> int:
        return math.ceil(self.size / _LOT)

    def draw(self, model: PrefixReader, lot: int, tick: Ticker | None = None) -> Arrays:
        """Draw one lot, wherever it is asked for."""
        rng = np.random.default_rng([*self.seed, lot])
        draws = draw_members(model, self.start, self.space, min(_LOT, self.size - lot * _LOT), rng, tick)
        return {
            "bits": draws.bits,
            "log2_weights": draws.log2_weights,
            "strata": draws.strata,
            "owner": match_targets(draws.completions, self.targets),
        }


def _drawn(model: PrefixReader, lots: _Lots, tick: Callable[[float], None], processes: ProcessGroup) -> Arrays:
    """Draw one round; ``tick`` is told the share that is done."""
    tensors, facts = lots.space.packed()
    tensors |= {"targets": torch.from_numpy(lots.targets), **packed_state(lots.start)}
    facts |= {"round": lots.size, "seed": lots.seed}
    found: list[Arrays] = []

    def tick_within(place: int, places: int) -> None:
        tick((len(found) + place / places) / len(lots))

    for own in processes.map_tasks(
        "draws", tensors, facts, lambda lot: lots.draw(model, lot, tick_within), range(len(lots))
    ):
        found.append(own)
        tick(len(found) / len(lots))
    return {key: np.concatenate([own[key] for own in found]) for key in found[0]}


def draw_worker(task: Task, readers: ScoringModels[PrefixReader], processes: ProcessGroup) -> None:
    """Take this process's part in a round of the leader's ``importance_exposures``."""
    facts, model = task.facts, readers.model
    start = unpacked_state(task.tensors, model.device)
    space, targets = EncodedSpace.unpacked(task.tensors, facts), task.tensors["targets"].numpy()
    lots = _Lots(start, space, targets, facts["round"], tuple(facts["seed"]))
    processes.run_tasks(lambda lot: lots.draw(model, lot), facts["indices"])


def _shifted(tick: Ticker, drawn: int, size: int, most: int) -> Callable[[float], None]:
    """Return a ticker of a round's share that tells draws in all, of the most that there may be."""
    own = size * len(TEMPERATURES)
    return lambda share: tick(drawn + round(own * share), max(most, drawn + own))
