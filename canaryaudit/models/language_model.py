"""The protocol of any model that predicts the next symbol's probabilities."""

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
    """

    log2_probs: Tensor
    cache: tuple[Tensor, ...]

    def rows(self, index: Tensor) -> "PrefixState":
        """Return the states of the prefixes in ``index``, which may repeat or reorder them."""
        return PrefixState(self.log2_probs[index], tuple(part[index] for part in self.cache))


class LanguageModel(Protocol):
    """A causal model over a finite vocabulary, read symbol by symbol."""

    @property
    def vocabulary(self) -> Vocabulary:
        """The symbols, by id."""

    @property
    def device(self) -> torch.device:
        """The device of symbols and log-probabilities."""

    def read(self, symbols: Tensor) -> PrefixState:
        """Read one prefix, shape (T,), from the initial state; the result has one row."""

    def advance(self, state: PrefixState, symbols: Tensor) -> PrefixState:
        """Add one symbol, shape (N,), to each of N prefixes."""
