"""Worst-case exposure: the largest over many probes, judged against what chance makes of as many.

Whoever asks in forty ways finds something in one of them. A uniform member of R that was never inserted, put to the
very same probes, says how much: a secret that the model never saw is exchangeable with such references, so that

    p = (1 + number of references whose score is at least the secret's) / (1 + number of references)

is at most alpha with probability at most alpha, in finite samples and whatever the dependence between probes (a
conformal p-value: Vovk et al. 2005; Bates et al. 2023, *Testing for outliers with conformal p-values*).

The score of a member is the largest of its *tail bits* over the probes, log2 of the probe's weight added. Tail bits are
an exposure within the pool of the secret and its references, continued beyond the likeliest few by the exponential law
fitted to them: with P probes some P references are the likeliest under one probe, so ranks alone could never get below
P / n. They are symmetric in the pool, as exchangeability asks; whether the fit is good decides power, never validity.

Below 1 / (1 + n) a rank says nothing. There the exposure E itself goes on: over uniform secrets P(E >= x) <= 2^-x
under every probe, so that by the union bound P(max over probes of E + log2 w >= x) <= 2^-x, the weights w adding up
to 1. Where no reference reaches the secret's score the p-value is the smaller of the two: for x up to log2(1 + n) the
event p <= 2^-x is the rank's, beyond it the union bound's, and either has probability at most 2^-x.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from canaryaudit.errors import MeasurementError
from canaryaudit.exposure.estimators.arrays import read_bits, read_p_values

MIN_TAIL = 8
"""Likeliest members of a pool that the exponential tail is fitted to, at least where there are so many."""
TAIL_SHARE = 1 / 16
_SIMULATIONS = 4_000
"""Of the sum of several secrets' bits: its p-value near 5 % is then known to a third of a percent."""


@dataclass(frozen=True)
class WorstCase:
    """The probe under which a secret stands out most, and how likely chance alone makes it so.

    Attributes:
        probe: Index of the probe.
        score_bits: The largest tail bits, log2 of the probe's weight added.
        p_value: Of the hypothesis that the model never saw the secret, by rank among the references.
        tail_bits: Under every probe, shape (P,).
        unmatched: Whether no reference has as large a score: ``p_value`` is then the smallest there can be.
    """

    probe: int
    score_bits: float
    p_value: float
    tail_bits: np.ndarray
    unmatched: bool


def log2_weights(families: Sequence[str]) -> np.ndarray:
    """Return log2 of each probe's weight, shape (P,): families share alike, and each family's probes share alike.

    So a family of many probes takes nothing from one of few: the template's own prefix is worth asking for however
    many others are tried.

    Args:
        families: Family of each probe.
    """
    if not families:
        raise MeasurementError("expected at least one probe")
    _, index, counts = np.unique(np.array(families), return_inverse=True, return_counts=True)
    weights: np.ndarray = -np.log2(len(counts)) - np.log2(counts[index])
    return weights


