"""The audited text and the held-out text, put together from a corpus block by block."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from canaryaudit.canaries.canary import Canary
from canaryaudit.corpus.corpus import Corpus, ends_with_blank_line

_ENDING = 64
"""Characters looked at for the end of a paragraph; twice as many wherever they are all white space."""


@dataclass(frozen=True)
class Assembly:
    """What of a corpus is trained on and what is held out, and what is inserted where.

    Attributes:
        corpus: The corpus.
        held: Where its held-out text lies, neighboring paragraphs as one: begins and ends in characters, shape (n, 2).
        inserted: Texts to insert, and before which of its characters, ascending; none within a held-out part.
    """

    corpus: Corpus
    held: np.ndarray
    inserted: tuple[tuple[int, str], ...] = field(default=(), repr=False)

    @property
    def characters(self) -> int:
        """Number of characters to train on."""
        return len(self.corpus.text) - self.heldout_characters + sum(len(text) for _, text in self.inserted)

    @property
    def heldout_characters(self) -> int:
        """Number of held-out characters."""
        return int((self.held[:, 1] - self.held[:, 0]).sum())

    def training_blocks(self) -> Iterator[str]:
        """Yield the text to train on."""
        waiting = iter([*self.inserted, (len(self.corpus.text), "")])
        place, text = next(waiting)
        for start, block, bounds in self._cut():
            out: list[str] = []
            done = 0
            for begin, end in [*bounds, (len(block), len(block))]:
                while place < start + begin:
                    out += (block[done : place - start], text)
                    done = place - start
                    place, text = next(waiting)
                out.append(block[done:begin])
                done = end
            yield "".join(out)

    def heldout_blocks(self) -> Iterator[str]:
        """Yield the held-out text."""
        for _, block, bounds in self._cut():
            if bounds:
                yield "".join([block[begin:end] for begin, end in bounds])

    def _cut(self) -> Iterator[tuple[int, str, list[tuple[int, int]]]]:
        """Yield where each block of the corpus begins, the block, and the held-out parts within it."""
        start = 0
        for block in self.corpus.text.blocks():
            end = start + len(block)
            first = int(np.searchsorted(self.held[:, 1], start, "right"))
            last = int(np.searchsorted(self.held[:, 0], end, "left"))
            bounds = np.clip(self.held[first:last], start, end) - start
            yield start, block, list(map(tuple, bounds.tolist()))
            start = end


def assemble(
    corpus: Corpus, held: np.ndarray, canaries: Sequence[Canary] = (), boundaries: Sequence[int] = ()
) -> tuple[Assembly, list[Canary]]:
    """Put canaries before training paragraphs, one each.

    Args:
        corpus: The corpus.
        held: Which of its paragraphs are held out, shape (paragraphs,), bool.
        canaries: What to insert, each as often as its repetitions say.
        boundaries: Before which training paragraphs, counted from 0 and not the first; as many as insertions.

    Returns:
        The assembly, and the canaries with their places in the text to train on.
    """
    spans = held_spans(corpus.ends, held)
    before = np.r_[0, np.cumsum(spans[:, 1] - spans[:, 0])]  # held-out characters before each span
    numbers = iter(boundaries)
    here = {next(numbers): index for index, canary in enumerate(canaries) for _ in range(canary.repetitions)}
    order = sorted(here)
    training = np.flatnonzero(~held)
    following = training[np.array(order, dtype=np.int64)]
    preceding = training[np.array(order, dtype=np.int64) - 1]
    del training
    texts = [canary.parsed_template.fill(canary.completion) for canary in canaries]
    places: list[list[int]] = [[] for _ in canaries]
    inserted: list[tuple[int, str]] = []
    longer = 0
    for number, one, other in zip(order, preceding.tolist(), following.tolist(), strict=True):
        start, end = (int(corpus.ends[index - 1]) if index else 0 for index in (other, one + 1))
        # A canary ends as its neighbor does: with a blank line, or in a text of lines with a line break.
        text = texts[here[number]] + ("\n\n" if _ends_with_blank_line(corpus, end) else "\n")
        places[here[number]].append(start - int(before[np.searchsorted(spans[:, 0], start)]) + longer)
        inserted.append((start, text))
        longer += len(text)
    made = Assembly(corpus, spans, tuple(inserted))
    return made, [c.model_copy(update={"places": tuple(p)}) for c, p in zip(canaries, places, strict=True)]


def held_spans(ends: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Return where held-out paragraphs begin and end, in characters, neighbors as one, shape (n, 2)."""
    changes = np.flatnonzero(held[1:] != held[:-1]) + 1  # numbers of paragraphs
    edges = np.r_[[0] if held[0] else [], changes, [len(held)] if held[-1] else []].astype(np.int64)
    spans: np.ndarray = np.where(edges > 0, ends[edges - 1], 0).reshape(-1, 2)
    return spans


def _ends_with_blank_line(corpus: Corpus, end: int) -> bool:
    """Tell whether the paragraph that ends at a character ends with a blank line."""
    length = _ENDING
    while (text := corpus.text.slice(max(0, end - length), end)).isspace() and length < end:
        length *= 2
    return ends_with_blank_line(text)
