"""Exposure as the share of uniform references that are likelier than the secret, with its exact interval."""

import math
from dataclasses import dataclass
from typing import overload

import numpy as np
from scipy.stats import beta

from canaryaudit.errors import MeasurementError
from canaryaudit.exposure.estimators.arrays import (
    Values,
    check_same_length,
    check_sign,
    estimate_each,
    read_bits,
    read_counts,
    read_references,
    read_rows,
    read_space_bits,
)
from canaryaudit.records import Estimate

FEWEST = 2
"""References without which there is no estimate."""
ENOUGH_LIKELIER = 10
"""Likelier references from which the figure is trusted: its interval is then about a factor of two wide."""
NEIGHBORS = 8
"""References next to a secret's cost that tell how much an error of the draft that was not met may weigh."""


@dataclass(frozen=True)
class Rescored:
    """References whose log-perplexity was computed a second time, exactly.

    Attributes:
        rows: Which references, shape (m,), whole numbers from 0.
        bits: Their exact log-perplexity, shape (m,).
        probabilities: With which probability each had been chosen for it, shape (m,), above 0 and at most 1.

    Raises:
        MeasurementError: The arrays differ in length, or a value is out of its range.

    Examples:
        >>> draft = [9.0, 10.0, 11.0, 12.0]
        >>> exact = Rescored(rows=[1, 2], bits=[10.5, 10.5], probabilities=[1.0, 1.0])
        >>> sampled_exposure(10.7, draft, space_bits=20, rescored=exact).bits
        0.51...
    """

    rows: np.ndarray
    bits: np.ndarray
    probabilities: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", read_rows(self.rows, 2**62, "rows"))
        object.__setattr__(self, "bits", read_bits(self.bits, "bits"))
        object.__setattr__(self, "probabilities", read_bits(self.probabilities, "probabilities"))
        check_same_length(rows=self.rows, bits=self.bits, probabilities=self.probabilities)
        if ((self.probabilities <= 0) | (self.probabilities > 1)).any():
            raise MeasurementError("probabilities: expected numbers above 0 and at most 1: give those of the choice")

    def without(self, dropped: np.ndarray) -> "Rescored":
        """Return those that stay, renumbered, where some references are taken out, shape (U,), bool."""
        kept = ~dropped[self.rows]
        rows = self.rows[kept] - np.cumsum(dropped)[self.rows[kept]]
        return Rescored(rows, self.bits[kept], self.probabilities[kept])


@overload
def sampled_exposure(
    secrets: float,
    references: Values,
    space_bits: float,
    *,
    counts: Values | None = None,
    rescored: Rescored | None = None,
) -> Estimate: ...
@overload
def sampled_exposure(
    secrets: Values,
    references: Values,
    space_bits: float,
    *,
    counts: Values | None = None,
    rescored: Rescored | None = None,
) -> list[Estimate]: ...
def sampled_exposure(
    secrets: float | Values,
    references: Values,
    space_bits: float,
    *,
    counts: Values | None = None,
    rescored: Rescored | None = None,
) -> Estimate | list[Estimate]:
    """Estimate exposure from a uniform sample of the space.

    exposure(s) = -log2 P(Px(r) <= Px(s)) over r uniform in R   (Carlini et al. 2019, section 4.3).

    With k of n references likelier (ties count half) the estimate is -log2((k + 1/2) / (n + 1)), whose mean
    over secrets that are themselves uniform draws is that of the true exposure. The interval is that of
    Clopper & Pearson 1934 for the share p of likelier members: rank / |R| = 1 / |R| + p (1 - 1 / |R|). With
    k = 0 its lower end is the bound that the sample gives.

    Where the references' log-perplexities are approximate and some were computed again, k is a difference estimate:
    the approximate count plus the sum of (exact - approximate) / probability over those. The interval is then that
    of Korn & Graubard 1998 (*Confidence intervals for proportions with small expected number of positive counts
    estimated from survey data*): Clopper & Pearson's at the number of plain draws that are worth as much.

    Args:
        secrets: Log-perplexity of one secret, or of several of one space, in bits, shape (k,).
        references: Log-perplexities of members drawn uniformly, in bits, shape (n,); inserted secrets and the secret
            itself are not among them.
        space_bits: log2 of the size of R, at which exposure is capped.
        counts: How often each reference was drawn, shape (n,); once if not given.
        rescored: Some of the references' exact log-perplexities, if ``references`` are approximate.

    Returns:
        An ``Estimate`` for one secret, a list of them for several: exposure in bits with its 95 % interval. It is
        trusted from ten likelier references.

    Raises:
        MeasurementError: Fewer than two references, a value that is no finite number, log-probabilities where
            log-perplexities are expected, shapes that do not fit, or ``space_bits`` below 1.

    Examples:
        >>> import numpy as np
        >>> references = np.random.default_rng(0).normal(40.0, 3.0, 10_000)  # -log2 p of random numbers
        >>> estimate = sampled_exposure(34.0, references, space_bits=33.2)
        >>> print(f"{estimate.bits:.2f} bits, 95 % interval {estimate.low:.2f} to {estimate.high:.2f}")
        5.43 bits, 95 % interval 5.25 to 5.62
        >>> [round(estimate.bits, 2) for estimate in sampled_exposure([34.0, 40.0], references, space_bits=33.2)]
        [5.43, 0.99]
    """
    sample = read_references(references, "references")
    space = read_space_bits(space_bits)
    check_sign(read_bits(secrets, "secrets"), sample)
    drawn = np.ones(len(sample), dtype=np.int64) if counts is None else read_counts(counts, "counts", 1)
    check_same_length(references=sample, counts=drawn)
    if drawn.sum() < FEWEST:
        raise MeasurementError(f"expected at least {FEWEST} references, got {drawn.sum()}: draw more of them")
    if rescored is not None:
        read_rows(rescored.rows, len(sample), "rescored rows")
    result: Estimate | list[Estimate] = estimate_each(
        secrets, lambda cost: _estimate(cost, sample, space, drawn, rescored)
    )
    return result