class ReferenceScores:
    """References under every probe, ready to judge secrets by.

    Args:
        log_perplexity_bits: Cost of each reference under each probe, shape (P, n): members of R drawn uniformly, never
            inserted, all different.
        weights: log2 of each probe's weight, shape (P,).

    Raises:
        MeasurementError: Fewer than two references, or a cost that is no number.
    """

    def __init__(self, log_perplexity_bits: np.ndarray, weights: np.ndarray) -> None:
        costs = np.asarray(log_perplexity_bits, dtype=float)
        if costs.ndim != 2 or costs.shape[1] < 2:
            raise MeasurementError(f"expected at least 2 references under each probe, got an array of {costs.shape}")
        if costs.shape[0] != len(weights):
            raise MeasurementError(f"expected a weight for each of {costs.shape[0]} probes, got {len(weights)}")
        _refuse_nan(costs)
        read_bits(weights, "weights")
        self.costs, self.weights = costs, np.asarray(weights, dtype=float)
        self.num_references = costs.shape[1]
        self._sorted = np.sort(costs, axis=1)
        self._sums = np.cumsum(self._sorted, axis=1)
        self._middle_rank = _middle_ranks(self._sorted, costs)  # among the references, each itself counting half

    def judge(self, log_perplexity_bits: np.ndarray) -> WorstCase:
        """Judge a secret that is none of the references by its cost under each probe, shape (P,)."""
        target = np.asarray(log_perplexity_bits, dtype=float)
        _refuse_nan(target)
        below = (self.costs < target[:, None]).sum(1) + 0.5 * (self.costs == target[:, None]).sum(1)  # (P,)
        # In the pool of the secret and all references: the secret moves back those that cost more.
        moved = (self.costs > target[:, None]) + 0.5 * (self.costs == target[:, None])
        threshold, scale = self._tail(target)
        pool = self.num_references + 1
        own = _tail_bits(target, below + 0.5, threshold, scale, pool)
        others = _tail_bits(self.costs, self._middle_rank + moved, threshold[:, None], scale[:, None], pool)  # (P, n)
        return self._against(own, (others + self.weights[:, None]).max(0), pool)

    def judge_reference(self, index: int) -> WorstCase:
        """Judge a reference against all the others, as if it were the secret."""
        own, scores = self._within()
        return self._against(own[:, index], np.delete(scores, index), self.num_references)

    def _against(self, own: np.ndarray, scores: np.ndarray, pool: int) -> WorstCase:
        weighted = own + self.weights
        probe = int(np.argmax(weighted))
        reached = int((scores >= weighted[probe]).sum())
        return WorstCase(probe, float(weighted[probe]), (1 + reached) / pool, own, reached == 0)

    def _within(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the references' tail bits among themselves, shape (P, n), and their scores, shape (n,)."""
        if not hasattr(self, "_own"):
            size = _tail_size(self.num_references)
            threshold = self._sorted[:, size - 1]
            scale = _tail_scale(threshold, self._sums[:, size - 1], size)
            own = _tail_bits(self.costs, self._middle_rank, threshold[:, None], scale[:, None], self.num_references)
            self._own = own, (own + self.weights[:, None]).max(0)
        return self._own

    def _tail(self, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the tail's threshold and scale under each probe in the pool with a secret, shape (P,) each."""
        size = _tail_size(self.num_references + 1)
        before = self._sorted[:, size - 2]
        threshold = np.clip(target, before, self._sorted[:, size - 1])
        total = self._sums[:, size - 2] + np.minimum(target, self._sorted[:, size - 1])
        return threshold, _tail_scale(threshold, total, size)


def extended_p_value(worst: WorstCase, exposure_low_bits: float, log2_weight: float) -> float:
    """Return the p-value continued below the smallest that references can give.

    Args:
        worst: By rank.
        exposure_low_bits: Exposure under one of the probes, or the lower end of its interval.
        log2_weight: log2 of that probe's weight.
    """
    read_bits((exposure_low_bits, log2_weight), "exposure_low_bits and log2_weight")
    if not worst.unmatched:
        return worst.p_value
    return min(worst.p_value, math.exp2(-(exposure_low_bits + log2_weight)))


def joint_p_value(p_values: Sequence[Sequence[float]], num_references: Sequence[int], seed: int = 0) -> float:
    """Return the probability that as many secrets never seen stand out as much, taken together.

    The sum of -log2 p is compared with its law, simulated. Secrets of one template are judged by the same references,
    so their p-values are not independent (Bates et al. 2023, section 3): each falls into one of the n + 1 gaps that
    the references leave, and the more likely into one the more have done so before it, whatever the scores' law.

    Args:
        p_values: Of each template's secrets, by rank.
        num_references: Of each template.
        seed: Of the simulation.
    """
    rng = np.random.default_rng(seed)
    total, simulated, number = 0.0, np.zeros(_SIMULATIONS), 0
    for own, references in zip(p_values, num_references, strict=True):
        if not len(own):
            continue
        number += len(own)
        # Tail bits of p = j / (n + 1), j = 1 ... n + 1; what lies below the least p counts as the least.
        bits = -np.log2(np.arange(1, references + 2) / (references + 1))
        total += float(np.minimum(-np.log2(read_p_values(own)), bits[0]).sum())
        simulated += bits[_shared_gaps(len(own), references + 1, rng)].sum(0)
    if not number:
        raise MeasurementError("expected at least one p-value")
    return (1 + int((simulated >= total - 1e-9).sum())) / (1 + _SIMULATIONS)


def _shared_gaps(secrets: int, gaps: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the gap that each secret falls into, shape (secrets, simulations): Polya's urn, a ball a gap at first."""
    drawn = np.empty((secrets, _SIMULATIONS), dtype=np.int64)
    simulation = np.arange(_SIMULATIONS)
    for turn in range(secrets):
        ball = rng.integers(0, gaps + turn, _SIMULATIONS)
        drawn[turn] = np.where(ball < gaps, ball, drawn[np.maximum(ball - gaps, 0), simulation])
    return drawn


def _middle_ranks(ordered: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Return how many of a probe's references cost less than each cost, ties and itself counting half: (P, n)."""
    ranks = np.empty_like(costs)
    for row, (own, sought) in enumerate(zip(ordered, costs, strict=True)):
        ranks[row] = (np.searchsorted(own, sought, "left") + np.searchsorted(own, sought, "right")) / 2
    return ranks


def _tail_size(pool: int) -> int:
    return max(2, min(pool // 2, max(MIN_TAIL, round(pool * TAIL_SHARE))))


def _tail_scale(threshold: np.ndarray, total: np.ndarray, size: int) -> np.ndarray:
    """Return the mean distance to the threshold of the others that are likelier, shape (P,)."""
    scale: np.ndarray = np.maximum(size * threshold - total, 0.0) / max(1, size - 1)
    return scale


def _tail_bits(
    costs: np.ndarray, middle_rank: np.ndarray, threshold: np.ndarray, scale: np.ndarray, pool: int
) -> np.ndarray:
    """Return -log2 of the share of a pool that is likelier, exponential below the threshold."""
    bits: np.ndarray = -np.log2(np.minimum(middle_rank, pool) / pool)
    size = _tail_size(pool)
    with np.errstate(divide="ignore", invalid="ignore"):
        beyond = -math.log2((size - 0.5) / pool) + (threshold - costs) / (scale * math.log(2))
    # Where all of the likeliest cost the same there is no tail to speak of.
    return np.where((costs < threshold) & (scale > 0), beyond, bits)


def _refuse_nan(costs: np.ndarray) -> None:
    if np.isnan(costs).any():
        raise MeasurementError("a log-perplexity is no number: the model is damaged; verify the run")
