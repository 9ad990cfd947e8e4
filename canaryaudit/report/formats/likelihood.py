"""A secret's characters by likelihood: the page colors and counts them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

LIKELY_BITS = 1.0
"""Below this, a character is more likely than all others together."""
FAIR_BITS = 3.33
"""Below this, a character has a probability of at least 1 in 10, like a random digit."""
MOST_CHARACTERS = 60

Kind = Literal["likely", "fair", ""]


@dataclass(frozen=True)
class Piece:
    """Neighboring characters of the same class of likelihood."""

    text: str
    kind: Kind


def likelihoods(secret: str, character_bits: Sequence[float] | None) -> tuple[Piece, ...]:
    """Split a secret into pieces by likelihood; nothing if the likelihoods are unknown.

    Args:
        secret: The completion, unmasked.
        character_bits: Cost of each of its characters, in bits.
    """
    if character_bits is None or len(character_bits) != len(secret):
        return ()
    pairs = list(zip(secret, character_bits, strict=True))[:MOST_CHARACTERS]
    pieces = tuple(
        Piece("".join(character for character, _ in group), kind)
        for kind, group in groupby(pairs, key=lambda pair: _kind(pair[1]))
    )
    return (*pieces, Piece("…", "")) if len(secret) > MOST_CHARACTERS else pieces


def predicted(secret: str, character_bits: Sequence[float] | None) -> str:
    """Say how many of a secret's characters the model predicts; empty if the likelihoods are unknown."""
    if character_bits is None or len(character_bits) != len(secret):
        return ""
    return f"{sum(bits < LIKELY_BITS for bits in character_bits):,} of {len(secret):,} predicted"


def _kind(bits: float) -> Kind:
    return "likely" if bits < LIKELY_BITS else "fair" if bits < FAIR_BITS else ""
