"""Masking, done once, when the summary is made: what is hidden here, no format can show."""

import math
import re
from collections import defaultdict
from collections.abc import Sequence

from canaryaudit.canaries.canary import MASK, Canary, CanarySet
from canaryaudit.canaries.masking import HIDDEN
from canaryaudit.canaries.template import Template

_SHORTEST_RUN = 4
"""Shorter runs of a secret stand in any text by chance; hiding them everywhere would tell more than it hides."""
_LONGEST_RUN = 32
"""No run of a long secret beyond this is shown, however long the secret is."""
_FIXED, _FILLED, _CHOSEN = ".", "#", "|"
"""Marks of a completion's characters: of the template's own, of a slot's, and of a choice's word."""
_STRETCH = re.compile(r"#(?:[#.]*#)?")
"""From one slot's start to the last slot's end before a choice: what of a completion is the secret's own."""
_BRACES = re.compile(r"(\{[^{}]*\})")


class Masker:
    """Hides the secrets that their owner gave, wherever their characters come out.

    Two canaries with the same words before them share one greedy completion, so that the row of a
    generated secret would give away that of a given one: completions are masked against all of them.
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
            self._hide(canary)

    def _hide(self, canary: Canary) -> None:
        template, completion = self._templates[canary.template], canary.completion
        marks = _marks(template, completion)
        if _CHOSEN in marks:
            # Its words stand in the template for all to read: only which of them it is can be hidden.
            self._choices.add(_folded(template.prefix))
        else:
            places = self._characters[_folded(template.prefix)]
            for place, mark in enumerate(marks):
                if mark == _FILLED:
                    places[place].add(completion[place])
        secret, own = _folded(completion), marks.count(_FILLED)
        forms = {(secret[slice(*found.span())], found[0]) for found in _STRETCH.finditer(marks)}
        forms.add(("".join(c for c, mark in zip(secret, marks, strict=True) if mark == _FILLED), _FILLED * own))
        for form, marked in forms:
            if len(form) >= _SHORTEST_RUN:
                length = min(_LONGEST_RUN, max(_SHORTEST_RUN, math.ceil(len(form) / 2)))
                starts = [i for i in range(len(form) - length + 1) if _FILLED in marked[i : i + length]]
                self._runs[length].update(form[i : i + length] for i in starts)

    def secret(self, canary: Canary) -> str:
        """Return the canary's completion, or as much of it as may be shown: its fixed characters."""
        if self.reveal_secrets or not canary.masked:
            return canary.completion
        # Built from the template alone, so that not even the length of a chosen word is told.
        return "".join(
            part if isinstance(part, str) else MASK * max([part.length, *map(len, part.words)])
            for part in self._templates[canary.template].body
        )

    def told(self, bits: float) -> float:
        """Return a figure drawn from several canaries' own, in tenths of a bit where one of them may be hidden."""
        return round(bits, 1) if self.hides else bits

    def greedy_completion(self, canary: Canary, recorded: str) -> str:
        """Return a canary's greedy completion as it may be shown.

        Args:
            canary: Whose it is.
            recorded: As the measurement holds it: masked, if the canary is.
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
        """Return a template's text with masked secrets hidden from its fixed parts."""
        return "".join(piece if piece.startswith("{") else self.text(piece) for piece in _BRACES.split(text))

    def text(self, text: str) -> str:
        """Return free text with every longer run of a masked secret hidden."""
        marked: set[int] = set()
        folded = _folded(text)
        for length, runs in self._runs.items():
            for start in range(len(text) - length + 1):
                if folded[start : start + length] in runs:
                    marked.update(range(start, start + length))
        return "".join(MASK if i in marked else c for i, c in enumerate(text)) if marked else text


def _marks(template: Template, completion: str) -> str:
    """Return a mark for each character of a completion: ``_FIXED``, ``_FILLED`` or ``_CHOSEN``."""
    marks = ""
    for part in template.body:
        if isinstance(part, str):
            marks += _FIXED * len(part)
        elif part.kind == "choice":
            marks += _CHOSEN * len(next(word for word in part.words if completion.startswith(word, len(marks))))
        else:
            marks += _FILLED * part.length
    return marks


def _folded(text: str) -> str:
    """Return ``text`` without regard to case, character by character."""
    return "".join(lower if len(lower := c.lower()) == 1 else c for c in text)


def _unmasked(text: str, completion: str, filled: Sequence[bool]) -> str:
    """Put the secret's own characters back where the measurement hid them."""
    return "".join(completion[i] if c == MASK and i < len(completion) and filled[i] else c for i, c in enumerate(text))
