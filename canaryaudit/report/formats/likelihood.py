"""A secret's characters by how likely the model finds each: what the page colors and counts."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

LIKELY_BITS = 1.0
"""Below it, a character is likelier than all others together."""
FAIR_BITS = 3.33
"""Below it, a character has at least one chance in ten: what a random digit has."""
MOST_CHARACTERS = 60

Kind = Literal["likely", "fair", ""]


@dataclass(frozen=True)
class Piece:
    """Neighboring characters that are equally likely."""

    text: str
    kind: Kind


def likelihoods(secret: str, character_bits: Sequence[float] | None) -> tuple[Piece, ...]:
    """Return a secret in pieces, or nothing where the likelihoods are not known.

    Args:
        secret: The completion, shown as it is.
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


def expected(secret: str, character_bits: Sequence[float] | None) -> str:
    """Say how many of a secret's characters are likelier than all others together; empty where it is not known."""
    if character_bits is None or len(character_bits) != len(secret):
        return ""
    return f"{sum(bits < LIKELY_BITS for bits in character_bits):,} of {len(secret):,} foretold"


def _kind(bits: float) -> Kind:
    return "likely" if bits < LIKELY_BITS else "fair" if bits < FAIR_BITS else ""
