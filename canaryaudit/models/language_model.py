"""The protocols of models that predict the next symbol's probabilities."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from canaryaudit.corpus.vocabulary import Vocabulary

LOG2_E = 1.4426950408889634


@dataclass(frozen=True)
class PrefixState:
    """A model's state after reading N prefixes.

    Attributes:
        log2_probs: Log-probability of each next symbol, shape (N, V), float32, base 2; finite and at most 0.
        cache: The model's internal state; every tensor has N rows.

    Examples:
        >>> state = PrefixState(torch.tensor([[-1.0, -1.0], [0.0, -20.0]]), cache=())
        >>> state.rows(torch.tensor([1, 1])).log2_probs.tolist()
        [[0.0, -20.0], [0.0, -20.0]]
    """

    log2_probs: Tensor
    cache: tuple[Tensor, ...]

    def rows(self, index: Tensor) -> "PrefixState":
        """Return the states of the prefixes in ``index``, which may repeat or reorder them."""
        return PrefixState(self.log2_probs[index], tuple(part[index] for part in self.cache))


class PrefixReader(Protocol):
    """Reads further symbols after prefixes: what scoring, searching and sampling need of a model.

    A reader may also have ``multiplications``, how many reading one symbol takes, by which a time limit goes;
    ``most_rows``, how many prefixes it reads at a time, if a row's figures need not agree to the last bit; and
    ``most_completions``, how many completions it can hold the prefixes of.
    """

    @property
    def device(self) -> torch.device:
        """The device of symbols and log-probabilities."""

    def advance(self, state: PrefixState, symbols: Tensor) -> PrefixState:
        """Add one symbol, shape (N,), to each of N prefixes."""


class LanguageModel(PrefixReader, Protocol):
    """A causal model over a finite vocabulary of characters, read symbol by symbol.

    Examples:
        Any object with these members will do, such as a model that says "ha" and expects "h" after "a":

        >>> class Laughter:
        ...     vocabulary, device = Vocabulary("ah"), torch.device("cpu")
        ...     table = torch.tensor([[0.1, 0.9], [0.9, 0.1]]).log2()  # next symbol's, by the last one
        ...
        ...     def read(self, symbols):
        ...         return PrefixState(self.table[symbols[-1:]], ())
        ...
        ...     def advance(self, state, symbols):
        ...         return PrefixState(self.table[symbols], ())
        >>> model: LanguageModel = Laughter()
        >>> state = model.read(torch.from_numpy(model.vocabulary.encode("haha")))
        >>> state.log2_probs.exp2()
        tensor([[0.1000, 0.9000]])
    """

    @property
    def vocabulary(self) -> Vocabulary:
        """The symbols, by id."""

    def read(self, symbols: Tensor) -> PrefixState:
        """Read one prefix, shape (T,), from the initial state; the result has one row."""
