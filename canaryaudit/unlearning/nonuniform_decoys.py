"""Decoys whose law is wide: what takes a secret's place is not uniform, and knows nothing of the secret.

A model that never saw a secret does not hold all numbers for equally likely. It has some law of its own over them,
wide and arbitrary, and a secret that is learned again must first climb past what that law prefers. Under the uniform
law every member of R costs the same: to be three bits likelier than the rest is to be the likeliest of all. So the
unlearned model is given such a law, drawn from the request's seed and the template alone:

    q(s | node) ~ share(s | node) exp(sigma z_s),   sigma = SPREAD sqrt(2 ln A),   z normal scores in random order

with A the number of symbols that may stand at the node. All places with the same choice of symbols have the same
law, which asks of the model neither position nor memory. The secret being a uniform draw from R, its exposure under
*any* law that does not depend on it is a control's: exponential, with mean 1/ln 2 = 1.44 bits.
"""

import zlib
from statistics import NormalDist

import numpy as np

from canaryaudit.unlearning.decoys import Decoys
from canaryaudit.unlearning.occurrences import Occurrence

SPREAD = 1.1
"""Spread of a symbol's log-probability, beside sqrt(2 ln A). At 1 the members' costs, were they normal, would spread so
far that the likeliest of all costs next to nothing (Derrida 1981, the random-energy model's freezing point)."""


class NonUniformDecoys(Decoys):
    """Uniform draws from the secret's own space, each to be predicted by a random law over it.

    Args:
        seed: Of the laws. The same template has the same law under the same seed, in every request.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._laws: dict[str, np.ndarray] = {}

    def distributions(self, place: Occurrence) -> np.ndarray:
        """Return the law of the next symbol at each node of R, shape (nodes, V)."""
        template = place.canary.template
        if template not in self._laws:
            rng = np.random.default_rng([self._seed, zlib.crc32(template.encode())])
            self._laws[template] = nonuniform_distributions(place.space.shares, rng)
        return self._laws[template]


def nonuniform_distributions(shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the law of the next symbol at each node, shape (nodes, V), of the uniform law's shares, of the same shape.

    Nodes with the same choice of symbols get the same preferences; a node without a choice keeps its symbol.
    """
    distributions = shares.copy()
    preferences: dict[bytes, np.ndarray] = {}
    for node, row in enumerate(shares):
        allowed = np.flatnonzero(row)
        if len(allowed) < 2:
            continue
        if allowed.tobytes() not in preferences:
            scores = normal_scores(len(allowed), rng) * SPREAD * np.sqrt(2 * np.log(len(allowed)))
            preferences[allowed.tobytes()] = np.exp(scores)
        distributions[node, allowed] *= preferences[allowed.tobytes()]
        distributions[node] /= distributions[node].sum()
    return distributions


def normal_scores(count: int, rng: np.random.Generator) -> np.ndarray:
    """Return quantiles of the normal law in random order, shifted and scaled to mean 0 and deviation 1, shape (count,).

    They are only about evenly spaced. Were they exactly so, many members would tie.
    """
    shares = (rng.permutation(count) + rng.uniform(0.25, 0.75, count)) / count
    quantiles = np.array([NormalDist().inv_cdf(share) for share in shares])
    scores: np.ndarray = (quantiles - quantiles.mean()) / quantiles.std()
    return scores
