"""A model's quality by tokens: how well it predicts text outside the secrets, and held-out text."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from canaryaudit.exposure.probes import RunText
from canaryaudit.models.language_model import LOG2_E
from canaryaudit.models.tokenizer import Tokenizer, Tokens
from canaryaudit.progress import check_signals
from canaryaudit.records import Evaluation, Fidelity
from canaryaudit.unlearning.fidelity import Evaluations, fidelity

SPAN = 600
"""Characters that are read in one go: one window of a small model."""
MOST_SPANS = 400
"""Spans of a text at most, evenly spaced: some 60,000 tokens, which tell a drop of accuracy of 0.001."""
LONGEST = 256
"""Tokens of a window at most."""
BEFORE = 8
"""Tokens before a secret at most, where text with secrets is read."""
ROWS = 16
"""Spans read side by side."""


@dataclass(frozen=True)
class TokenWindow:
    """A stretch of text as tokens.

    Attributes:
        ids: Token ids, shape (T,).
        secret: Whether each token holds a character of a secret, shape (T,).
        bytes: How many bytes of text all tokens but the first stand for.
    """

    ids: np.ndarray
    secret: np.ndarray
    bytes: int

    @property
    def predicts_text(self) -> np.ndarray:
        """After which tokens no secret's token comes, shape (T,)."""
        return np.append(~self.secret[1:], True)


