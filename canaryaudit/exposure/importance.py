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
from scipy.stats import gamma

from canaryaudit.errors import MeasurementError
from canaryaudit.model import LanguageModel, PrefixState
from canaryaudit.parts import PartStore
from canaryaudit.ranks import ALONE, Arrays, Ranks, Task
from canaryaudit.reading import Readers
from canaryaudit.records import Estimate
from canaryaudit.scoring import PAD, EncodedSpace, Ticker, advance_in_tiles, owners, packed_state, unpacked_state

TEMPERATURES = (1.0, 2.0, 4.0, 8.0, 16.0, math.inf)
ENOUGH_EFFECTIVE = 100.0
"""Effective sample size below which an estimate is not to be believed."""
TAIL = 0.015
"""Share beyond each end of the interval: less than 2.5 %, because the variance is itself an estimate. With it no rank
and no model tried came below 95 % by more than chance; the interval is a tenth wider."""
NEIGHBOURS = 10
"""Draws just costlier than the secret that tell how much a likelier member that was not drawn may weigh."""


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
    model: LanguageModel,
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
    count = len(strata)
    completions = np.full((count, space.max_length), PAD, dtype=np.int32)
    bits = np.zeros(count)
    log2_proposals = np.zeros((count, len(TEMPERATURES)))
    alive = np.arange(count)  # draws that are not whole yet, A of them
    state, nodes = start, np.zeros(1, dtype=np.int64)  # of each distinct prefix, U of them
    row_of = np.zeros(count, dtype=np.int64)  # which distinct prefix each living draw stands at
    for place in range(space.max_length):
        uniform = rng.random(count)[alive]
        symbols = np.flatnonzero((space.next_node[nodes] >= 0).any(0))  # (C,)
        log2_probs = state.log2_probs.double().cpu().numpy()[:, symbols]
        proposals = _tempered(log2_probs, space.shares[nodes][:, symbols])  # (K, U, C)
        cumulative = np.exp2(proposals).cumsum(2)[strata[alive], row_of]  # (A, C)
        limits = np.minimum(uniform * cumulative[:, -1], np.nextafter(cumulative[:, -1], 0))
        chosen = (cumulative <= limits[:, None]).sum(1)  # the first symbol whose interval ends beyond the limit
        completions[alive, place] = symbols[chosen]
        bits[alive] -= log2_probs[row_of, chosen]
        log2_proposals[alive] += proposals[:, row_of, chosen].T
        if tick:
            tick(place + 1, space.max_length)
        reached = space.next_node[nodes[row_of], symbols[chosen]]
        going_on = reached != space.accept
        alive = alive[going_on]
        if len(alive) == 0:
            break
        # Prefixes that several draws share are read once.
        keys, firsts, row_of = np.unique(
            (row_of * len(symbols) + chosen)[going_on], return_index=True, return_inverse=True
        )
        nodes = reached[going_on][firsts].astype(np.int64)
        parents, added = torch.from_numpy(keys // len(symbols)), torch.from_numpy(symbols[keys % len(symbols)])
        state = advance_in_tiles(model, state, added.to(model.device), parents.to(model.device))
    log2_mixture = np.logaddexp2.reduce(log2_proposals - math.log2(len(TEMPERATURES)), axis=1)
    return WeightedDraws(completions, bits, -log2_mixture, strata)


def _tempered(log2_probs: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return log2 of each proposal's next-symbol probabilities: (U, C) and (U, C) -> (K, U, C); -inf outside R."""
    inverse = 1 / np.array(TEMPERATURES)[:, None, None]
    with np.errstate(divide="ignore"):
        mixed = inverse * log2_probs + (1 - inverse) * np.log2(np.where(shares > 0, shares, 1))
        mixed = np.where(shares > 0, mixed, -np.inf)
    return mixed - np.logaddexp2.reduce(mixed, axis=2, keepdims=True)


@dataclass(frozen=True)
class Effort:
    """How long to go on drawing.

    Attributes:
        first: Draws from each proposal in the first round.
        precision_bits: Half-width of the interval that is enough.
        most: Draws in all after which no other round begins.
        seed: Of the draws; each round has a generator of its own.
    """

    first: int
    precision_bits: float
    most: int
    seed: tuple[int, ...]


def importance_exposures(
    model: LanguageModel,
    start: PrefixState,
    space: EncodedSpace,
    targets: np.ndarray,
    inserted: np.ndarray,
    costs_bits: np.ndarray,
    wanted: Sequence[int],
    effort: Effort,
    store: PartStore,
    label: str = "importance",
    tick: Ticker | None = None,
    ranks: Ranks = ALONE,
) -> tuple[list[Estimate], int]:
    """Estimate the exposure of several secrets of one space, drawing until each is known well enough.

    Args:
        model: The model.
        start: State after the template's prefix, one row.
        space: R.
        targets: Secrets and controls, symbol ids, shape (K, max_length).
        inserted: Which of them are inserted, and so nobody's reference, shape (K,), bool.
        costs_bits: Their log-perplexity, shape (K,).
        wanted: Which of them to estimate.
        effort: When to stop.
        store: Keeps finished rounds, but for the first.
        label: What to keep them under.
        tick: Told of progress, in draws; the number to do grows by rounds.
        ranks: Who shares the work.

    Returns:
        The estimates, in the order of ``wanted``, and the number of draws.
    """
    rounds: list[Arrays] = []
    drawn = 0
    while True:
        size = effort.first if not rounds else min(drawn // len(TEMPERATURES), _LARGEST_ROUND)
        name = f"{label}-{len(rounds):05d}"
        own = store.get(name) if rounds else None
        if own is None:
            seed = (*effort.seed, len(rounds))
            own = _drawn(model, start, space, size, seed, targets, _shifted(tick, drawn, size), ranks)
            if rounds:
                store.put(name, own)
        rounds.append(own)
        drawn += size * len(TEMPERATURES)
        whole = {key: np.concatenate([part[key] for part in rounds]) for key in own}
        # A draw of an inserted secret, or of the secret itself, keeps its place among the n and counts for nothing.
        bits = np.where(np.r_[inserted, False][whole["owner"]], np.inf, whole["bits"])
        estimates = [
            importance_exposure(
                float(costs_bits[k]),
                np.where(whole["owner"] == k, np.inf, bits),
                whole["log2_weights"],
                whole["strata"],
                space.bits,
            )
            for k in wanted
        ]
        enough = all(own.trusted and own.high - own.low <= 2 * effort.precision_bits for own in estimates)
        if enough or drawn >= effort.most:
            return estimates, drawn


def _drawn(
    model: LanguageModel,
    start: PrefixState,
    space: EncodedSpace,
    size: int,
    seed: tuple[int, ...],
    targets: np.ndarray,
    tick: Callable[[float], None],
    ranks: Ranks,
) -> Arrays:
    """Draw one round, in lots that may be drawn anywhere; ``tick`` is told the share that is done."""
    lots = range(math.ceil(size / _LOT))
    tensors, facts = space.packed()
    tensors |= {"targets": torch.from_numpy(targets), **packed_state(start)}
    facts |= {"round": size, "seed": seed}
    found: list[Arrays] = []

    def tick_within(place: int, places: int) -> None:
        tick((len(found) + place / places) / len(lots))

    piece = _lots_of(model, start, space, size, seed, targets, tick_within)
    for own in ranks.spread("draws", tensors, facts, piece, lots):
        found.append(own)
        tick(len(found) / len(lots))
    return {key: np.concatenate([own[key] for own in found]) for key in found[0]}


def follow_drawing(task: Task, readers: Readers, ranks: Ranks) -> None:
    """Take this process's part in a round of the leader's ``importance_exposures``."""
    facts, model = task.facts, readers.model
    start = unpacked_state(task.tensors, model.device)
    space, targets = EncodedSpace.unpacked(task.tensors, facts), task.tensors["targets"].numpy()
    ranks.contribute(_lots_of(model, start, space, facts["round"], facts["seed"], targets), facts["indices"])


def _lots_of(
    model: LanguageModel,
    start: PrefixState,
    space: EncodedSpace,
    size: int,
    seed: Sequence[int],
    targets: np.ndarray,
    tick: Ticker | None = None,
) -> Callable[[int], Arrays]:
    def piece(lot: int) -> Arrays:
        rng = np.random.default_rng([*seed, lot])
        draws = draw_members(model, start, space, min(_LOT, size - lot * _LOT), rng, tick)
        return {
            "bits": draws.bits,
            "log2_weights": draws.log2_weights,
            "strata": draws.strata,
            "owner": owners(draws.completions, targets),
        }

    return piece


def _shifted(tick: Ticker | None, drawn: int, size: int) -> Callable[[float], None]:
    """Return a ticker of a round's share that tells draws in all."""
    own = size * len(TEMPERATURES)
    return lambda share: tick(drawn + round(own * share), drawn + own) if tick else None


def importance_exposure(
    log_perplexity_bits: float,
    draw_bits: np.ndarray,
    log2_weights: np.ndarray,
    strata: np.ndarray,
    space_bits: float,
) -> Estimate:
    """Estimate exposure from weighted members of R.

    The interval is a gamma distribution's, as for a weighted sum of Poisson counts (Fay & Feuer 1997,
    *Confidence intervals for directly standardized rates*), with the variance taken within strata: the lower
    end is the lower quantile of a gamma law with the estimate's mean and variance; for the upper end, one more
    draw of the largest weight met up to the secret's cost, or just beyond, is added. It is Clopper and
    Pearson's where all weights are equal and the counts small, a normal one where they are large, and it does
    not shrink to nothing where no draw is likelier.

    Args:
        log_perplexity_bits: Cost of the secret.
        draw_bits: Costs of the draws, infinite for those that are no reference (inserted secrets, and the
            secret itself), shape (n,).
        log2_weights: log2 of each draw's weight 1 / q(x), shape (n,).
        strata: Which proposal each draw came from, shape (n,); a fixed number was drawn from each.
        space_bits: log2 of the size of R.

    Returns:
        The estimate. It is trusted when the effective number of likelier draws is at least
        ``ENOUGH_EFFECTIVE``.

    Raises:
        MeasurementError: Fewer than two draws.
    """
    count = len(draw_bits)
    if count < 2:
        raise MeasurementError(f"expected at least 2 draws, got {count}: raise --samples")
    likelier = (draw_bits < log_perplexity_bits) + 0.5 * (draw_bits == log_perplexity_bits)
    unit = _largest_log2_weight(log_perplexity_bits, draw_bits, log2_weights)
    # In units of the largest weight that matters, so that nothing overflows.
    terms = likelier * np.exp2(np.where(likelier > 0, log2_weights - unit, 0.0))
    mean = float(terms.mean())
    variance = 0.0
    for stratum in np.unique(strata):
        own = terms[strata == stratum]
        variance += len(own) * (float(own.var(ddof=1)) if len(own) > 1 else float(own[0]) ** 2)
    effective = float(terms.sum() ** 2 / (terms**2).sum()) if mean > 0 else 0.0
    if effective > 0:
        # Draws that happen to agree do not make the figure certain: the next few of their kind may differ.
        variance = max(variance, min(4.0, effective) * (float(terms.sum()) / effective) ** 2)
    variance /= count**2
    low = _gamma_quantile(TAIL, mean, variance)
    high = _gamma_quantile(1 - TAIL, mean + 1 / count, variance + 1 / count**2)
    trusted = effective >= ENOUGH_EFFECTIVE
    return Estimate(
        bits=_exposure_at(mean, unit, space_bits),
        low=_exposure_at(high, unit, space_bits),
        high=_exposure_at(low, unit, space_bits),
        trusted=trusted,
        note="" if trusted else f"effective sample size {effective:.0f}, expected at least {ENOUGH_EFFECTIVE:.0f}",
    )


def _largest_log2_weight(cost: float, draw_bits: np.ndarray, log2_weights: np.ndarray) -> float:
    """Return the largest weight of the draws up to the secret's cost and of the few that come next."""
    up_to = draw_bits <= cost
    beyond = np.flatnonzero(~up_to & np.isfinite(draw_bits))
    if len(beyond) > NEIGHBOURS:
        beyond = beyond[np.argpartition(draw_bits[beyond], NEIGHBOURS - 1)[:NEIGHBOURS]]
    near = np.concatenate((log2_weights[up_to], log2_weights[beyond]))
    return float(near.max()) if len(near) else float(log2_weights.max())


def _gamma_quantile(share: float, mean: float, variance: float) -> float:
    if variance <= 0:
        return mean
    return float(gamma.ppf(share, mean**2 / variance, scale=variance / mean))


def _exposure_at(others: float, unit: float, space_bits: float) -> float:
    """Exposure of a secret, given the number of likelier members in units of 2^unit."""
    log2_rank = float(np.logaddexp2(0.0, math.log2(others) + unit)) if others > 0 else 0.0
    return min(max(0.0, space_bits - log2_rank), space_bits)