def _estimate(
    cost: float, references: np.ndarray, space_bits: float, counts: np.ndarray, rescored: Rescored | None
) -> Estimate:
    count = float(counts.sum())
    likelier = float(counts @ _likelier(references, cost))
    if rescored is not None and len(rescored.rows):
        change, variance = _correction(cost, references, counts, rescored)
        share = min(max((likelier + change) / count, 0.0), 1.0)
        plain = max(share * (1 - share), 1 / count) / count
        count *= plain / (plain + variance / count**2)
        likelier = share * count
    bits = -math.log2((likelier + 0.5) / (count + 1))
    share_high = float(beta.ppf(0.975, likelier + 1, count - likelier)) if likelier < count else 1.0
    share_low = float(beta.ppf(0.025, likelier, count - likelier + 1)) if likelier > 0 else 0.0
    none = likelier < 1
    note = (
        f"none of {count:.0f} references is likelier: only the lower bound is known"
        if none
        else f"only {likelier:g} of {count:.0f} references are likelier"
        if likelier < ENOUGH_LIKELIER
        else ""
    )
    low, high = _exposure_at(share_high, space_bits), _exposure_at(share_low, space_bits)
    return Estimate(
        bits=min(max(low, bits), high),
        low=low,
        high=high,
        trusted=likelier >= ENOUGH_LIKELIER,
        note=note,
    )


def _likelier(bits: np.ndarray, cost: float) -> np.ndarray:
    """Return 1 for each reference that is likelier, 1/2 for each tie, shape (n,)."""
    likelier: np.ndarray = (bits < cost) + 0.5 * (bits == cost)
    return likelier


def _correction(cost: float, bits: np.ndarray, counts: np.ndarray, rescored: Rescored) -> tuple[float, float]:
    """Return by how much the number of likelier references is to be corrected, and the correction's variance."""
    approximate, number = bits[rescored.rows], counts[rescored.rows]
    wrong = number * (_likelier(rescored.bits, cost) - _likelier(approximate, cost))
    spread = number**2 * (1 - rescored.probabilities) / rescored.probabilities**2
    near = np.abs(approximate - cost)
    nearest = np.argpartition(near, NEIGHBORS - 1)[:NEIGHBORS] if len(near) > NEIGHBORS else slice(None)
    variance = float((spread * (wrong / number) ** 2).sum()) + float(spread[nearest].max())
    return float((wrong / rescored.probabilities).sum()), variance


def _exposure_at(share: float, space_bits: float) -> float:
    """Exposure of a secret, given the share of the other members that are likelier."""
    if share <= 0:
        return space_bits
    log2_rank = np.logaddexp2(0.0, space_bits + math.log2(share) + math.log1p(-(2.0**-space_bits)) / math.log(2))
    return min(max(0.0, space_bits - float(log2_rank)), space_bits)
