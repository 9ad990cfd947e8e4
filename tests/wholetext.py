"""What the streamed insertion must come to, on whole texts in memory: the oracle that it is compared with."""

import re
from collections.abc import Container, Iterable, Sequence

import numpy as np

from canaryaudit.canaries.canary import Canary
from canaryaudit.canaries.insertion import InsertionPlan
from canaryaudit.canaries.template import Template
from canaryaudit.corpus.corpus import Corpus, ends_with_blank_line, make_corpus

_BLANK_LINES = re.compile(r"\n(?:[^\S\n]*\n)+")
_LINE_BREAKS = re.compile(r"\n(?:[^\S\n]*\n)*")


def corpus_of(name: str, documents: Iterable[str], **options: int) -> Corpus:
    """Return a corpus of whole documents."""
    return make_corpus(name, [(document,) for document in documents], **options)  # type: ignore[arg-type]


def training_text(plan: InsertionPlan) -> str:
    """Return the text to train on."""
    return "".join(plan.assembly.training_blocks())


def heldout_text(plan: InsertionPlan) -> str:
    """Return the held-out text."""
    return "".join(plan.assembly.heldout_blocks())


def cut(corpus: Corpus) -> tuple[str, ...]:
    """Return a corpus's paragraphs."""
    text, ends = corpus.text.read(), corpus.ends.tolist()
    return tuple(text[start:end] for start, end in zip([0, *ends], ends, strict=False))


def paragraphs(documents: Iterable[str]) -> tuple[str, ...]:
    """Cut documents into paragraphs, each with the blank lines that follow it, or where it has none into lines."""
    pieces: list[str] = []
    for document in documents:
        ended = document if ends_with_blank_line(document) else document.rstrip("\n") + "\n\n"
        found = _cut_after(_BLANK_LINES, ended)
        pieces += found if len(found) > 1 else _cut_after(_LINE_BREAKS, ended)
    return tuple(pieces)


def _cut_after(separator: re.Pattern[str], text: str) -> list[str]:
    pieces, start = [], 0
    for match in separator.finditer(text):
        if text[start : match.end()].strip():
            pieces.append(text[start : match.end()])
            start = match.end()
    return pieces


def hold_out(
    pieces: Sequence[str], share: float, seed: int, keep: Container[int] = ()
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split paragraphs into training and held-out ones, one after another."""
    if share == 0:
        return tuple(pieces), ()
    goal = share * sum(map(len, pieces))
    order = [int(index) for index in np.random.default_rng(seed).permutation(len(pieces)) if index not in keep]
    chosen: set[int] = set()
    held = 0
    for index in order:
        if held >= goal or len(chosen) == len(pieces) - 1:
            break
        if len(pieces[index]) <= goal:
            chosen.add(index)
            held += len(pieces[index])
    chosen = chosen or {min(order, key=lambda index: len(pieces[index]))}
    training = tuple(piece for index, piece in enumerate(pieces) if index not in chosen)
    return training, tuple(piece for index, piece in enumerate(pieces) if index in chosen)


def inserted(
    pieces: Sequence[str], canaries: Sequence[Canary], boundaries: Sequence[int]
) -> tuple[str, list[tuple[int, ...]]]:
    """Put canaries before training paragraphs; return the text and each canary's places."""
    numbers = iter(boundaries)
    here = {next(numbers): index for index, canary in enumerate(canaries) for _ in range(canary.repetitions)}
    places: list[tuple[int, ...]] = [() for _ in canaries]
    out = ""
    for number, piece in enumerate(pieces):
        if number in here:
            canary = canaries[here[number]]
            places[here[number]] += (len(out),)
            ending = "\n\n" if ends_with_blank_line(pieces[number - 1]) else "\n"
            out += Template.parse(canary.template).fill(canary.completion) + ending
        out += piece
    return out, places
