"""What an unlearned secret is replaced by: the corrected features and labels of Z-tilde."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from canaryaudit.corpus.vocabulary import Vocabulary
from canaryaudit.errors import CorpusError, UnfitOptions, UnlearningError
from canaryaudit.exposure.encoded_space import EncodedSpace
from canaryaudit.models.language_model import LanguageModel, PrefixState
from canaryaudit.plan import check_replacement
from canaryaudit.unlearning.decoys import Corrected, Decoys, draw_symbols
from canaryaudit.unlearning.occurrences import Occurrence


class Replacement(Protocol):
    """A strategy that corrects Z to Z-tilde."""

    @property
    def name(self) -> str:
        """As ``--replacement`` has it."""

    def active_symbols(self, space: EncodedSpace) -> np.ndarray:
        """Return the ids of all symbols whose probability the correction is about, sorted."""

    def correct(self, place: Occurrence, count: int, rng: np.random.Generator) -> list[Corrected]:
        """Draw ``count`` replacements for one occurrence of a secret; one item for each length."""

    def proxy_member(self, place: Occurrence, rng: np.random.Generator) -> np.ndarray | None:
        """Draw another member of R whose likelihood the secret shall take over; None if there is none."""


class FixedText:
    """The same text for every occurrence, as in Warnecke et al. 2023; repeated or cut to the secret's length."""

    def __init__(self, text: str, vocabulary: Vocabulary) -> None:
        if not text:
            raise UnfitOptions('the replacement text is empty: give some, such as --replacement "text:not here "')
        try:
            self._ids = vocabulary.encode(text)
        except CorpusError as error:
            raise UnlearningError(f"the replacement text does not fit the model: {error}; choose another") from None
        self.name = f"text:{text}"
        self._size = len(vocabulary)

    def active_symbols(self, space: EncodedSpace) -> np.ndarray:
        """Return every symbol of the space and of the text."""
        return np.union1d(np.flatnonzero((space.next_node >= 0).any(0)), self._ids)

    def correct(self, place: Occurrence, count: int, rng: np.random.Generator) -> list[Corrected]:
        """Return the text ``count`` times."""
        symbols = torch.from_numpy(np.resize(self._ids, len(place.secret))).expand(count, -1)
        return [Corrected(symbols, torch.nn.functional.one_hot(symbols, self._size).float())]

    def proxy_member(self, place: Occurrence, rng: np.random.Generator) -> np.ndarray | None:
        """Return None: the text, and no member of R, is what the secret gives way to."""
        return None


class Sampled:
    """The model's own natural continuation of the words before the secret, without its likeliest first character.

    That character is the secret's own where the model knows the secret; where several secrets stand after
    the same words, the first characters of all of them are left out, lest one be replaced by another. The
    rest is sampled from the model to the secret's length. A label's expectation, the model's law at its
    place, is used as the target.
    """

    name = "sampled"

    def __init__(self, model: LanguageModel, places: Sequence[Occurrence]) -> None:
        self._model = model
        self._starts: dict[bytes, PrefixState] = {}
        self._left_out: dict[bytes, set[int]] = {}
        for place in places:
            self._left_out.setdefault(place.prefix.tobytes(), set()).add(int(place.secret[0]))

    def active_symbols(self, space: EncodedSpace) -> np.ndarray:
        """Return all symbols: the model may go on with any."""
        return np.arange(len(self._model.vocabulary))

    def correct(self, place: Occurrence, count: int, rng: np.random.Generator) -> list[Corrected]:
        """Sample ``count`` continuations of the secret's prefix, of the secret's length."""
        key, length, device = place.prefix.tobytes(), len(place.secret), self._model.device
        if key not in self._starts:
            self._starts[key] = self._model.read(torch.from_numpy(place.prefix).to(device))
        start = self._starts[key]
        state = start.rows(torch.zeros(count, dtype=torch.int64, device=device))
        symbols = np.empty((count, length), dtype=np.int64)
        targets = np.empty((count, length, len(self._model.vocabulary)), dtype=np.float32)
        for index in range(length):
            distributions = state.log2_probs.double().exp2().cpu().numpy()  # (count, V)
            if index == 0:
                distributions[:, [int(distributions[0].argmax()), *self._left_out[key]]] = 0
                if distributions[0].sum() == 0:
                    raise UnlearningError("the model assigns probability only to the secrets: use --replacement decoys")
            distributions /= distributions.sum(1, keepdims=True)
            targets[:, index] = distributions
            symbols[:, index] = draw_symbols(distributions, rng)
            if index + 1 < length:
                state = self._model.advance(state, torch.from_numpy(symbols[:, index]).to(device))
        return [Corrected(torch.from_numpy(symbols), torch.from_numpy(targets))]

    def proxy_member(self, place: Occurrence, rng: np.random.Generator) -> np.ndarray | None:
        """Return None: natural text, and no member of R, is what the secret gives way to."""
        return None


class Deletion:
    """The sentence that holds the secret is taken out of the text; nothing stands in its place."""

    name = "delete"


def parse_replacement(
    text: str, vocabulary: Vocabulary, model: LanguageModel, places: Sequence[Occurrence]
) -> Replacement | Deletion:
    """Turn ``decoys``, ``sampled``, ``delete`` or ``text:...`` into a strategy.

    Args:
        text: What was asked for.
        vocabulary: What a text is to be spelled with.
        model: What ``sampled`` samples from.
        places: The secrets' places.

    Raises:
        UsageError: None of these.
        UnlearningError: A text that the vocabulary cannot spell.
    """
    if text == "decoys":
        return Decoys()
    if text == "sampled":
        return Sampled(model, places)
    if text == "delete":
        return Deletion()
    argument = check_replacement(text).removeprefix("text:")
    quoted = len(argument) > 1 and argument[0] == argument[-1] == '"'
    return FixedText(argument[1:-1] if quoted else argument, vocabulary)
