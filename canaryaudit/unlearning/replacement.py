"""What an unlearned secret is replaced by: the corrected features and labels of Z-tilde."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from canaryaudit.corpus import Vocabulary
from canaryaudit.errors import CorpusError, UnlearningError
from canaryaudit.model import LanguageModel, PrefixState
from canaryaudit.scoring import PAD, EncodedSpace
from canaryaudit.unlearning.windows import Occurrence


@dataclass(frozen=True)
class Corrected:
    """Replacements for one secret, as features and as labels.

    Attributes:
        symbols: What stands in the secret's place, shape (n, L), int64.
        targets: The law that each of these characters is to be predicted by, shape (n, L, V), float32.
    """

    symbols: Tensor
    targets: Tensor


class Replacement(Protocol):
    """A strategy that corrects Z to Z-tilde."""

    @property
    def name(self) -> str:
        """As ``--replacement`` has it."""

    def active_symbols(self, space: EncodedSpace) -> np.ndarray:
        """Return the ids of all symbols whose probability the correction is about, sorted."""

    def correct(self, place: Occurrence, count: int, rng: np.random.Generator) -> list[Corrected]:
        """Draw ``count`` replacements for one occurrence of a secret; one item for each length."""

    def stand_in(self, place: Occurrence, rng: np.random.Generator) -> np.ndarray | None:
        """Draw another member of R whose likelihood the secret shall take over; None if there is none."""


class Decoys:
    """Fresh draws from the secret's own space for every occurrence: format-preserving replacement.

    A decoy's label at each place is drawn uniformly among what R allows there; its expectation, that
    uniform law itself, is used as the target, which takes the labels' noise out of the update.
    """

    name = "decoys"

    def active_symbols(self, space: EncodedSpace) -> np.ndarray:
        """Return every symbol of the space."""
        return np.flatnonzero((space.next_node >= 0).any(0))

    def laws(self, place: Occurrence) -> np.ndarray:
        """Return the law of the next symbol at each node of R, shape (nodes, V): the uniform one."""
        return place.space.shares

    def correct(self, place: Occurrence, count: int, rng: np.random.Generator) -> list[Corrected]:
        """Draw ``count`` members of R."""
        space, laws = place.space, self.laws(place)
        drawn = space.sample(count, rng)
        lengths = (drawn != PAD).sum(1)
        corrected = []
        for length in np.unique(lengths):
            symbols = drawn[lengths == length, :length].astype(np.int64)
            nodes = np.zeros(len(symbols), dtype=np.int64)
            targets = np.empty((*symbols.shape, space.shares.shape[1]), dtype=np.float32)
            for index in range(length):
                targets[:, index] = laws[nodes]
                nodes = space.next_node[nodes, symbols[:, index]]
            corrected.append(Corrected(torch.from_numpy(symbols), torch.from_numpy(targets)))
        return corrected

    def likely(self, place: Occurrence, rng: np.random.Generator) -> np.ndarray:
        """Draw one member of R from the laws themselves, shape (L,): what the corrected model will mostly say."""
        space, laws, node = place.space, self.laws(place), 0
        member: list[int] = []
        while node != space.accept:
            member.append(int(draw_symbols(laws[node][None], rng)[0]))
            node = int(space.next_node[node, member[-1]])
        return np.array(member)

    def stand_in(self, place: Occurrence, rng: np.random.Generator) -> np.ndarray | None:
        """Draw uniformly among the other members that pass the same choices of symbols as the secret does.

        Of slots that is every other filling; of choices between words, most often none.
        """
        space, secret = place.space, place.secret
        allowed = space.next_node >= 0  # (nodes, V)
        # How many such members go on from each node at each place, whole numbers of any size; none from node -1.
        onward = np.zeros((len(secret) + 1, len(allowed) + 1), dtype=object)
        onward[-1, space.accept] = 1
        for index, node in reversed(list(enumerate(_nodes(space, secret)))):
            alike = (allowed == allowed[node]).all(1)
            onward[index, :-1] = onward[index + 1][space.next_node].sum(1) * alike
        if onward[0, 0] < 2:
            return None
        member = secret
        while (member == secret).all():
            member, node = np.empty(len(secret), dtype=np.int64), 0
            for index in range(len(secret)):
                ways = onward[index + 1][space.next_node[node]]  # (V,)
                member[index] = rng.choice(len(ways), p=(ways / ways.sum()).astype(float))
                node = space.next_node[node, member[index]]
        return member


class FixedText:
    """The same text for every occurrence, as in Warnecke et al. 2023; repeated or cut to the secret's length."""

    def __init__(self, text: str, vocabulary: Vocabulary) -> None:
        if not text:
            raise UnlearningError('the replacement text is empty: write, for instance, --replacement "text:not here "')
        try:
            self._ids = vocabulary.encode(text)
        except CorpusError as error:
            raise UnlearningError(f"the replacement text does not suit the model: {error}") from None
        self.name = f"text:{text}"
        self._size = len(vocabulary)

    def active_symbols(self, space: EncodedSpace) -> np.ndarray:
        """Return every symbol of the space and of the text."""
        return np.union1d(np.flatnonzero((space.next_node >= 0).any(0)), self._ids)

    def correct(self, place: Occurrence, count: int, rng: np.random.Generator) -> list[Corrected]:
        """Return the text ``count`` times."""
        symbols = torch.from_numpy(np.resize(self._ids, len(place.secret))).expand(count, -1)
        return [Corrected(symbols, torch.nn.functional.one_hot(symbols, self._size).float())]

    def stand_in(self, place: Occurrence, rng: np.random.Generator) -> np.ndarray | None:
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
            laws = state.log2_probs.double().exp2().cpu().numpy()  # (count, V)
            if index == 0:
                laws[:, [int(laws[0].argmax()), *self._left_out[key]]] = 0
                if laws[0].sum() == 0:
                    raise UnlearningError(
                        "the model knows no other continuation than the secrets: use --replacement decoys"
                    )
            laws /= laws.sum(1, keepdims=True)
            targets[:, index] = laws
            symbols[:, index] = draw_symbols(laws, rng)
            if index + 1 < length:
                state = self._model.advance(state, torch.from_numpy(symbols[:, index]).to(device))
        return [Corrected(torch.from_numpy(symbols), torch.from_numpy(targets))]

    def stand_in(self, place: Occurrence, rng: np.random.Generator) -> np.ndarray | None:
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
        UnlearningError: None of these, or a text that the vocabulary cannot spell.
    """
    if text == "decoys":
        return Decoys()
    if text == "sampled":
        return Sampled(model, places)
    if text == "delete":
        return Deletion()
    kind, colon, argument = text.partition(":")
    if kind != "text" or not colon:
        raise UnlearningError(
            f"unknown replacement {text!r}: expected decoys, sampled, delete or text:WORDS, as in 'text:not here '"
        )
    quoted = len(argument) > 1 and argument[0] == argument[-1] == '"'
    return FixedText(argument[1:-1] if quoted else argument, vocabulary)


def draw_symbols(laws: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw one symbol from each law, shape (n, V) -> (n,); a symbol of probability zero is never drawn."""
    cumulative = np.cumsum(laws, 1)
    drawn: np.ndarray = (cumulative <= (rng.random(len(laws)) * cumulative[:, -1])[:, None]).sum(1)
    return drawn


def laws_along(space: EncodedSpace, laws: np.ndarray, member: np.ndarray) -> np.ndarray:
    """Return the law at each place of a member of R, shape (L, V), of laws by node, shape (nodes, V)."""
    along: np.ndarray = laws[_nodes(space, member)].astype(np.float32)
    return along


def _nodes(space: EncodedSpace, member: np.ndarray) -> list[int]:
    """Return the node before each symbol of a member."""
    nodes = [0]
    for symbol in member[:-1]:
        nodes.append(int(space.next_node[nodes[-1], symbol]))
    return nodes
