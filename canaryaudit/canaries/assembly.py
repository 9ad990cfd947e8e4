"""The training text and the held-out text, assembled from a corpus block by block."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from canaryaudit.canaries.canary import Canary
from canaryaudit.corpus.corpus import Corpus, ends_with_blank_line

_ENDING = 64
"""Characters inspected for the end of a paragraph; doubled while they are all white space."""


@dataclass(frozen=True)
class Assembly:
    """The split of a corpus into training and held-out text, and the texts to insert.

    Attributes:
        corpus: The corpus.
        held: Starts and ends of the held-out parts in characters, shape (n, 2); adjacent paragraphs are one part.
        inserted: Offsets in the corpus and the texts to insert there, ascending; none within a held-out part.
    """

    corpus: Corpus
    held: np.ndarray
    inserted: tuple[tuple[int, str], ...] = field(default=(), repr=False)

    @property
    def characters(self) -> int:
        """Number of training characters."""
        return len(self.corpus.text) - self.heldout_characters + sum(len(text) for _, text in self.inserted)

    @property
    def heldout_characters(self) -> int:
        """Number of held-out characters."""
        return int((self.held[:, 1] - self.held[:, 0]).sum())

    def training_blocks(self) -> Iterator[str]:
        """Yield the training text."""
        waiting = iter([*self.inserted, (len(self.corpus.text), "")])
        offset, text = next(waiting)
        for start, block, bounds in self._cut():
            out: list[str] = []
            done = 0
            for begin, end in [*bounds, (len(block), len(block))]:
                while offset < start + begin:
                    out += (block[done : offset - start], text)
                    done = offset - start
                    offset, text = next(waiting)
                out.append(block[done:begin])
                done = end
            yield "".join(out)

    def heldout_blocks(self) -> Iterator[str]:
        """Yield the held-out text."""
        for _, block, bounds in self._cut():
            if bounds:
                yield "".join([block[begin:end] for begin, end in bounds])

    def places_in_training(self, places: np.ndarray) -> list[int]:
        """Return offsets in the corpus as offsets in the training text without the inserted texts, shape (n,)."""
        held = np.r_[0, np.cumsum(self.held[:, 1] - self.held[:, 0])]  # held-out characters before each span
        return (places - held[np.searchsorted(self.held[:, 0], places)]).tolist()  # type: ignore[no-any-return]

    def places_after(self, places: Sequence[int]) -> tuple[int, ...]:
        """Return offsets in the training text as they are after the insertions.

        Args:
            places: Offsets in the training text without the inserted texts.
        """
        starts, lengths = self._insertions
        array = np.array(places, dtype=np.int64)
        return tuple((array + lengths[np.searchsorted(starts, array, "right")]).tolist())

    @cached_property
    def _insertions(self) -> tuple[np.ndarray, np.ndarray]:
        """Where texts are inserted into the training text, and the characters inserted before each and in all."""
        starts = self.places_in_training(np.array([start for start, _ in self.inserted], dtype=np.int64))
        lengths = np.r_[0, np.cumsum([len(text) for _, text in self.inserted])].astype(np.int64)
        return np.array(starts, dtype=np.int64), lengths

    def _cut(self) -> Iterator[tuple[int, str, list[tuple[int, int]]]]:
        """Yield each block's offset in the corpus, the block, and the held-out parts within it."""
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
    """Insert canaries before training paragraphs, at most one before each.

    Args:
        corpus: The corpus.
        held: Whether each paragraph is held out, shape (paragraphs,), bool.
        canaries: Canaries to insert, each as often as its repetition count.
        boundaries: Indices of the training paragraphs to insert before, from 0, never the first; one per insertion.

    Returns:
        The assembly, and the canaries with their places in the training text.
    """
    spans = held_spans(corpus.ends, held)
    before = np.r_[0, np.cumsum(spans[:, 1] - spans[:, 0])]  # held-out characters before each span
    numbers = iter(boundaries)
    canary_at = {next(numbers): index for index, canary in enumerate(canaries) for _ in range(canary.repetitions)}
    order = sorted(canary_at)
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
        # A canary ends as the paragraph before it does: with a blank line, or with a line break.
        ending = "\n\n" if _ends_with_blank_line(corpus, end) else "\n"
        text = texts[canary_at[number]].removesuffix("\n") + ending
        places[canary_at[number]].append(start - int(before[np.searchsorted(spans[:, 0], start)]) + longer)
        inserted.append((start, text))
        longer += len(text)
    made = Assembly(corpus, spans, tuple(inserted))
    return made, [c.model_copy(update={"places": tuple(p)}) for c, p in zip(canaries, places, strict=True)]


def held_spans(ends: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Return the starts and ends of the held-out parts in characters, shape (n, 2), adjacent paragraphs merged."""
    changes = np.flatnonzero(held[1:] != held[:-1]) + 1  # numbers of paragraphs
    edges = np.r_[[0] if held[0] else [], changes, [len(held)] if held[-1] else []].astype(np.int64)
    spans: np.ndarray = np.where(edges > 0, ends[edges - 1], 0).reshape(-1, 2)
    return spans


def _ends_with_blank_line(corpus: Corpus, end: int) -> bool:
    """Return whether the paragraph that ends at ``end`` ends with a blank line."""
    length = _ENDING
    while (text := corpus.text.slice(max(0, end - length), end)).isspace() and length < end:
        length *= 2
    return ends_with_blank_line(text)
