"""What the relearning attack needs of a model and of its text: characters and tokens differ in nothing else."""

from typing import Literal, Protocol, Self

import numpy as np
from torch import Tensor, nn

from canaryaudit.canaries.canary import Canary
from canaryaudit.models.language_model import LanguageModel
from canaryaudit.models.token_model import TokenModel

IGNORED = -100
"""In place of a symbol that ends a window which is shorter than others."""


class Learner(Protocol):
    """A model that can be trained further, and asked for secrets at any time."""

    def copy(self) -> Self:
        """Return a copy that shares no weights with it and can be trained."""

    def parameters(self) -> list[nn.Parameter]:
        """Return all weights, each once."""

    def loss(self, windows: Tensor) -> Tensor:
        """Return the mean cross-entropy of all symbols but the first, given those before them.

        Args:
            windows: Symbol ids, shape (B, T + 1), padded with ``IGNORED`` at their ends.
        """

    def reader(self) -> LanguageModel | TokenModel:
        """Return the model at its present weights, to be measured."""


class AttackText(Protocol):
    """The audited text as an attacker has it: in windows of symbols that a model reads."""

    @property
    def unit(self) -> Literal["character", "token"]:
        """What a symbol is."""

    @property
    def window(self) -> int:
        """Symbols predicted per window at most."""

    @property
    def characters(self) -> int:
        """Characters of text that make a window, about."""

    @property
    def length(self) -> int:
        """Characters of the text."""

    def free(self, rng: np.random.Generator) -> np.ndarray:
        """Return where windows without secrets begin, shape (W,), in random order."""

    def windows(self, starts: np.ndarray) -> Tensor:
        """Return the windows that begin at some characters, shape (W, T + 1), padded with ``IGNORED``."""

    def canary_window(self, canary: Canary) -> Tensor:
        """Return the window in whose middle a canary's first occurrence is, shape (T + 1,); its secret if it is longer.

        Args:
            canary: It occurs in the text.
        """
