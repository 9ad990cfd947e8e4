"""Number and text formatting, the same in every output format."""

import math
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

MISSING = "–"
MINUS = "\u2212"
NOTHING_HELD_OUT = "no text was held out"
"""Printed in place of held-out figures if there is no held-out text."""


SIGNIFICANCE = 0.05
"""The level of all tests, as in ``stats``, which takes long to load."""
_NAMELESS = {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFFA0}
"""Characters without a visible form that Unicode counts as letters or marks."""
_HIDDEN_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_PLAIN = re.compile(r"[\x20-\x7e]*")


def decimal(value: float | None, digits: int = 1) -> str:
    """Write a number with ``digits`` decimals and a typographic minus sign; a dash if it is missing."""
    if value is None:
        return MISSING
    text = f"{value:,.{digits}f}"
    return MINUS + text[1:] if text.startswith("-") and text.strip("-0.,") else text.lstrip("-")


def signed(value: float | None, digits: int = 1) -> str:
    """Format a change with its sign."""
    text = decimal(value, digits)
    return "+" + text if value is not None and value > 0 and text.strip("0.,") else text


def shown_change(before: float | None, after: float | None, digits: int) -> float | None:
    """Return the change between two figures as they are printed, so the printed figures add up."""
    if before is None or after is None:
        return None
    return round(float(f"{after:.{digits}f}") - float(f"{before:.{digits}f}"), digits)


def share_change(before: float | None, after: float | None) -> float | None:
    """Return the change between two shares as they are printed in percent, as a share."""
    change = None if before is None or after is None else shown_change(100 * before, 100 * after, 2)
    return None if change is None else change / 100


def interval(low: float | None, high: float | None) -> str:
    """Write an interval in bits; empty if it is a single value or unknown."""
    shown = decimal(low), decimal(high)
    return "" if low is None or high is None or shown[0] == shown[1] else f"{shown[0]} to {shown[1]}"


def percent(share: float | None, digits: int = 2) -> str:
    """Format a share in percent."""
    return MISSING if share is None else decimal(100 * share, digits) + " %"


def points(share: float | None, digits: int = 2) -> str:
    """Format a change of a share in percentage points."""
    return MISSING if share is None else signed(100 * share, digits) + " points"


def duration(seconds: float | None) -> str:
    """Write a duration in suitable units."""
    if seconds is None:
        return MISSING
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 100:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60:,} h {minutes % 60} min"


def guesses(log2: float | None) -> str:
    """Write a number of guesses, given its logarithm to base 2."""
    if log2 is None:
        return MISSING
    if log2 < math.log2(1e6):
        return f"{round(2**log2):,}"
    number = 2**log2 if log2 < 1000 else math.inf
    for size, name in ((1e6, "million"), (1e9, "billion"), (1e12, "trillion")):
        if number < 999.5 * size:
            return f"{number / size:.3g} {name}"
    return f"10^{log2 * math.log10(2):.0f}"


def odds(log2_probability: float | None, *, short: bool = False) -> str:
    """Write a probability, given its logarithm to base 2; in at most a dozen characters if ``short``."""
    if log2_probability is None:
        return MISSING
    chance = 2**log2_probability
    if chance >= 0.995:
        return "certain" if short else "almost certain"
    if chance >= 0.095:
        return f"{100 * chance:.0f} in 100"
    if short and chance < 1e-5:
        return f"1 in 10^{-log2_probability * math.log10(2):.0f}"
    return f"1 in {guesses(-log2_probability)}"


def pvalue(value: float | None) -> str:
    """Write a p-value, never rounded to the level of significance.

    Examples:
        >>> pvalue(0.0123), pvalue(0.0503), pvalue(0.04998), pvalue(0.0002)
        ('0.012', '0.0503', '0.04998', 'below 0.001')
    """
    return MISSING if value is None else "below 0.001" if value < 0.001 else decimal(value, _p_digits(value))


def p_percent(value: float | None) -> str:
    """Write a p-value in percent, never rounded to the level of significance."""
    if value is not None and value < 0.001:
        return "below 0.1 %"
    return percent(value, 1 if value is None else _p_digits(value) - 2)


def _p_digits(value: float) -> int:
    return next((digits for digits in range(3, 9) if round(value, digits) != SIGNIFICANCE), 3)


def significant(value: float | None) -> str:
    """Write a number with three significant digits."""
    return MISSING if value is None else f"{value:.3g}".replace("e-0", "e-").replace("e+0", "e+").replace("-", MINUS)


