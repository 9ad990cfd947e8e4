"""The rank by importance sampling from tempered copies of the model.

Members of R are drawn from a deterministic mixture of proposals between the uniform law and the model
itself; each is weighted by the balance heuristic, w(x) = 1 / sum_t (n_t / n) q_t(x), so that
rank(s) - 1 = E[w(x) 1(Px(x) < Px(s))], without bias, whatever the rank. One set of draws serves every
secret of a template. (Veach & Guibas 1995; Dell'Amico & Filippone 2015, *Monte Carlo Strength Evaluation*.)
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from canaryaudit.errors import MeasurementError
from canaryaudit.model import LanguageModel, PrefixState
from canaryaudit.records import Estimate
from canaryaudit.scoring import EncodedSpace, Ticker, advance_in_tiles

TEMPERATURES = (1.0, 2.0, 4.0, 8.0, 16.0, math.inf)
ENOUGH_EFFECTIVE = 100.0
"""Effective sample size below which an estimate is not to be believed."""


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
    inverse = 1 / np.array(TEMPERATURES)  # (K,)
    strata = np.repeat(np.arange(len(TEMPERATURES)), per_temperature)
    count = len(strata)
    completions = np.full((count, space.max_length), -1, dtype=np.int32)
    bits = np.zeros(count)
    log2_proposals = np.zeros((count, len(TEMPERATURES)))
    nodes = np.zeros(count, dtype=np.int64)
    with np.errstate(divide="ignore"):
        log2_shares = np.log2(space.shares)
    state = start.rows(torch.zeros(count, dtype=torch.long, device=model.device))
    alive = np.arange(count)
    for place in range(space.max_length):
        uniform = rng.random(count)[alive]
        log2_probs = state.log2_probs.double().cpu().numpy()
        here = log2_shares[nodes[alive]]  # (A, V), -inf outside the space
        allowed = np.isfinite(here)
        tempered = np.empty((len(alive), len(TEMPERATURES), here.shape[1]))
        for k, weight in enumerate(inverse):
            mixed = np.where(allowed, weight * log2_probs + (1 - weight) * np.where(allowed, here, 0.0), -np.inf)
            mixed -= mixed.max(1, keepdims=True)
            tempered[:, k] = mixed - np.log2(np.exp2(mixed).sum(1, keepdims=True))
        own = np.exp2(tempered[np.arange(len(alive)), strata[alive]])
        cumulative = own.cumsum(1)
        chosen = (cumulative < (uniform * cumulative[:, -1])[:, None]).sum(1)
        chosen = np.minimum(chosen, own.shape[1] - 1)
        completions[alive, place] = chosen
        bits[alive] -= log2_probs[np.arange(len(alive)), chosen]
        log2_proposals[alive] += tempered[np.arange(len(alive)), :, chosen]
        nodes[alive] = space.next_node[nodes[alive], chosen]
        going_on = nodes[alive] != space.accept
        if place + 1 < space.max_length and going_on.any():
            rows = torch.from_numpy(np.flatnonzero(going_on)).to(model.device)
            symbols = torch.from_numpy(chosen[going_on].astype(np.int64)).to(model.device)
            state = advance_in_tiles(model, state.rows(rows), symbols)
        alive = alive[going_on]
        if tick:
            tick(place + 1, space.max_length)
        if len(alive) == 0:
            break
    log2_mixture = np.logaddexp2.reduce(log2_proposals - math.log2(len(TEMPERATURES)), axis=1)
    return WeightedDraws(completions, bits, -log2_mixture, strata)


def importance_exposure(
    log_perplexity_bits: float,
    draw_bits: np.ndarray,
    log2_weights: np.ndarray,
    strata: np.ndarray,
    space_bits: float,
) -> Estimate:
    """Estimate exposure from weighted members of R.

    Args:
        log_perplexity_bits: Cost of the secret.
        draw_bits: Costs of the draws, the inserted secrets not among them, shape (n,).
        log2_weights: log2 of each draw's weight 1 / q(x), shape (n,).
        strata: Which proposal each draw came from, shape (n,); a fixed number was drawn from each.
        space_bits: log2 of the size of R.

    Returns:
        The estimate, with a normal interval for the rank from the variance within strata. It is trusted
        when the effective number of likelier draws is at least ``ENOUGH_EFFECTIVE``.

    Raises:
        MeasurementError: Fewer than two draws.
    """
    if len(draw_bits) < 2:
        raise MeasurementError(f"expected at least 2 draws, got {len(draw_bits)}: raise --samples")
    likelier = (draw_bits < log_perplexity_bits) + 0.5 * (draw_bits == log_perplexity_bits)
    # Divided by |R|: a term is then this draw's share of the space, and nothing overflows.
    terms = likelier * np.exp2(log2_weights - space_bits)
    share = terms.mean()
    variance = 0.0
    for stratum in np.unique(strata):
        own = terms[strata == stratum]
        variance += len(own) * own.var(ddof=1) if len(own) > 1 else 0.0
    error = math.sqrt(variance) / len(terms)
    effective = float(terms.sum() ** 2 / (terms**2).sum()) if share > 0 else 0.0
    one = 2.0**-space_bits
    middle, low, high = (min(1.0, max(one, one + value)) for value in (share, share - 1.96 * error, share + 1.96 * error))
    trusted = effective >= ENOUGH_EFFECTIVE
    return Estimate(
        bits=-math.log2(middle) + 0.0,
        low=-math.log2(high) + 0.0,
        high=min(space_bits, -math.log2(low)),
        trusted=trusted,
        note="" if trusted else f"effective sample size {effective:.0f}, expected at least {ENOUGH_EFFECTIVE:.0f}",
    )
