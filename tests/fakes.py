"""Language models made of a table, quick and of known law, and narrators that remember or interrupt."""

import itertools
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from canaryaudit.canaries.template import Template
from canaryaudit.corpus.vocabulary import Vocabulary
from canaryaudit.exposure.encoded_space import EncodedSpace, encode_completions
from canaryaudit.exposure.scoring import score_log_perplexity
from canaryaudit.models.language_model import PrefixState

Law = Literal["random", "markov", "ties", "deterministic", "flat"]
_ROWS = 4099


class TableModel:
    """A causal model whose next-symbol law is a row of a table, chosen by a hash of the whole prefix.

    Args:
        vocabulary: The symbols.
        seed: Of the table.
        distribution: ``random`` rows, one row for each last symbol (``markov``), dyadic probabilities with many ties,
            one certain symbol and the others hopeless (``deterministic``), or all rows alike (``flat``).
        memorized: Texts, from the prefix's end on, that the model gives ``certainty`` to, symbol by symbol.
        certainty: Probability of the next symbol of a memorized text.
        noise_bits: Rounding noise that depends on where in a batch a prefix stands.
    """

    def __init__(
        self,
        vocabulary: str,
        seed: int = 0,
        distribution: Law = "random",
        memorized: Sequence[str] = (),
        certainty: float = 0.9,
        noise_bits: float = 0.0,
    ) -> None:
        self.vocabulary = Vocabulary(vocabulary)
        self.device = torch.device("cpu")
        self.distribution, self.certainty, self.noise_bits = distribution, certainty, noise_bits
        rng = np.random.default_rng(seed)
        size = len(vocabulary)
        if distribution == "ties":
            halves = np.full((_ROWS, size), 2.0 ** -np.ceil(np.log2(size)))
            probs = rng.permuted(halves * np.r_[np.ones(size - size // 2), np.full(size // 2, 0.5)], axis=1)
        elif distribution == "deterministic":
            probs = np.full((_ROWS, size), 2.0**-40)
            probs[np.arange(_ROWS), rng.integers(size, size=_ROWS)] = 1.0
        elif distribution == "flat":
            probs = np.full((_ROWS, size), 1 / size)
        else:
            probs = rng.dirichlet(np.full(size, 0.7), _ROWS) * (1 - 1e-4) + 1e-4 / size
        self.table = torch.from_numpy(np.log2(probs)).float()
        self._remember([self.vocabulary.encode(text).tolist() for text in memorized])

    def _remember(self, texts: list[list[int]]) -> None:
        """Give each prefix of a memorized text the state -1 - its number; all other states are hashes."""
        prefixes = list(dict.fromkeys(tuple(text[:end]) for text in texts for end in range(len(text))))
        number = {prefix: index for index, prefix in enumerate(prefixes)}
        size = len(self.vocabulary)
        self.longer = torch.zeros(max(1, len(prefixes)), size, dtype=torch.int64)
        self.peaked = torch.zeros(max(1, len(prefixes)), size)
        for prefix, index in number.items():
            following = sorted({text[len(prefix)] for text in texts if tuple(text[: len(prefix)]) == prefix})
            share = (1 - self.certainty) * torch.exp2(self.table[index])
            share[following] += self.certainty / len(following)
            self.peaked[index] = torch.log2(share)
            for symbol in following:
                self.longer[index, symbol] = -1 - number.get((*prefix, symbol), -1)
        self.start = -1 if prefixes else 7

    def read(self, symbols: Tensor) -> PrefixState:
        state = self._state(torch.tensor([self.start]))
        for symbol in symbols:
            state = self.advance(state, symbol[None])
        return state

    def advance(self, state: PrefixState, symbols: Tensor) -> PrefixState:
        states = state.cache[0]
        following = symbols if self.distribution == "markov" else (states.abs() * 1_000_003 + symbols + 1) % 998_244_353
        longer = self.longer[(-1 - states).clamp(min=0), symbols]
        return self._state(torch.where((states < 0) & (longer < 0), longer, following))

    def _state(self, states: Tensor) -> PrefixState:
        log2_probs = torch.where(
            states[:, None] < 0, self.peaked[(-1 - states).clamp(min=0)], self.table[states % _ROWS]
        )
        if self.noise_bits:
            place = torch.arange(len(states))[:, None] + torch.arange(len(self.vocabulary))
            log2_probs = log2_probs - self.noise_bits * (0.5 + 0.5 * torch.sin(12.9898 * place.float()))
        return PrefixState(log2_probs.clamp(max=0.0), (states,))


def encoded(template: str, model: TableModel) -> tuple[EncodedSpace, PrefixState]:
    """Return a template's space, for a corpus of the model's own symbols, and the state at its start."""
    space = EncodedSpace.of(Template.parse(template).space(model.vocabulary.symbols), model.vocabulary)
    return space, model.read(torch.zeros(0, dtype=torch.long))


def naive_ranks(costs: np.ndarray, targets: Sequence[int], excluded: Sequence[int]) -> list[float]:
    """Rank by the definition, one comparison at a time."""
    ranks = []
    for target in targets:
        others = [cost for row, cost in enumerate(costs.tolist()) if row != target and row not in set(excluded)]
        ranks.append(1 + sum(1.0 if c < costs[target] else 0.5 if c == costs[target] else 0.0 for c in others))
    return ranks


def every_member(template: str, model: TableModel) -> tuple[np.ndarray, np.ndarray]:
    """Return all of a template's space as symbol ids, and their costs."""
    space, start = encoded(template, model)
    texts = list(Template.parse(template).space(model.vocabulary.symbols))
    members = encode_completions(texts, model.vocabulary, space.max_length)
    return members, score_log_perplexity(model, start, members)


class Recorder:
    """A narrator that remembers, and interrupts when told to.

    Args:
        interrupt_after: Number of progress calls after which the next one is a Ctrl-C; None for never.
    """

    def __init__(self, interrupt_after: int | None = None) -> None:
        self.said: list[str] = []
        self.told: list[tuple[str, float, float, str]] = []
        self._left = itertools.count() if interrupt_after is None else iter(range(interrupt_after))

    def info(self, message: str) -> None:
        self.said.append(message)

    def update(self, stage: str, done: float, total: float, facts: str = "") -> None:
        if next(self._left, None) is None:
            raise KeyboardInterrupt
        self.told.append((stage, done, total, facts))
