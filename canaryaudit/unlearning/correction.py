"""From Z to Z-tilde: the windows of the text in which secrets are replaced, or their sentences deleted."""

import math
import re
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from canaryaudit.corpus.vocabulary import Vocabulary
from canaryaudit.training.data import TrainingData, affected_windows, gather
from canaryaudit.unlearning.occurrences import Occurrence, completion_mask
from canaryaudit.unlearning.replacement import Deletion, Replacement

_SENTENCE_BREAK = re.compile(r"[.!?…][\"'’”)\]]*\s+")
_BLANK_LINE = re.compile(r"\n[^\S\n]*\n\s*")
_MOST_DRAWS = 200
"""Replacements drawn until one has the secret's length and is another."""


class Correction:
    """What a request corrects in a text, and how: one way for every strategy and every update.

    Attributes:
        text: The text, shape (N,).
        places: The secrets' places.
        affected: Starts of the windows that what is corrected touches, as feature or label: Z.
    """

    def __init__(
        self,
        text: Tensor,
        places: list[Occurrence],
        replacement: Replacement | Deletion,
        vocabulary: Vocabulary,
        window: int,
    ) -> None:
        self.text, self.places, self.replacement, self.window = text, places, replacement, window
        if isinstance(replacement, Deletion):
            self._touched = sentence_mask(text, places, vocabulary)
        else:
            self._touched = completion_mask(len(text), places)
        self.affected = affected_windows(self._touched, window)

    def original_windows(self) -> Tensor:
        """Return Z, shape (W, T + 1)."""
        return gather(self.text, self.affected, self.window + 1)

    def corrected_windows(self, rng: np.random.Generator) -> list[Tensor]:
        """Return Z-tilde, as windows of shape (n, t + 1) with one t for each item.

        With a replacement t is T. With deletion every run of adjacent windows of Z is cut anew over what is
        left of its text: each label that is kept stands in Z-tilde as often as in Z, and the last window of
        a run may be shorter.
        """
        if not isinstance(self.replacement, Deletion):
            return [self._replaced(self.replacement, rng)]
        corrected = self.text[torch.from_numpy(~self._touched).to(self.text.device)].long()
        left = np.r_[0, np.cumsum(~self._touched)]  # characters kept before each place
        windows: dict[int, list[Tensor]] = {}
        for first, last in _runs(self.affected, self.window):
            start, end = (max(0, int(left[edge + 1]) - 1) for edge in (first, last))
            for begin in range(start, end, self.window):
                own = corrected[begin : min(begin + self.window, end) + 1]
                windows.setdefault(len(own), []).append(own)
        return [torch.stack(own) for own in windows.values()]

    def _replaced(self, replacement: Replacement, rng: np.random.Generator) -> Tensor:
        """Return Z with a replacement, drawn for each occurrence, in every secret's place; shape (W, T + 1)."""
        windows = self.original_windows()
        for place in self.places:
            symbols = self._fitting(place, replacement, rng)
            end = place.start + len(place.secret)
            first = np.searchsorted(self.affected, place.start - self.window)
            last = np.searchsorted(self.affected, end)
            for index, start in enumerate(self.affected[first:last].tolist(), int(first)):
                begin, stop = max(place.start, start), min(end, start + self.window + 1)
                own = symbols[begin - place.start : stop - place.start]
                windows[index, begin - start : stop - start] = own.to(windows.device)
        return windows

    def _fitting(self, place: Occurrence, replacement: Replacement, rng: np.random.Generator) -> Tensor:
        """Draw a replacement that is as long as the secret: words differ in length, and another has no room here.

        The secret itself may be drawn, unless it alone has its length. Then other draws are joined and cut.
        """
        secret = torch.from_numpy(place.secret).long()
        others: list[Tensor] = []
        first: Tensor | None = None
        for _ in range(_MOST_DRAWS):
            symbols = replacement.correct(place, 1, rng)[0].symbols[0].cpu()
            if torch.equal(symbols, secret):
                first = symbols if first is None else first
            elif len(symbols) == len(secret):
                return symbols if first is None else first
            else:
                others.append(symbols)
        if not others:
            return secret
        return torch.cat(others * math.ceil(len(secret) / sum(map(len, others))))[: len(secret)]


