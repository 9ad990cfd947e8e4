"""The relearning attack on causal models over tokens."""

import copy
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from canaryaudit.attacks.learner import IGNORED
from canaryaudit.canaries.canary import Canary
from canaryaudit.exposure import MeasurementConfig
from canaryaudit.exposure.probes import RunText
from canaryaudit.models.huggingface import HuggingFaceModel
from canaryaudit.models.tokenizer import Tokenizer
from canaryaudit.training.data import retention_windows

WINDOW = 128
"""Tokens predicted per window at most: a canary with a paragraph around it, as a batch of a small training has it."""
LEAST_WINDOW = 16
"""Where secrets stand close together, windows are halved down to this, until some hold none."""
QUICK = MeasurementConfig(
    num_references=500,
    estimators=("exact", "importance", "sampled"),
    search_budget=500,
    draws_per_temperature=200,
    precision_bits=0.25,
    max_draws=20_000,
)
"""One measurement, accurate to a quarter of a bit: the margins by which attacks are judged are one bit and two."""
_SAMPLE, _SAMPLES = 600, 32
"""Characters that are tokenized to see how many a token has, and how many such pieces of the text."""


@dataclass(frozen=True)
class TokenLearner:
    """A causal model of ``transformers``; see ``Learner``.

    It is trained in evaluation mode: without dropout, steps follow from the batches alone.

    Attributes:
        model: The model with its tokenizer, in float32.
    """

    model: HuggingFaceModel

    def copy(self) -> Self:
        """Return a copy that can be trained, weights that an adapter had frozen included; see ``Learner``."""
        module = copy.deepcopy(self.model.model).eval().requires_grad_(True)
        return type(self)(HuggingFaceModel(module, self.model.tokenizer, self.model.max_bytes))

    def parameters(self) -> list[nn.Parameter]:
        """Return all weights, tied ones once; see ``Learner``."""
        return list(self.model.model.parameters())

    def loss(self, windows: Tensor) -> Tensor:
        """Return the mean cross-entropy; see ``Learner``.

        What a causal model predicts does not depend on what follows, so what fills a shorter window up does not matter.
        """
        logits = self.model.model(input_ids=windows[:, :-1].clamp_min(0)).logits.float()
        return nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten(), ignore_index=IGNORED)

    def reader(self) -> HuggingFaceModel:
        """Return the model at its present weights; see ``Learner``."""
        return self.model


class TokenText:
    """Text in windows of tokens, each tokenized as a whole; see ``AttackText``.

    Args:
        text: The text.
        tokenizer: How it becomes tokens.
        window: Tokens predicted per window at most.
        device: Where windows are put.
    """

    unit: Literal["character", "token"] = "token"

    def __init__(
        self, text: RunText, tokenizer: Tokenizer, window: int = WINDOW, device: torch.device | None = None
    ) -> None:
        self._text, self._tokenizer, self._device = text, tokenizer, device
        self.length = len(text.ids)
        self._characters_per_token = self._sampled()
        self.window = window
        while self.window // 2 >= LEAST_WINDOW and not len(self.free(np.random.default_rng(0))):
            self.window //= 2

    @property
    def characters(self) -> int:
        """Characters that make a window, on average."""
        return max(1, round(self.window * self._characters_per_token))

    def free(self, rng: np.random.Generator) -> np.ndarray:
        """Return where windows without secrets begin; see ``AttackText``."""
        if self.length <= self.characters:
            return np.empty(0, dtype=np.int64)
        return retention_windows(self._text.secret, self.characters, self.length, rng)

    def windows(self, starts: np.ndarray) -> Tensor:
        """Return windows, shape (W, T + 1); see ``AttackText``."""
        return self._rows([self._between(start, start + self.characters + 1) for start in starts.tolist()])

    def canary_window(self, canary: Canary) -> Tensor:
        """Return the window of a canary; see ``AttackText``."""
        template, place = canary.parsed_template, canary.places[0]
        end = place + len(template.fill(canary.completion))
        if self._tokens_between(place, end) > self.window:
            place += len(template.prefix)
            end = place + len(canary.completion)
        before = max(0, self.window + 1 - self._tokens_between(place, end)) // 2
        start = self._tokens_before(place, before)
        # More text than fills the window: its tokens may be longer than the average.
        return self._rows([self._between(start, end + 4 * self.characters)])[0]

    def _sampled(self) -> float:
        starts = np.unique(np.linspace(0, max(0, self.length - _SAMPLE), _SAMPLES).astype(np.int64))
        pieces = [self._between(start, start + _SAMPLE) for start in starts.tolist()]
        tokens = sum(int((own.ends > 0).sum()) for own in self._tokenizer.encode(pieces))
        return sum(map(len, pieces)) / max(1, tokens)

    def _between(self, start: int, end: int) -> str:
        return self._text.vocabulary.decode(self._text.ids[start:end])

    def _tokens_between(self, start: int, end: int) -> int:
        return len(self._tokenizer.encode([self._between(start, end)])[0].ids)

    def _tokens_before(self, place: int, count: int) -> int:
        """Return the character that begins the last ``count`` tokens before a place."""
        first = max(0, place - 4 * self.characters)
        text = self._between(first, place)
        ends = self._tokenizer.encode([text])[0].ends if text else np.empty(0, dtype=np.int64)
        begins = np.concatenate(([0], ends))[-1 - count] if count < len(ends) else 0
        whole = np.cumsum([len(own.encode("utf-8", "surrogatepass")) for own in text])
        return first + int(np.searchsorted(whole, begins, side="right"))

    def _rows(self, texts: list[str]) -> Tensor:
        rows = [torch.from_numpy(own.ids[: self.window + 1].astype(np.int64)) for own in self._tokenizer.encode(texts)]
        whole = torch.full((len(rows), self.window + 1), IGNORED)
        for padded, row in zip(whole, rows, strict=True):
            padded[: len(row)] = row
        return whole if self._device is None else whole.to(self._device)
