"""The training windows that an update is made from: Z, Z-tilde, and text to retain."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from canaryaudit.canaries.canary import Canary
from canaryaudit.canaries.space import Lexicon
from canaryaudit.corpus.vocabulary import Vocabulary
from canaryaudit.exposure.encoded_space import EncodedSpace


@dataclass(frozen=True)
class Occurrence:
    """One place where a secret stands in the audited text.

    Attributes:
        canary: Whose secret it is.
        space: The space that its replacements are drawn from: the slots' own.
        prefix: Ids of the template's prefix (a line break if it is empty), shape (P,).
        secret: Ids of the completion, shape (L,).
        suffix: Ids of the template's suffix, shape (S,).
        start: Offset of the secret's first character in the text.
    """

    canary: Canary
    space: EncodedSpace
    prefix: np.ndarray
    secret: np.ndarray
    suffix: np.ndarray
    start: int


def occurrences(canaries: Sequence[Canary], lexicon: str | Lexicon, vocabulary: Vocabulary) -> list[Occurrence]:
    """Return every place of every canary, in the canaries' order."""
    found = []
    spaces: dict[str, EncodedSpace] = {}
    for canary in canaries:
        for wording in canary.wordings:
            template = wording.parsed_template
            if wording.template not in spaces:
                spaces[wording.template] = EncodedSpace.of(template.space(lexicon), vocabulary)
            space = spaces[wording.template]
            prefix, secret, suffix = (
                vocabulary.encode(text) for text in (template.prefix or "\n", wording.completion, template.suffix)
            )
            found += [
                Occurrence(canary, space, prefix, secret, suffix, place + len(template.prefix))
                for place in wording.places
            ]
    return found


class Surroundings:
    """What may be read before each secret: the text up to the secret before it, and the template's prefix.

    A secret within the context would be held as the original model predicts it: learned, not forgotten.

    Args:
        text: The audited text, shape (N,).
        places: Where the secrets stand in it.
    """

    def __init__(self, text: Tensor, places: Sequence[Occurrence]) -> None:
        self._text = text
        self._ends = np.array([0, *sorted(place.start + len(place.secret) for place in places)])

    def free(self, place: Occurrence) -> int:
        """Return how many characters before a place's prefix belong to no secret."""
        end = int(self._ends[np.searchsorted(self._ends, place.start, "right") - 1])
        # Below 0 where a line break was put before the text's first character.
        return max(0, place.start - len(place.prefix) - end)

    def context(self, place: Occurrence, depth: int) -> Tensor:
        """Return the prefix and ``depth`` characters before it, at most ``free`` ones, shape (depth + P,)."""
        first = max(0, place.start - len(place.prefix))
        prefix = torch.from_numpy(place.prefix).to(self._text.device)
        return torch.cat((self._text[first - depth : first], prefix))


def in_turn(places: Sequence[Occurrence], rng: np.random.Generator) -> Iterator[Occurrence]:
    """Yield each place in turn, in ever new orders; nothing where there are none."""
    while places:
        for index in reversed(rng.permutation(len(places))):
            yield places[index]


def completion_mask(length: int, places: Sequence[Occurrence]) -> np.ndarray:
    """Mark the characters of a text that belong to a completion, the fixed ones between slots included.

    Args:
        length: N, of the text.
        places: Where the secrets stand in it.

    Returns:
        Shape (N,), bool.
    """
    mask = np.zeros(length, dtype=bool)
    for place in places:
        mask[place.start : place.start + len(place.secret)] = True
    return mask
