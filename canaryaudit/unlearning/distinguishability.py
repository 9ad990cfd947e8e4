"""Whether secrets are still told from fresh draws of their spaces: where fine-tuning may stop."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from canaryaudit.canaries.template import Template
from canaryaudit.exposure.scoring import read_prefix, score_log_perplexity
from canaryaudit.models.language_model import LanguageModel
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
