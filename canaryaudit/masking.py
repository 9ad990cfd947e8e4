"""Hiding, in what a model says, the secrets that their owners gave."""

from collections.abc import Iterable, Sequence

from canaryaudit.canaries import MASK

OTHERS_MASK = "◦"
"""Hides what belongs to a secret, but not to the one at hand at this place."""

_SHORTEST_RUN = 4


def mask_completion(text: str, completion: str, filled: Sequence[bool]) -> str:
    """Hide from ``text`` every slot character that agrees with the secret's at the same place.

    What is left tells how much of the secret came out, and nothing of the secret itself.

    Args:
        text: A model's completion, or the secret's own.
        completion: The true completion.
        filled: For each character of ``completion``, whether it stands in a slot.
    """
    hidden = [
        MASK if index < len(completion) and filled[index] and character == completion[index] else character
        for index, character in enumerate(text)
    ]
    return "".join(hidden)


def hide_secrets(text: str, secrets: Iterable[str]) -> str:
    """Hide from ``text`` every run of four or more characters, or a whole shorter secret, that a secret holds.

    Case does not count. A model's completion may give away a secret one place too early, or another one.
    """
    folded = _folded(text)
    hidden = [False] * len(text)
    for secret in map(_folded, secrets):
        length = min(_SHORTEST_RUN, len(secret))
        runs = {secret[start : start + length] for start in range(len(secret) - length + 1)} - {""}
        for start in range(len(text) - length + 1):
            if folded[start : start + length] in runs:
                hidden[start : start + length] = [True] * length
    return "".join(OTHERS_MASK if hide else character for character, hide in zip(text, hidden, strict=True))


def _folded(text: str) -> str:
    """Return ``text`` without regard to case, character by character."""
    return "".join(lower if len(lower := character.lower()) == 1 else character for character in text)
