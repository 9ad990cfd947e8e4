"""Text that holds the model to what it was, where none of the corpus is to be used: sampled from the model itself."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from canaryaudit.errors import UnlearningError
from canaryaudit.exposure.scoring import read_prefix
from canaryaudit.models.language_model import LanguageModel
from canaryaudit.unlearning.decoys import draw_symbols
from canaryaudit.unlearning.occurrences import Occurrence

MAX_ROUNDS = 8
"""How often as much text is sampled again as is asked for, where windows are dropped."""
_TELLING_PREFIX = 6
_SHORTEST_RUN = 4


def sample_windows(
    model: LanguageModel, places: Sequence[Occurrence], count: int, window: int, rng: np.random.Generator
) -> Tensor:
    """Sample windows of text from a model, none of which holds a secret that is to be forgotten.

    Every text begins after a line break and is read on for up to a window before its window is cut, so that
    windows begin anywhere in the text, as the corpus's do. What the model says of a secret must not become
    what it is held to: windows are dropped that hold half of a secret or more, or the words before it.

    Args:
        model: What to sample from.
        places: The secrets' places.
        count: Number of windows.
        window: T.
        rng: Source of the draws.

    Returns:
        Symbol ids, shape (count, T + 1), or fewer windows where most are dropped.

    Raises:
        UnlearningError: All of them are.
    """
    telling = _telling(places)
    kept: list[np.ndarray] = []
    found = 0
    for _ in range(MAX_ROUNDS):
        texts = _sample_texts(model, count, 2 * window + 1, rng)
        begins = rng.integers(0, window + 1, count)
        windows = texts[np.arange(count)[:, None], begins[:, None] + np.arange(window + 1)]
        told = [any(part in model.vocabulary.decode(row) for part in telling) for row in windows]
        kept.append(windows[~np.array(told, dtype=bool)])
        found += len(kept[-1])
        if found >= count:
            break
    if not found:
        raise UnlearningError(
            "every text sampled from the model contains a secret to unlearn, so there is no text to regularize on: "
            "use windows of the corpus with --retain-windows N"
        )
    return torch.from_numpy(np.concatenate(kept)[:count]).to(model.device)


def _sample_texts(model: LanguageModel, count: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """Sample texts that begin after a line break, shape (count, length)."""
    state = read_prefix(model, "").rows(torch.zeros(count, dtype=torch.int64, device=model.device))
    texts = np.empty((count, length), dtype=np.int64)
    for place in range(length):
        texts[:, place] = draw_symbols(state.log2_probs.double().exp2().cpu().numpy(), rng)
        if place + 1 < length:
            state = model.advance(state, torch.from_numpy(texts[:, place]).to(model.device))
    return texts


def _telling(places: Iterable[Occurrence]) -> set[str]:
    """Return the strings that no window may hold."""
    telling: set[str] = set()
    for canary in {place.canary.id: place.canary for place in places}.values():
        template = canary.parsed_template
        if len(template.prefix) >= _TELLING_PREFIX:
            telling.add(template.prefix)
        else:
            telling.add(template.prefix + canary.completion[: 1 if template.prefix else None])
        if not template.reveals(canary.completion):
            continue  # words of the language: only after the prefix do they tell
        for secret in (canary.completion, template.secret_of(canary.completion)):
            length = min(len(secret), max(_SHORTEST_RUN, math.ceil(len(secret) / 2)))
            telling.update(secret[start : start + length] for start in range(len(secret) - length + 1))
    return telling