def corrected_data(
    data: TrainingData,
    places: Sequence[Occurrence],
    replacement: Replacement | Deletion,
    vocabulary: Vocabulary,
    rng: np.random.Generator,
) -> TrainingData:
    """Return the text that baselines are trained on: a replacement, drawn anew, in every secret's place.

    A replacement may be longer or shorter than the secret; what follows it then moves. Replaced characters
    stay marked as a secret's: nobody can predict a decoy, so that accuracy outside the secrets leaves them out.

    Args:
        data: The text that holds the secrets; the held-out text, which never does, is passed on.
        places: Where the secrets stand, none across another.
        replacement: The strategy; a deletion takes out the sentences.
        vocabulary: The model's.
        rng: Source of the replacements.
    """
    text, secret = data.train, data.secret
    if isinstance(replacement, Deletion):
        kept = torch.from_numpy(~sentence_mask(text, places, vocabulary)).to(text.device)
        return TrainingData(train=text[kept], secret=secret[kept], heldout=data.heldout)
    texts, masks, end = [], [], 0
    for place in sorted(places, key=lambda place: place.start):
        stop = place.start + len(place.secret)
        drawn = replacement.correct(place, 1, rng)[0].symbols[0].to(text)
        own = secret[place.start : stop]
        texts += [text[end : place.start], drawn]
        masks += [
            secret[end : place.start],
            own if len(own) == len(drawn) else torch.ones_like(drawn, dtype=torch.bool),
        ]
        end = stop
    return TrainingData(
        train=torch.cat([*texts, text[end:]]), secret=torch.cat([*masks, secret[end:]]), heldout=data.heldout
    )


def sentence_mask(text: Tensor, places: Sequence[Occurrence], vocabulary: Vocabulary) -> np.ndarray:
    """Mark the sentences around the secrets in an encoded text, shape (N,), bool."""
    mask = np.zeros(len(text), dtype=bool)
    for start, end in sentences(vocabulary.decode(text.cpu().numpy()), places):
        mask[start:end] = True
    return mask


def sentences(text: str, places: Sequence[Occurrence]) -> list[tuple[int, int]]:
    """Return the first offset and the end of the sentence around each occurrence, the white space after it included.

    A sentence ends with its paragraph, or with a full stop, question or exclamation mark before white space
    (quotation marks and brackets may close in between); within the occurrence nothing ends it. Paragraphs
    end with blank lines, or where the text has none, with lines.
    """
    breaks = [match.end() for match in _BLANK_LINE.finditer(text)] or [m.end() for m in re.finditer("\n+", text)]
    edges = np.array([0, *breaks, len(text)])
    found = []
    for place in places:
        # A template without a prefix begins with its secret: the line break that it is read after is not deleted.
        begin = place.start - len(place.canary.parsed_template.prefix)
        stop = place.start + len(place.secret) + len(place.suffix)
        first = int(edges[np.searchsorted(edges, max(begin, 0), "right") - 1])
        last = int(edges[np.searchsorted(edges, stop, "left")])
        ends = [match.end() for match in _SENTENCE_BREAK.finditer(text, first, last)]
        found.append(
            (max([first, *(end for end in ends if end <= begin)]), min([*(end for end in ends if end >= stop), last]))
        )
    return found


def _runs(starts: np.ndarray, window: int) -> list[tuple[int, int]]:
    """Return the first place and the last label of each run of windows that follow each other without a gap."""
    cuts = np.flatnonzero(np.diff(starts) != window) + 1
    return [(int(run[0]), int(run[-1]) + window) for run in np.split(starts, cuts) if len(run)]
