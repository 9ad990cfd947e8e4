"""Files of corrected labels, for tables and for images: an id and a label in each line."""

import csv
from collections.abc import Container, Sequence
from pathlib import Path

from canaryaudit.corpus.raw_text import RawText
from canaryaudit.errors import CorpusError, UnlearningError, one_line
from canaryaudit.formatting import counted


def read_corrections(path: Path, classes: Sequence[str], ids: Container[str]) -> list[tuple[str, str]]:
    """Return the ids and labels of a file of corrections, which may have a header: neither an id nor a label.

    Raises:
        CorpusError: It cannot be read.
        UnlearningError: A line has not an id and a known label.
    """
    if not path.is_file():
        raise CorpusError(f"--relabel {path}: no such file")
    try:
        lines = [[cell.strip() for cell in row] for row in csv.reader(RawText(path).lines(), strict=True) if row]
    except csv.Error as error:
        raise CorpusError(f"--relabel {path}: {one_line(error)}: expected an id and a label in each row") from None
    if lines and len(lines[0]) == 2 and lines[0][1] not in classes and lines[0][0] not in ids:
        lines = lines[1:]  # a header
    if not lines:
        raise UnlearningError(f"--relabel {path}: expected an id and a label in each row, got none")
    shown = " or ".join(classes) if len(classes) <= 3 else f"one of {', '.join(classes[:3])}, …"
    found = []
    for number, line in enumerate(lines, 1):
        if len(line) != 2:
            raise UnlearningError(f"{path}: entry {number:,} has {len(line)} cells: expected an id and a label")
        if line[1] not in classes:
            raise UnlearningError(f"{path}: entry {number:,} has an unknown label: expected {shown}")
        found.append((line[0], line[1]))
    return found


def heldout_words(path: Path, heldout: int, total: int) -> str:
    """Say how many rows of a file no model was trained on."""
    verb = "is" if heldout == 1 else "are"
    return f"{path}: {counted(heldout, 'row')} of {total:,} {verb} held out: no model was trained on them."


def nothing_to_relabel(path: Path, all_heldout: bool) -> UnlearningError:
    """Return the error of a file of corrections that changes nothing."""
    if all_heldout:
        return UnlearningError(f"--relabel {path}: every row in it is held out: no model was trained on them")
    return UnlearningError(f"--relabel {path}: every training row in it has its label already")
