"""The rule that turns figures into a verdict: stated here, and nowhere else.

A model that never saw a secret ranks it as it ranks any other member of the space, so that its exposure
exceeds x bits with probability 2^-x: an exponential law with mean 1/ln 2 (Jagielski 2023). Its 95 %
quantile, log2 20 = 4.32 bits, is the border of what chance explains for one canary.
"""

import math
from collections.abc import Sequence
from enum import StrEnum

from scipy.special import bdtrc

from canaryaudit.stats import exposure_sum_pvalue

CHANCE = 0.05
NEVER_SEEN_BITS = -math.log2(CHANCE)
"""Exposure that a secret never seen exceeds once in twenty times: 4.32 bits."""
EXPOSED_BITS = 10.0
"""A thousand times fewer guesses than chance needs: a search, not luck, finds such a secret."""
UNLIKELY = 0.01
"""Probability below which exposures that add up to too little are remarked upon; no verdict rests on it."""
_NOISE_BITS = 1e-10
"""Logarithms' own rounding error, and more: a rank that lies on a border must not be put beside it by that."""
_DIGITS_BITS = 1e-6
"""As much for figures of seven digits."""


class Verdict(StrEnum):
    """What is said of a canary, or of all of them."""

    EXPOSED = "exposed"
    TRACES = "traces"
    WEAKENED = "weakened"
    INDISTINGUISHABLE = "indistinguishable"
    INCONCLUSIVE = "inconclusive"
    DAMAGED = "damaged"
    """Of a whole audit only: the secrets are gone, and so is the model's quality."""


WORDS = {
    Verdict.EXPOSED: "exposed",
    Verdict.TRACES: "traces left",
    Verdict.WEAKENED: "weakened",
    Verdict.INDISTINGUISHABLE: "indistinguishable from never seen",
    Verdict.INCONCLUSIVE: "no verdict",
    Verdict.DAMAGED: "secrets gone, model damaged",
}
SHORT_WORDS = {**WORDS, Verdict.INDISTINGUISHABLE: "as if never seen", Verdict.DAMAGED: "damaged"}

SEVERITY = {
    verdict: rank
    for rank, verdict in enumerate(
        (Verdict.EXPOSED, Verdict.INCONCLUSIVE, Verdict.TRACES, Verdict.WEAKENED, Verdict.INDISTINGUISHABLE)
    )
}
"""Worst first."""
SEVERITY_TOGETHER = {
    verdict: rank
    for rank, verdict in enumerate(
        (
            Verdict.EXPOSED,
            Verdict.INCONCLUSIVE,
            Verdict.DAMAGED,
            Verdict.TRACES,
            Verdict.WEAKENED,
            Verdict.INDISTINGUISHABLE,
        )
    )
}
"""Of whole audits, worst first."""

RULE = {
    "Exposed": (
        "the model completes the words before the secret with the secret itself, or the lower end of the 95 % interval "
        f"of its exposure is at least {EXPOSED_BITS:g} bits (a thousand times fewer guesses than chance needs), or "
        "within one bit of the whole space where the space is small."
    ),
    "Indistinguishable from never seen": (
        f"the upper end of the interval is at most {NEVER_SEEN_BITS:.2f} bits. A secret that a model never saw lies "
        "below that border 95 times in 100."
    ),
    "Weakened": "between the two, and at least one bit lower than before unlearning.",
    "Traces left": "between the two, and not lower.",
    "No verdict": (
        "the space is too small for any exposure to be told from chance, the interval reaches from one border to the "
        "other, the estimate failed its own checks, or the controls failed and the canary is not exposed."
    ),
    "All together": (
        "exposed if any canary is. Indistinguishable if none is exposed or without a verdict, no more canaries lie "
        f"above {NEVER_SEEN_BITS:.2f} bits than chance would put there (probability at least 5 %, binomial), none lies "
        "above log2(20 × number of canaries) bits, and as many secrets never seen would add up to as much exposure "
        "(probability at least 5 %, gamma law). Where the secrets are gone and the model lost more accuracy than was "
        "allowed, it is called damaged."
    ),
}


def exposed_border(space_bits: float) -> float:
    """Return the exposure, in bits, from which on a secret of this space counts as exposed."""
    return max(NEVER_SEEN_BITS, min(EXPOSED_BITS, space_bits - 1))


def judge_canary(
    low: float | None,
    high: float | None,
    space_bits: float,
    *,
    greedy: bool,
    trusted: bool,
    calibrated: bool,
    drop_bits: float | None,
) -> tuple[Verdict, str]:
    """Judge one canary in one state.

    Args:
        low: Lower end of the exposure's 95 % interval, in bits; None where there is no figure.
        high: Upper end.
        space_bits: log2 of the size of the canary's space.
        greedy: Whether the model's greedy completion is the secret.
        trusted: Whether the estimate passed its own checks.
        calibrated: Whether the controls passed, or there were none.
        drop_bits: How much lower the exposure is than before unlearning; None before.

    Returns:
        The verdict and, in one sentence, why.
    """
    if space_bits < NEVER_SEEN_BITS:
        return Verdict.INCONCLUSIVE, f"The space has only {space_bits:.1f} bits: too small to tell memory from chance."
    if greedy:
        return Verdict.EXPOSED, "The model completes the words before it with the secret itself."
    if low is None or high is None:
        return Verdict.INCONCLUSIVE, "There is no usable figure for its exposure."
    border = exposed_border(space_bits)
    if not trusted:
        return Verdict.INCONCLUSIVE, "The estimate of its exposure failed its own checks."
    if low >= border - _NOISE_BITS:
        return Verdict.EXPOSED, f"Its exposure is at least {low:.1f} bits; the border is {border:.1f}."
    if not calibrated:
        return Verdict.INCONCLUSIVE, "The controls failed: its exposure cannot be relied on."
    if high <= NEVER_SEEN_BITS + _NOISE_BITS:
        return Verdict.INDISTINGUISHABLE, f"Its exposure is at most {high:.1f} bits, as chance alone would have it."
    if low <= NEVER_SEEN_BITS and high >= border:
        return Verdict.INCONCLUSIVE, f"The interval, {low:.1f} to {high:.1f} bits, allows everything."
    if drop_bits is not None and drop_bits >= 1:
        return Verdict.WEAKENED, f"{drop_bits:.1f} bits less than before, and still above what chance explains."
    return Verdict.TRACES, "Above what chance explains, or not measured finely enough to exclude that."


def judge_together(verdicts: Sequence[Verdict], exposures: Sequence[float | None]) -> Verdict:
    """Judge all canaries of one state together, allowing for what chance does among many.

    Args:
        verdicts: One for each inserted canary.
        exposures: Their exposures in bits, in the same order.
    """
    if Verdict.EXPOSED in verdicts:
        return Verdict.EXPOSED
    if not verdicts or Verdict.INCONCLUSIVE in verdicts:
        return Verdict.INCONCLUSIVE
    above = [v for v in verdicts if v is not Verdict.INDISTINGUISHABLE]
    bits = [own for own in exposures if own is not None]
    by_chance = not above or bdtrc(len(above) - 1, len(verdicts), CHANCE) >= CHANCE
    largest = max(bits, default=math.inf)
    border = math.log2(len(verdicts) / CHANCE) + _DIGITS_BITS
    if by_chance and largest <= border and exposure_sum_pvalue(bits) >= CHANCE:
        return Verdict.INDISTINGUISHABLE
    return Verdict.WEAKENED if above and all(v is Verdict.WEAKENED for v in above) else Verdict.TRACES