def times(factor: float | None) -> str:
    """Write a speedup: ``45x``, ``4.2x`` or ``0.40x``."""
    return MISSING if factor is None else f"{decimal(factor, 0 if factor >= 10 else 1 if factor >= 1 else 2)}x"


def relative_speed(speedup: float | None) -> str:
    """Write a speedup as a comparison: ``4.2x faster``, ``2.5x slower`` or ``equally fast``."""
    if speedup is None or speedup <= 0:
        return MISSING
    ratio = times(max(speedup, 1 / speedup))
    return "equally fast" if ratio == "1.0x" else f"{ratio} {'faster' if speedup > 1 else 'slower'}"


def retraining_time(seconds: float | None, speedup: float | None) -> str:
    """Write how long retraining takes, and how it compares with the unlearning: ``39.4 s (4.2x slower)``.

    Args:
        seconds: Duration of the retraining; None if it is not known.
        speedup: That duration divided by the duration of the unlearning; None if it is unknown.
    """
    if seconds is None:
        return "not known"
    comparison = relative_speed(1 / speedup if speedup else None)
    return duration(seconds) + (f" ({comparison})" if comparison != MISSING else "")


def counted(number: int, noun: str) -> str:
    """Write a number with its noun, in the singular or plural."""
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{number:,} {noun if number == 1 else plural}"


def _shown(character: str) -> str:
    if character == "\n":
        return "↵"
    return f"⟨U+{ord(character):04X}⟩" if _is_hidden(character) else character


def _is_hidden(character: str) -> bool:
    """Return whether a character has no form of its own: it is invisible, or looks like a plain space."""
    category = unicodedata.category(character)
    return ord(character) in _NAMELESS or category in _HIDDEN_CATEGORIES or (category == "Zs" and character != " ")


def visible(text: str) -> str:
    """Return ``text`` on one line, with control and invisible characters replaced by visible symbols.

    A line feed becomes ``↵``. Escape and other control characters, bidirectional overrides, zero-width and unassigned
    characters, and spaces other than U+0020 become ``⟨U+001B⟩``, ``⟨U+202E⟩`` and the like, which every font can show.
    The function is idempotent.
    """
    return text if _PLAIN.fullmatch(text) else "".join(map(_shown, text))


def shorten(text: str, limit: int) -> str:
    """Return the visible form of ``text`` in at most ``limit`` characters; the middle is replaced by the length."""
    if len(text) <= limit and len(shown := visible(text)) <= limit:
        return shown
    note = f"…({len(text):,} characters)…"
    if limit < 3 * len(note):
        return visible(text[:limit])[: limit - 1] + "…"
    side = (limit - len(note)) // 2
    return visible(text[:side])[:side] + note + visible(text[-side:])[-side:]


def well_formed(text: str) -> str:
    """Return ``text`` without lone surrogates, which UTF-8 cannot encode."""
    return text.encode("utf-8", "replace").decode("utf-8")


def json_safe(document: str) -> str:
    r"""Return a JSON document with every invisible character escaped as ``\uXXXX``.

    Such characters occur only within strings, where an escape has the same meaning.
    """

    def escaped(match: re.Match[str]) -> str:
        character = match[0]
        if not _is_hidden(character):
            return character
        units = character.encode("utf-16-be")
        return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))

    return re.sub(r"[^\n\x20-\x7e]", escaped, document)


def finite(value: Any) -> Any:
    """Return a JSON value with null in place of infinities and NaN."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list) else value


_PLAIN_WORDS = {
    r"Input should be a valid integer.*": "expected a whole number",
    r"Input should be a valid number.*": "expected a number",
    r"Input should be a valid boolean.*": "expected true or false",
    r"Input should be a valid dictionary.*": "expected an object",
    r"Input should be a valid (tuple|list).*": "expected a list",
    r"Input should be a valid ": "expected a ",
    r"Input should be ": "expected ",
    r"String should have at least 1 character": "expected at least 1 character, got none",
    r"Field required": "missing",
    r"Extra inputs are not permitted": "unknown key",
    r"(Value|Assertion) error, ": "",
    r"greater than or equal to": "at least",
    r"less than or equal to": "at most",
    r"greater than": "more than",
}


def plain_fault(message: str) -> str:
    """Return a validation's message in plain words, in place of Pydantic's."""
    for pydantic_words, plain_words in _PLAIN_WORDS.items():
        message = re.sub(pydantic_words, plain_words, message)
    return message
