"""Mask given and located secrets in model output, command lines and messages."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise

from canaryaudit.canaries.canary import MASK, Canary, CanarySet
from canaryaudit.canaries.space import Slot

OTHERS_MASK = "◦"
"""Hides characters of another secret, or of this secret at another position."""

HIDDEN = "(hidden)"
"""Replaces a completion whose length must stay hidden too."""

_SHORTEST_RUN = 4
_HIDDEN = MASK * 3
_SECRET_FLAG = re.compile(r"\A(--secret=).*", re.DOTALL)
_SHORTEST_TELLING = 4
"""A shorter secret occurs in many words by chance; masking those words would reveal it."""


def hide_given(text: str, canary: Canary, canary_set: CanarySet) -> str:
    """Return a greedy completion with given and located secrets masked.

    Canaries with the same prefix share one completion, so the row of any of them would reveal a given one. A choice of
    words is hidden entirely, since its length or a wrong word would reveal it.

    Args:
        text: The model's completion of the canary's prefix.
        canary: The canary in whose row it is shown.
        canary_set: All canaries and controls.
    """
    prefix = folded(canary.parsed_template.prefix)
    given = [(other, other.parsed_template) for other in canary_set.canaries if other.masked]
    rivals = [(other, template) for other, template in given if folded(template.prefix) == prefix]
    parts = [part for _, template in rivals for part in template.body if isinstance(part, Slot)]
    if any(part.kind == "choice" or part.listed for part in parts):
        return HIDDEN
    shown = text
    for other, template in sorted(rivals, key=lambda rival: rival[0].id != canary.id):
        sign = MASK if other.id == canary.id else OTHERS_MASK
        shown = mask_completion(shown, other.completion, template.filled(other.completion), sign)
    forms = {
        form
        for other, _ in given
        for wording in other.wordings
        for form in (wording.completion, wording.parsed_template.secret_of(wording.completion))
    }
    return hide_secrets(shown, forms)


def mask_completion(text: str, completion: str, filled: Sequence[bool], sign: str = MASK) -> str:
    """Hide every slot character of ``text`` that equals the secret's at the same position.

    The result shows how much of the secret was completed, but not the secret.

    Args:
        text: A model's completion, or the true one.
        completion: The true completion.
        filled: For each character of ``completion``, whether it fills a slot.
        sign: The character that replaces a hidden one.
    """
    hidden = [
        sign if index < len(completion) and filled[index] and character == completion[index] else character
        for index, character in enumerate(text)
    ]
    return "".join(hidden)


def hide_secrets(text: str, secrets: Iterable[str]) -> str:
    """Hide every run of ``text`` of four or more characters that is part of a secret, and whole shorter secrets.

    Case is ignored. A model's completion may contain a secret at another position, or another secret.
    """
    plain = folded(text)
    hidden = [False] * len(text)
    for secret in map(folded, secrets):
        length = min(_SHORTEST_RUN, len(secret))
        runs = {secret[start : start + length] for start in range(len(secret) - length + 1)} - {""}
        for start in range(len(text) - length + 1):
            if plain[start : start + length] in runs:
                hidden[start : start + length] = [True] * length
    return "".join(OTHERS_MASK if hide else character for character, hide in zip(text, hidden, strict=True))


def folded(text: str) -> str:
    """Return ``text`` in lower case, character by character."""
    return "".join(lower if len(lower := character.lower()) == 1 else character for character in text)


def mask_arguments(argv: Sequence[str], canary_set: CanarySet) -> tuple[str, ...]:
    """Return a command line, or messages, with given and located secrets masked inside any word."""
    forms: dict[int, set[str]] = defaultdict(set)
    for canary in canary_set.canaries:
        if canary.masked:
            for form in _telling(canary):
                for written in (form, repr(form)[1:-1]):  # As in a warning that quotes a template containing it.
                    forms[len(written)].add(folded(written))
    masked: list[str] = []
    for previous, word in pairwise(("", *argv)):
        shown = _HIDDEN if previous == "--secret" else _SECRET_FLAG.sub(r"\1" + _HIDDEN, word)
        for length in sorted(forms, reverse=True):
            shown = _mask_runs(shown, length, forms[length])
        masked.append(shown)
    return tuple(masked)


def _mask_runs(word: str, length: int, secrets: set[str]) -> str:
    """Mask every run of ``length`` characters that is one of the folded ``secrets``, from left to right."""
    plain, start, out = folded(word), 0, ""
    while start < len(word):
        if plain[start : start + length] in secrets:
            out, start = out + _HIDDEN, start + length
        else:
            out, start = out + word[start], start + 1
    return out


def _telling(canary: Canary) -> list[str]:
    """Return the strings that reveal a secret: none for a choice that the template lists, or an ordinary word."""
    if not canary.parsed_template.reveals(canary.completion):
        return []
    forms = [
        form
        for wording in canary.wordings
        for form in (wording.completion, wording.parsed_template.secret_of(wording.completion))
    ]
    return [form for form in forms if len(form) >= _SHORTEST_TELLING]
