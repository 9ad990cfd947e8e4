"""Training text, and windows of it."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


def affected_windows(secret: np.ndarray, window: int) -> np.ndarray:
    """Return the starts of all windows with a secret's character as a feature or a label.

    A window that starts at s has features s .. s+T-1 and labels s+1 .. s+T. A window whose last label is a secret's
    first character belongs to Z, although none of its features does.

    Args:
        secret: Whether each character of the text belongs to a secret, shape (N,), bool; N > T.
        window: T.
    """
    starts, touched = _windows(secret, window)
    affected: np.ndarray = starts[touched]
    return affected


def retention_windows(secret: np.ndarray, window: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return the starts of up to ``count`` windows without secrets, drawn without replacement."""
    starts, touched = _windows(secret, window)
    return rng.permutation(starts[~touched])[:count]


def _windows(secret: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the starts of adjacent windows, the last shifted to be complete, and whether each overlaps a secret."""
    starts = np.unique(np.minimum(np.arange(0, len(secret) - 1, window), len(secret) - window - 1))
    touched = np.zeros(len(starts), dtype=bool)
    marked = np.flatnonzero(secret)
    first = np.searchsorted(starts, marked - window)
    last = np.searchsorted(starts, marked, "right")  # one past the last window that contains the character
    for number in range(int((last - first).max(initial=0))):
        touched[(first + number)[first + number < last]] = True
    return starts, touched


def gather(text: Tensor, starts: np.ndarray, length: int) -> Tensor:
    """Return windows of ``length`` symbols, shape (W, length), int64."""
    index = torch.from_numpy(starts).to(text.device)[:, None] + torch.arange(length, device=text.device)
    return text[index].long()


_BLOCK = 2**22
"""Characters that are counted at once."""


@dataclass(frozen=True)
class TrainingData:
    """Encoded text, on the training device.

    Attributes:
        train: Symbol ids of the training text, shape (N,), of any integer type; may be a mapped file.
        secret: Whether a character belongs to an inserted secret, shape (N,), bool.
        heldout: Symbol ids of the held-out text, shape (M,); may be empty.
        sha256: SHA-256 of the two texts, if known.
    """

    train: Tensor
    secret: Tensor
    heldout: Tensor
    sha256: tuple[str | None, str | None] = (None, None)


def majority_share(data: TrainingData) -> float:
    """Return the share of the most frequent character of the training text, outside the secrets; 0 if it has none."""
    counts = torch.zeros(1, dtype=torch.long)
    for first in range(0, len(data.train), _BLOCK):
        symbols = data.train[first : first + _BLOCK][~data.secret[first : first + _BLOCK]].long()
        block = torch.bincount(symbols, minlength=len(counts)).cpu()
        block[: len(counts)] += counts
        counts = block
    return float(counts.max()) / max(1, int(counts.sum()))
