"""What may be read before a secret: text that has nothing to do with it, and parts and rewordings of the prefix.

All end as the template's own prefix ends, mostly with a blank: by a prompt's last characters a tokenizer decides what
tokens the secret has.
"""

from collections.abc import Callable, Iterator

import numpy as np

from canaryaudit.exposure.probes import RunText
from canaryaudit.unlearning.tokens.branches import ending, own_prompt

LENGTHS = (12, 24, 48)
"""Characters of other text: short ones are what an attacker types, long ones what the text itself has."""
REWORDED_SHARE = 0.4
"""Words of a prefix that are replaced by words of the text."""
_LINE_BREAK_SHARE = 0.1


class PromptDraws:
    """Draws prompts for a template's secrets, one of each kind in turn.

    Args:
        template: The template.
        run_text: The text that the model was trained on.
        rng: Source of the draws.
    """

    def __init__(self, template: str, run_text: RunText, rng: np.random.Generator) -> None:
        self._prefix, self._run_text, self._rng = own_prompt(template), run_text, rng
        self._words = run_text.words(rng)
        self._kinds: tuple[Callable[[], str], ...] = (
            self._other_text,
            lambda: self._other_text() + self._tail(),
            self._tail,
            lambda: self._other_text() + self._prefix,
            self._reworded,
        )

    def __iter__(self) -> Iterator[str]:
        """Yield prompts without end, none of them the prefix itself."""
        while True:
            for kind in self._rng.permutation(len(self._kinds)).tolist():
                found = self._kinds[kind]()
                if not found.strip() or self._rng.random() < _LINE_BREAK_SHARE:
                    yield "\n" if self._prefix != "\n" else "\n\n"
                elif (prompt := found.rstrip() + ending(self._prefix)) != self._prefix:
                    yield prompt

    def _other_text(self) -> str:
        """Return a piece of text that ends with a whole word."""
        piece = next(self._run_text.pieces(int(self._rng.choice(LENGTHS)), self._rng), "")
        cut = max((index for index, character in enumerate(piece) if character.isspace()), default=-1)
        return piece[: cut + 1]

    def _tail(self) -> str:
        """Return the last words of the prefix."""
        words = self._prefix.rstrip().split(" ")
        return " ".join(words[-int(self._rng.integers(1, max(2, len(words)))) :])

    def _reworded(self) -> str:
        """Return the prefix with some words replaced by words of the text."""
        words = self._prefix.rstrip().split(" ")
        chosen = self._rng.random(len(words)) < REWORDED_SHARE
        return " ".join(
            self._words[int(self._rng.integers(len(self._words)))] if replaced and self._words else word
            for word, replaced in zip(words, chosen.tolist(), strict=True)
        )
