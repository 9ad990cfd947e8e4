"""The relearning attack on models that read characters."""

import copy
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from torch import Tensor, nn

from canaryaudit.canaries.canary import Canary
from canaryaudit.models.char_lstm import CharLSTM
from canaryaudit.models.ensemble import Ensemble, as_language_model
from canaryaudit.models.language_model import LanguageModel
from canaryaudit.training.data import TrainingData, gather, retention_windows


@dataclass(frozen=True)
class CharacterLearner:
    """A character LSTM, or several; see ``Learner``.

    Attributes:
        module: The model.
    """

    module: CharLSTM | Ensemble

    def copy(self) -> Self:
        """Return a copy that can be trained; see ``Learner``."""
        return type(self)(copy.deepcopy(self.module))

    def parameters(self) -> list[nn.Parameter]:
        """Return all weights; see ``Learner``."""
        return list(self.module.parameters())

    def loss(self, windows: Tensor) -> Tensor:
        """Return the mean cross-entropy; see ``Learner``."""
        self.module.train()  # cuDNN only differentiates an LSTM in training mode
        logits = self.module(windows[:, :-1])
        return nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())

    def reader(self) -> LanguageModel:
        """Return the model at its present weights; see ``Learner``."""
        return as_language_model(self.module.eval())


class CharacterText:
    """Text in windows of characters; see ``AttackText``.

    Args:
        data: The text.
        window: Characters predicted per window.
    """

    unit: Literal["character", "token"] = "character"

    def __init__(self, data: TrainingData, window: int) -> None:
        self._data, self.window = data, window
        self.characters, self.length = window, len(data.train)

    def free(self, rng: np.random.Generator) -> np.ndarray:
        """Return where windows without secrets begin; see ``AttackText``."""
        return retention_windows(self._data.secret.cpu().numpy(), self.window, self.length, rng)

    def windows(self, starts: np.ndarray) -> Tensor:
        """Return windows, shape (W, T + 1); see ``AttackText``."""
        return gather(self._data.train, starts, self.window + 1)

    def canary_window(self, canary: Canary) -> Tensor:
        """Return the window of a canary; see ``AttackText``."""
        return self.windows(np.array([canary_window_start(canary, self.window, self.length)]))[0]


def canary_window_start(canary: Canary, window: int, text_length: int) -> int:
    """Return the start of the window that is centered on a canary's first occurrence.

    If the canary's text is longer than the window, the window is centered on the secret.
    """
    template = canary.parsed_template
    filled, place = template.fill(canary.completion), canary.places[0]
    first, length = place, len(filled)
    if length > window:
        first, length = place + len(template.prefix), len(canary.completion)
    return int(np.clip(first - max(0, window + 1 - length) // 2, 0, text_length - window - 1))
