"""How likely a secret is in all spellings together, beside the one that its tokenizer gives it.

``0123`` may be said as `01|23`, and as `0|123` or `0|1|2|3` too. Exposure goes by the tokenizer's own spelling, which
is the one that training saw. The probability of the text is the sum over all of them: where it is much larger, costs
say less than they seem to. The sum is taken token by token over all spellings that are not hopeless; what the hopeless
ones would add at most is known, since a beginning is at least as likely as all that it goes on with.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from canaryaudit.errors import ModelError
from canaryaudit.exposure.scoring import advance_in_tiles
from canaryaudit.models.token_model import TokenModel
from canaryaudit.models.tokenizer import Tokenizer

_HOPELESS = 24.0
"""Bits by which the beginning of a spelling may be less likely than the whole of the tokenizer's own."""
_MOST_ROWS = 2048
"""Beginnings that are read at a time: the likeliest of them."""


@dataclass(frozen=True)
class _Beginning:
    """The beginning of spellings: as many tokens as its level.

    Attributes:
        row: Of the state after the tokens before the last.
        column: The last token.
        length: Bytes that are spelled.
        bits: Cost of all of it.
        texts: Which texts begin so.
    """

    row: int
    column: int
    length: int
    bits: float
    texts: tuple[int, ...]


def bits_of_other_spellings(
    model: TokenModel, prompt: Sequence[int], rows: Sequence[Sequence[int]], costs: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Return by how many bits a text is cheaper when all its spellings count, at least and at most.

    Args:
        model: The model.
        prompt: Token ids that are read first.
        rows: The tokenizer's own spelling of N texts, as token ids.
        costs: What these cost, in bits, shape (N,).

    Returns:
        Bits, shapes (N,) and (N,), not negative.
    """
    pieces = model.tokenizer.pieces
    texts = [b"".join(pieces[index] or b"" for index in row) for row in rows]
    by_bytes = _tokens_within(model.tokenizer, texts)
    columns = np.unique([index for own in by_bytes.values() for index in own])
    longest = max(len(own) for own in by_bytes)
    depth = max(map(len, texts))
    try:
        reader, state = model.open(prompt, columns, depth)
    except ModelError:  # Byte by byte it is longer than what the model reads.
        depth = max(map(len, rows))
        reader, state = model.open(prompt, columns, depth)
    found, missed = np.zeros(len(texts)), np.zeros(len(texts))
    level = [_Beginning(0, -1, 0, 0.0, tuple(range(len(texts))))]
    for place in range(depth):
        log2_probs = state.log2_probs.cpu().numpy().astype(float)
        grown = []
        for row, own in enumerate(level):
            following: dict[int, list[int]] = defaultdict(list)
            for text in own.texts:
                left = texts[text][own.length : own.length + longest]
                for end in range(1, len(left) + 1):
                    for index in by_bytes.get(left[:end], ()):
                        following[index].append(text)
            for index, alike in following.items():
                column = int(np.searchsorted(columns, index))
                bits, length = own.bits - log2_probs[row, column], own.length + len(pieces[index] or b"")
                going_on = []
                for text in alike:
                    share = 2.0 ** (costs[text] - bits)
                    if length == len(texts[text]):
                        found[text] += share
                    elif bits > costs[text] + _HOPELESS:
                        missed[text] += share
                    else:
                        going_on.append(text)
                if going_on:
                    grown.append(_Beginning(row, column, length, bits, tuple(going_on)))
        grown.sort(key=lambda own: own.bits - max(costs[text] for text in own.texts))
        kept = 0 if place == depth - 1 else _MOST_ROWS
        for own in grown[kept:]:
            for text in own.texts:
                missed[text] += 2.0 ** (costs[text] - own.bits)
        level = grown[:kept]
        if not level:
            break
        symbols, parents = (torch.tensor(own, device=reader.device) for own in zip(*_places(level), strict=True))
        state = advance_in_tiles(reader, state, symbols, parents)
    # The tokenizer's own spelling is among them: what it lacks of 1 is rounding.
    found = np.maximum(found, 1.0)
    return np.log2(found), np.log2(found + missed)


def _places(level: Sequence[_Beginning]) -> list[tuple[int, int]]:
    return [(own.column, own.row) for own in level]


def _tokens_within(tokenizer: Tokenizer, texts: Sequence[bytes]) -> dict[bytes, list[int]]:
    """Return the tokens that occur in the texts, by their bytes."""
    within = set()
    for text in texts:
        places = range(len(text) + 1)
        within |= {text[start:end] for start in places for end in places[start + 1 :]}
    found: dict[bytes, list[int]] = defaultdict(list)
    for index, piece in enumerate(tokenizer.pieces):
        if piece and piece in within:
            found[piece].append(index)
    return found
