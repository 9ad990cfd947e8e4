"""Canaries that are not to be forgotten: what the model says of them behind their prefixes stays."""

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence

import numpy as np

from canaryaudit.unlearning.occurrences import Occurrence

PRIOR = 1.0
"""What the replacement's distribution weighs at a node, in canaries that go on from there."""


MOST_TEMPLATES = 32
"""Templates whose canaries are held: each prefix is read anew in every step, and detected data may have hundreds."""


class KeptCanaries:
    """The other canaries of a run, each once.

    Args:
        places: Where they stand in the text.
        asked: Templates of the secrets to be forgotten. Of more templates than can be held, these come first, then
            those of most canaries.
    """

    def __init__(self, places: Sequence[Occurrence], asked: Collection[str] = ()) -> None:
        once = list({place.canary.id: place for place in places}.values())
        counts = Counter(place.canary.template for place in once)
        ranked = sorted(counts, key=lambda template: (template not in asked, -counts[template]))
        self.places = [place for place in once if place.canary.template in ranked[:MOST_TEMPLATES]]
        self._members: dict[str, list[np.ndarray]] = defaultdict(list)
        for place in self.places:
            self._members[place.canary.template].append(place.secret)

    def blended(self, along: np.ndarray, template: str, member: np.ndarray) -> np.ndarray:
        """Return distributions along a member behind its prefix, shape (L, V), as a model knows that has seen these.

        Where n canaries share the member's beginning, of which c go on with a symbol, it gets (c + w q) / (n + w).
        """
        return blended(along, self._members.get(template, []), member)


def blended(along: np.ndarray, members: Sequence[np.ndarray], member: np.ndarray) -> np.ndarray:
    """Return distributions along a member, shape (L, V), as a model knows that has seen some others, ``members``."""
    found, sharing = along.copy(), members
    for index in range(len(member)):
        sharing = [own for own in sharing if len(own) > index and (index == 0 or own[index - 1] == member[index - 1])]
        if not sharing:
            break
        counts = np.bincount([own[index] for own in sharing], minlength=along.shape[1])
        found[index] = (counts + PRIOR * along[index]) / (len(sharing) + PRIOR)
    return found
