"""Whether secrets are still told from fresh draws of their spaces: an update's look at its own result."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from canaryaudit.canaries.template import Template
from canaryaudit.exposure.scoring import read_prefix, score_log_perplexity
from canaryaudit.models.language_model import LanguageModel
from canaryaudit.stats import exposure_sum_pvalue
from canaryaudit.unlearning.occurrences import Occurrence


@dataclass(frozen=True)
class FreshDrawComparison:
    """What one secret costs beside fresh draws of its space, in bits of log-perplexity.

    Attributes:
        cost: The secret's.
        drawn: The draws', shape (N,).
    """

    cost: float
    drawn: np.ndarray

    @property
    def standard_score(self) -> float:
        """How far the secret's cost lies below that of the draws, in their standard deviations."""
        return float(self.drawn.mean() - self.cost) / max(float(self.drawn.std()), 1e-9)

    @property
    def share_below(self) -> float:
        """The share of draws that are likelier than the secret, which counts as one of them itself; above 0."""
        below, alike = (self.drawn < self.cost).sum(), (self.drawn == self.cost).sum()
        return float(below + (alike + 1) / 2) / (len(self.drawn) + 1)


def compare_with_fresh_draws(
    model: LanguageModel, places: Sequence[Occurrence], count: int, rng: np.random.Generator
) -> list[FreshDrawComparison]:
    """Score every canary's secret after its template's prefix, and uniform draws for each template.

    Args:
        model: The model to look at.
        places: Where the secrets stand.
        count: Draws for each template; ten for each of its canaries, where that is more, since canaries share them.
        rng: Source of the draws.
    """
    own = {place.canary.id: place for place in places}
    found = []
    for name in dict.fromkeys(place.canary.template for place in own.values()):
        alike = [place for place in own.values() if place.canary.template == name]
        start = read_prefix(model, Template.parse(name).prefix)
        drawn = score_log_perplexity(model, start, alike[0].space.sample(max(count, 10 * len(alike)), rng))
        for place in alike:
            cost = score_log_perplexity(model, start, place.secret[None].astype(np.int32))[0]
            found.append(FreshDrawComparison(float(cost), drawn))
    return found


def unseen_pvalue(found: Sequence[FreshDrawComparison]) -> float:
    """Return the probability that as many secrets never seen would stand out as much as these.

    The shares of such secrets are uniform, so that -log2 of a share is distributed as their exposure is.
    """
    return exposure_sum_pvalue((-np.log2([own.share_below for own in found])).tolist())
