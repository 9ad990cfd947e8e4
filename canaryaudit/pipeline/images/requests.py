"""Which labels a command corrects, resolved to training rows."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from canaryaudit.errors import UnlearningError
from canaryaudit.formatting import counted
from canaryaudit.image_plan import ImageUnlearnOptions
from canaryaudit.pipeline.corrections import heldout_words, nothing_to_relabel, read_corrections
from canaryaudit.pipeline.images.session import ImageSession
from canaryaudit.records.images import CorrectionRecord


def resolve_corrections(
    session: ImageSession, options: ImageUnlearnOptions, earlier: Sequence[CorrectionRecord]
) -> CorrectionRecord:
    """Return the request: the labels of a file, and flipped labels given back.

    Args:
        session: The run.
        options: What was asked for; all flipped labels if nothing was.
        earlier: The requests that led to the model to update.

    Raises:
        UnlearningError: There is nothing to correct, or rows, labels or canaries are unknown.
        CorpusError: The file cannot be read.
    """
    current = session.labels(earlier).numpy()
    fixes = _fixes(session, options.relabel, current) if options.relabel else {}
    restored = dict[str, int]()
    if options.canary or not options.relabel:
        planted = {own.id: own for own in session.record.canaries if own.planted}
        if unknown := [own for own in options.canary if own not in planted]:
            known = ", ".join([*planted][:5]) or "none"
            raise UnlearningError(f"--canary {unknown[0]}: no canary is called so; the first are {known}")
        for name in options.canary or planted:
            canary = planted[name]
            if canary.row not in fixes and session.record.classes[current[canary.row]] != canary.original:
                restored[name] = canary.row
    labels = fixes | {row: str(_original(session, row)) for row in restored.values()}
    if not labels:
        raise UnlearningError(
            "nothing to correct: every flipped label has been given back"
            if any(own.planted for own in session.record.canaries)
            else "nothing to correct: no label was flipped; give --relabel FILE, or insert with --flip-labels"
        )
    rows = sorted(labels)
    return CorrectionRecord(rows=tuple(rows), labels=tuple(labels[row] for row in rows), restored=tuple(restored))


def correction_words(request: CorrectionRecord) -> str:
    """Return what a request does, in words."""
    back = len(request.restored)
    words = f"{counted(len(request.rows), 'label')} corrected"
    return f"{words}, {back:,} of them flipped canaries" if back else words


def _original(session: ImageSession, row: int) -> str | float:
    return next(own.original for own in session.record.canaries if own.row == row)


def _fixes(session: ImageSession, path: Path, current: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> dict[int, str]:
    """Return the training rows of a file of corrections whose label changes, and their labels."""
    classes = session.record.classes
    ids = session.rows.ids or tuple(str(number) for number in range(1, len(session.rows.heldout) + 1))
    training = dict(zip(session.rows.training.tolist(), range(len(current)), strict=True))
    index = {name: training.get(place, -1) for place, name in enumerate(ids)}
    lines = read_corrections(path, classes, index)
    what = f"id in {session.record.identified_by!r}" if session.record.identified_by else "row number or file's path"
    fixes, seen, heldout = dict[int, str](), dict[str, int](), 0
    for number, (name, label) in enumerate(lines, 1):
        if name in seen:  # An id may tell who an image shows: the message names lines.
            raise UnlearningError(f"{path}: entries {seen[name]:,} and {number:,} have the same id: give each once")
        if name not in index:
            raise UnlearningError(f"{path}: entry {number:,} is none of the images: expected its {what}")
        seen[name] = number
        row = index[name]
        heldout += row < 0
        if row >= 0 and classes[current[row]] != label:
            fixes[row] = label
    if heldout:
        session.progress.warn(heldout_words(path, heldout, len(lines)))
    if not fixes:
        raise nothing_to_relabel(path, heldout == len(lines))
    return fixes
