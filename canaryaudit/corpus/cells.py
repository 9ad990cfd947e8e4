"""Rows with an id and a label, of tables and of images: their cells as text, and which of them are held out."""

import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from canaryaudit.corpus.fields import listed
from canaryaudit.corpus.tables import Table
from canaryaudit.errors import CorpusError

Arrays = dict[str, np.ndarray[Any, Any]]


def column_place(table: Table, name: str, flag: str) -> int:
    """Return the number of a column by its name.

    Raises:
        CorpusError: There is no such column, or several.
    """
    found = [place for place, own in enumerate(table.columns) if own == name]
    if len(found) != 1:
        several = "several columns" if found else "no column"
        raise CorpusError(f"{flag} {name}: {table.name} has {several} of this name among {listed(table.columns)}")
    return found[0]


def cell_text(cell: Any) -> str:
    """Return a cell as text; empty if it is missing."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(int(cell)) if isinstance(cell, bool) else str(cell).strip()


def check_labels(labels: Sequence[str], column: str) -> None:
    """Refuse rows without a label.

    Raises:
        CorpusError: One has none.
    """
    if "" in labels:
        raise CorpusError(
            f"row {labels.index('') + 1:,} has no {column!r}: fill it in, or leave out rows without a label"
        )


def check_ids(ids: Sequence[str], column: str) -> None:
    """Refuse ids that are missing or occur twice.

    Raises:
        CorpusError: One is or does.
    """
    seen: dict[str, int] = {}
    for number, own in enumerate(ids, 1):
        if not own:
            raise CorpusError(f"row {number:,} has no {column!r}: every row needs an id of its own")
        if own in seen:  # Ids may tell who a row is about: the message names rows.
            raise CorpusError(f"rows {seen[own]:,} and {number:,} have the same {column!r}: every row needs its own")
        seen[own] = number


def sorted_classes(labels: Sequence[str]) -> tuple[list[str], bool]:
    """Return the distinct labels in order, and whether all are whole numbers."""
    found = sorted(set(labels))
    numeric = all(label.lstrip("-").isdecimal() for label in found)
    return (sorted(found, key=int) if numeric else found), numeric


def held_out(total: int, share: float, seed: int) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    """Return which rows are held out for evaluation, shape (total,)."""
    chosen = np.zeros(total, dtype=bool)
    chosen[np.random.default_rng([seed, 1]).permutation(total)[: round(share * total)]] = True
    return chosen


def id_arrays(ids: Sequence[str] | None) -> Arrays:
    """Return ids as arrays that a file can hold; none where rows are known by their numbers."""
    if ids is None:
        return {}
    coded = [own.encode("utf-8") for own in ids]
    ends = np.cumsum([len(own) for own in coded], dtype=np.int64)
    return {"id_bytes": np.frombuffer(b"".join(coded), dtype=np.uint8), "id_ends": ends}


def ids_of(arrays: Mapping[str, np.ndarray[Any, Any]]) -> tuple[str, ...] | None:
    """Return the ids that ``id_arrays`` wrote.

    Raises:
        KeyError: An array is missing.
        UnicodeDecodeError: They were changed.
    """
    if "id_ends" not in arrays:
        return None
    whole, ends = arrays["id_bytes"].tobytes(), [0, *arrays["id_ends"].tolist()]
    return tuple(whole[start:end].decode("utf-8") for start, end in itertools.pairwise(ends))


def arrays_sha256(arrays: Mapping[str, np.ndarray[Any, Any]]) -> str:
    """Return the SHA-256 of arrays with their names, types and shapes."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
