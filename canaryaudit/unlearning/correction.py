"""The corrected text that baselines are trained on: every secret's place holds its replacement."""

from collections.abc import Sequence

import numpy as np
import torch

from canaryaudit.training import TrainingData
from canaryaudit.unlearning.replacement import Replacement
from canaryaudit.unlearning.windows import Occurrence


def corrected_data(
    data: TrainingData, places: Sequence[Occurrence], replacement: Replacement, rng: np.random.Generator
) -> TrainingData:
    """Return the text with a replacement, drawn anew for each occurrence, in every secret's place.

    A replacement may be longer or shorter than the secret; what follows it then moves. Replaced characters
    stay marked as a secret's: nobody can predict a decoy, so that accuracy outside the secrets leaves them out.

    Args:
        data: The text that holds the secrets; the held-out text, which never does, is passed on.
        places: Where the secrets stand, none across another.
        replacement: The strategy.
        rng: Source of the replacements.
    """
    text, secret = data.train, data.secret
    texts, masks, end = [], [], 0
    for place in sorted(places, key=lambda place: place.start):
        stop = place.start + len(place.secret)
        drawn = replacement.correct(place.space, place.secret, 1, rng)[0].symbols[0].to(text)
        own = secret[place.start : stop]
        texts += [text[end : place.start], drawn]
        masks += [
            secret[end : place.start],
            own if len(own) == len(drawn) else torch.ones_like(drawn, dtype=torch.bool),
        ]
        end = stop
    return TrainingData(
        train=torch.cat([*texts, text[end:]]), secret=torch.cat([*masks, secret[end:]]), heldout=data.heldout
    )