def token_windows(tokenizer: Tokenizer, text: RunText, longest: int) -> list[TokenWindow]:
    """Cut a text into windows: all of it, or ``MOST_SPANS`` evenly spaced ones.

    Args:
        tokenizer: How text becomes tokens.
        text: The text.
        longest: Tokens of a window at most; the rest of a span is left out.
    """
    size = len(text.ids)
    count = min(MOST_SPANS, -(-size // SPAN))
    starts = np.arange(count) * SPAN if count * SPAN >= size else np.linspace(0, size - SPAN, count).astype(np.int64)
    spans = [text.vocabulary.decode(text.ids[start : start + SPAN]) for start in starts.tolist()]
    found = []
    for start, span, tokens in zip(starts.tolist(), spans, tokenizer.encode(spans) if spans else [], strict=True):
        secret = _of_secret(span, tokens, text.secret[start : start + SPAN])[:longest]
        ids, ends = tokens.ids[:longest], tokens.ends[:longest]
        if len(ids) > 1:
            found.append(TokenWindow(ids, secret, int(ends[-1] - ends[0])))
    return found


def _of_secret(span: str, tokens: Tokens, secret: np.ndarray) -> np.ndarray:
    """Return whether each token holds a character of a secret, shape (T,)."""
    lengths = [len(character.encode("utf-8", "surrogatepass")) for character in span]
    by_byte = np.concatenate(([0], np.cumsum(np.repeat(secret.astype(np.int64), lengths))))
    begins = np.concatenate(([0], tokens.ends[:-1]))
    marked: np.ndarray = by_byte[tokens.ends] > by_byte[begins]
    return marked


def retained_windows(
    windows: Sequence[TokenWindow], count: int, length: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Draw pieces of windows that hold no secret's token.

    Args:
        windows: What to cut them from.
        count: Pieces at most.
        length: Tokens of a piece; where there are none so long, of shorter ones.
        rng: Source of the draws.
    """
    free = [part for window in windows for part in _free(window)]
    length = min(length, max(map(len, free), default=0))
    pieces = [
        part[first : first + length]
        for part in free
        for first in range(int(rng.integers(0, 1 + len(part) % max(1, length))), len(part) - length + 1, max(1, length))
        if length > 1
    ]
    return [pieces[index] for index in rng.permutation(len(pieces))[:count].tolist()]


def windows_with_secrets(
    windows: Sequence[TokenWindow], count: int, length: int, rng: np.random.Generator
) -> list[TokenWindow]:
    """Draw pieces of windows that begin a little before a secret: ``count`` of them at most, each secret once."""
    places = [
        (window, int(place))
        for window in windows
        for place in np.flatnonzero(window.secret & ~np.append(False, window.secret[:-1]))
    ]
    found = []
    for index in rng.permutation(len(places))[:count].tolist():
        window, place = places[index]
        first = max(0, place - int(rng.integers(1, BEFORE + 1)))
        ids, secret = window.ids[first : first + length], window.secret[first : first + length]
        found.append(TokenWindow(ids, secret, 0))
    return found


def _free(window: TokenWindow) -> Iterator[np.ndarray]:
    """Yield the stretches of a window between secrets."""
    cuts = np.flatnonzero(window.secret)
    for first, last in zip([0, *(cuts + 1)], [*cuts, len(window.ids)], strict=True):
        if last > first:
            yield window.ids[first:last]


@torch.no_grad()
def evaluate_tokens(model: Any, windows: Sequence[TokenWindow]) -> Evaluation:
    """Predict every token of windows but the first from those before it; all figures are 0 without windows."""
    device = next(model.parameters()).device
    loss, counts = 0.0, np.zeros(4, dtype=np.int64)  # correct, total; then the same outside the secrets
    ordered = sorted(windows, key=lambda own: len(own.ids))
    for first in range(0, len(ordered), ROWS):
        check_signals()
        part = ordered[first : first + ROWS]
        ids = _padded([own.ids for own in part], 0, device)
        secret = _padded([own.secret for own in part], 1, device).bool()[:, 1:]
        inside = _padded([np.ones(len(own.ids)) for own in part], 0, device).bool()[:, 1:]
        logits, target = model(input_ids=ids).logits[:, :-1].float(), ids[:, 1:]
        losses = nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view(
            target.shape
        )
        loss += float((losses * inside).double().sum())
        hits, plain = (logits.argmax(2) == target) & inside, inside & ~secret
        counts += np.array([int(own.sum()) for own in (hits, inside, hits & plain, plain)])
    correct, counted, correct_ordinary, counted_ordinary = counts.tolist()
    return Evaluation(
        accuracy=correct_ordinary / max(1, counted_ordinary),
        accuracy_all=correct / max(1, counted),
        loss_bits=loss * LOG2_E / max(1, counted),
    )


def _padded(rows: Sequence[np.ndarray], filler: int, device: torch.device) -> Tensor:
    tensors = [torch.from_numpy(row.astype(np.int64)) for row in rows]
    padded: Tensor = torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=filler)
    return padded.to(device)


def bytes_per_token(windows: Sequence[TokenWindow]) -> float:
    """Return how many bytes of text a predicted token stands for."""
    return sum(own.bytes for own in windows) / max(1, sum(len(own.ids) - 1 for own in windows))


class TokenQuality:
    """Measures models with one tokenizer on training and held-out text.

    Args:
        tokenizer: How text becomes tokens.
        text: The training text.
        heldout: The held-out text; may be empty.
        model: Tells how many tokens it reads at most.
    """

    def __init__(self, tokenizer: Tokenizer, text: RunText, heldout: RunText, model: Any) -> None:
        longest = getattr(model.config, "max_position_embeddings", None)
        most = min(longest, LONGEST) if isinstance(longest, int) else LONGEST
        self.train, self.heldout = (token_windows(tokenizer, own, most) for own in (text, heldout))

    def of(self, model: Any) -> Evaluations:
        """Return a model's quality on the training text and on the held-out text."""
        return evaluate_tokens(model, self.train), evaluate_tokens(model, self.heldout)

    @property
    def note(self) -> str:
        """What a token of the losses is."""
        size = bytes_per_token(self.heldout or self.train)
        return f"losses are in bits per token; a token is {size:.2f} bytes of text on average"


def fidelity_by_tokens(before: Evaluations, after: Evaluations) -> Fidelity:
    """Put the quality before and after side by side."""
    return fidelity(before, after).model_copy(update={"unit": "token"})
