"""Masking, done once when the summary is built: no format can print what is hidden here."""

import math
import re
from collections import defaultdict
from collections.abc import Sequence

from canaryaudit.canaries.canary import MASK, Canary, CanarySet, Wording
from canaryaudit.canaries.masking import HIDDEN
from canaryaudit.canaries.space import Slot
from canaryaudit.canaries.template import Template

_SHORTEST_RUN = 4
"""Shorter runs of a secret occur in any text by chance; hiding them everywhere would reveal more than it hides."""
_LONGEST_RUN = 32
"""Longest run of a secret that is compared; a longer one is always hidden, whatever the secret's length."""
_FIXED, _FILLED, _CHOSEN = ".", "#", "|"
"""Marks of a completion's characters: fixed text of the template, a slot's filling, or a word of any text."""
_WORD_MASK = 6
"""Dots for a word of a list, whatever its length."""
_STRETCH = re.compile(r"#(?:[#.]*#)?")
"""From the start of one slot to the end of the last slot before a choice: the secret part of a completion."""
_BRACES = re.compile(r"(\{[^{}]*\})")


class Masker:
    """Hides the secrets that their owner gave, wherever their characters appear.

    Two canaries with the same prefix share one greedy completion, so the row of a generated secret could reveal a given
    one. Every completion is therefore masked against all hidden secrets.
    """

    def __init__(self, canary_set: CanarySet, reveal_secrets: bool) -> None:
        self.reveal_secrets = reveal_secrets
        self._templates = {text: Template.parse(text) for text in canary_set.by_template()}
        self._characters: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
        self._choices: set[str] = set()
        self._runs: dict[int, set[str]] = defaultdict(set)
        hidden = [] if reveal_secrets else [canary for canary in canary_set.canaries if canary.masked]
        self.hides = bool(hidden)
        self.hides_located = any(canary.origin == "located" for canary in hidden)
        for canary in hidden:
            for wording in canary.wordings:
                self._templates.setdefault(wording.template, wording.parsed_template)
                self._hide(wording)

    def _hide(self, canary: Wording) -> None:
        template, completion = self._templates[canary.template], canary.completion
        marks = _marks(template, completion)
        if any(isinstance(part, Slot) and (part.words or part.listed) for part in template.body):
            # The words to choose from are known: only which of them was chosen can be hidden.
            self._choices.add(_folded(template.prefix))
        else:
            places = self._characters[_folded(template.prefix)]
            for place, mark in enumerate(marks):
                if mark == _FILLED:
                    places[place].add(completion[place])
        secret, num_filled = _folded(completion), marks.count(_FILLED)
        forms = {(secret[slice(*stretch.span())], stretch[0]) for stretch in _STRETCH.finditer(marks)}
        forms.add(("".join(c for c, mark in zip(secret, marks, strict=True) if mark == _FILLED), _FILLED * num_filled))
        for form, marked in forms:
            if len(form) >= _SHORTEST_RUN:
                length = min(_LONGEST_RUN, max(_SHORTEST_RUN, math.ceil(len(form) / 2)))
                starts = [i for i in range(len(form) - length + 1) if _FILLED in marked[i : i + length]]
                self._runs[length].update(form[i : i + length] for i in starts)

    def secret(self, canary: Canary) -> str:
        """Return the canary's completion, or only its fixed characters if the secret is hidden."""
        if self.reveal_secrets or not canary.masked:
            return canary.completion
        # Built from the template alone, so not even the length of a chosen word is revealed.
        return "".join(
            part
            if isinstance(part, str)
            else MASK * (_WORD_MASK if part.listed else max([part.length, *map(len, part.words)]))
            for part in self._templates[canary.template].body
        )

    def rounded(self, bits: float) -> float:
        """Return a figure aggregated over canaries, rounded to tenths of a bit if any of them is hidden."""
        return round(bits, 1) if self.hides else bits

    def greedy_completion(self, canary: Canary, recorded: str) -> str:
        """Return a canary's greedy completion with hidden secrets masked.

        Args:
            canary: The canary.
            recorded: The completion in the measurement, which is masked if the canary is.
        """
        template = self._templates[canary.template]
        if self.reveal_secrets:
            filled = template.filled(canary.completion)
            return _unmasked(recorded, canary.completion, filled) if canary.masked else recorded
        prefix = _folded(template.prefix)
        if prefix in self._choices:
            return HIDDEN
        places = self._characters.get(prefix, {})
        shown = "".join(MASK if c in places.get(i, ()) else c for i, c in enumerate(recorded))
        return self.text(shown)

    def template(self, text: str) -> str:
        """Return a template's text with masked secrets hidden in its fixed parts."""
        return "".join(piece if piece.startswith("{") else self.text(piece) for piece in _BRACES.split(text))

    def text(self, text: str) -> str:
        """Return text with every longer run of a masked secret hidden."""
        marked: set[int] = set()
        folded = _folded(text)
        for length, runs in self._runs.items():
            for start in range(len(text) - length + 1):
                if folded[start : start + length] in runs:
                    marked.update(range(start, start + length))
        return "".join(MASK if i in marked else c for i, c in enumerate(text)) if marked else text


def _marks(template: Template, completion: str) -> str:
    """Return a mark for each character of a completion: ``_FIXED``, ``_FILLED`` or ``_CHOSEN``."""
    fillings, reveals = iter(template.fillings(completion)), template.reveals(completion)
    marks = ""
    for part in template.body:
        if isinstance(part, str):
            marks += _FIXED * len(part)
        else:
            ordinary = part.kind == "choice" or (part.listed and not reveals)
            marks += (_CHOSEN if ordinary else _FILLED) * len(next(fillings))
    return marks


def _folded(text: str) -> str:
    """Return ``text`` in lower case, character by character, with its length unchanged."""
    return "".join(lower if len(lower := c.lower()) == 1 else c for c in text)


def _unmasked(text: str, completion: str, filled: Sequence[bool]) -> str:
    """Restore the secret's characters where the measurement hid them."""
    return "".join(completion[i] if c == MASK and i < len(completion) and filled[i] else c for i, c in enumerate(text))
