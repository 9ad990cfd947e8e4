"""A secret's characters by likelihood: the page colors and counts them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from canaryaudit import formatting as figures
from canaryaudit.canaries.space import Slot
from canaryaudit.canaries.template import Template
from canaryaudit.errors import TemplateError

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


def likelihoods(template: str, secret: str, character_bits: Sequence[float] | None) -> tuple[Piece, ...]:
    """Split a secret into pieces by likelihood; nothing if the likelihoods are unknown.

    Args:
        template: The text of its template, which fixes some characters: these are in no class.
        secret: The completion, unmasked.
        character_bits: Cost of each of its characters, in bits.
    """
    if character_bits is None or len(character_bits) != len(secret):
        return ()
    filled, _ = _secret_characters(template, secret)
    triples = list(zip(secret, character_bits, filled, strict=True))[:MOST_CHARACTERS]
    pieces = tuple(
        Piece("".join(character for character, _, _ in group), kind)
        for kind, group in groupby(triples, key=lambda triple: _kind(triple[1]) if triple[2] else "")
    )
    return (*pieces, Piece("…", "")) if len(secret) > MOST_CHARACTERS else pieces


def predicted(template: str, secret: str, character_bits: Sequence[float] | None) -> str:
    """Say how many of a secret's characters the model predicts; empty if the likelihoods are unknown.

    Characters that the template fixes are no part of the secret and are not counted.
    """
    if character_bits is None or len(character_bits) != len(secret):
        return ""
    filled, noun = _secret_characters(template, secret)
    count = sum(bits < LIKELY_BITS for bits, counts in zip(character_bits, filled, strict=True) if counts)
    return f"{count:,} of {figures.counted(sum(filled), noun)} predicted"


def _secret_characters(template: str, secret: str) -> tuple[list[bool], str]:
    """Return, for each character, whether it fills a slot, and what these characters are called."""
    try:
        parsed = Template.parse(template)
    except TemplateError:  # Masking may have hidden a brace of its fixed text.
        return [True] * len(secret), "character"
    filled = parsed.filled(secret)
    if len(filled) != len(secret):
        return [True] * len(secret), "character"
    kinds = {part.kind for part in parsed.body if isinstance(part, Slot)}
    return filled, "digit" if kinds == {"digits"} else "letter" if kinds <= {"lower", "upper"} else "character"


def _kind(bits: float) -> Kind:
    return "likely" if bits < LIKELY_BITS else "fair" if bits < FAIR_BITS else ""
