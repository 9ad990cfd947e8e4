"""Untrusted text made safe and visible: the one way in which every format treats it.

Templates, secrets, completions, run names and notes may hold anything: control characters, escape
sequences, characters that reverse the reading direction or that cannot be seen. None of them may act;
all of them are shown.
"""

import math
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

_NAMELESS = {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFFA0}
"""Characters that print nothing, and that Unicode nevertheless counts as letters or marks."""

_HIDDEN_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_PLAIN = re.compile(r"[\x20-\x7e]*")


def _shown(character: str) -> str:
    if character == "\n":
        return "↵"
    code = ord(character)
    if code in _NAMELESS or unicodedata.category(character) in _HIDDEN_CATEGORIES:
        return f"⟨U+{code:04X}⟩"
    return character


def visible(text: str) -> str:
    """Return ``text`` on one line, with every character that would act or stay unseen replaced by a sign.

    A line feed becomes ``↵``; escape and the other control characters, bidirectional overrides, zero-width
    and unassigned characters become ``⟨U+001B⟩``, ``⟨U+202E⟩`` and the like, which every font can show.
    Applying it twice changes nothing.
    """
    return text if _PLAIN.fullmatch(text) else "".join(map(_shown, text))


def shorten(text: str, limit: int) -> str:
    """Return the visible form of ``text``, at most ``limit`` characters, the middle replaced by its length."""
    if len(text) <= limit and len(shown := visible(text)) <= limit:
        return shown
    note = f"…({len(text):,} characters)…"
    if limit < 3 * len(note):
        return visible(text[:limit])[: limit - 1] + "…"
    side = (limit - len(note)) // 2
    return visible(text[:side])[:side] + note + visible(text[-side:])[-side:]


def well_formed(text: str) -> str:
    """Return ``text`` without lone surrogates, which no file can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def json_safe(document: str) -> str:
    r"""Return a JSON document with every unseen character written as ``\uXXXX``; its meaning stays.

    Such characters can stand only within strings, where an escape means the same.
    """

    def escaped(match: re.Match[str]) -> str:
        character = match[0]
        if unicodedata.category(character) not in _HIDDEN_CATEGORIES and ord(character) not in _NAMELESS:
            return character
        units = character.encode("utf-16-be")
        return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))

    return re.sub(r"[^\n\x20-\x7e]", escaped, document)


def finite(value: Any) -> Any:
    """Return a JSON value with null in place of numbers that JSON has no word for."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list) else value
