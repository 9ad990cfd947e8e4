"""A table as its owner keeps it: delimited files, Parquet, saved data sets, and matrices in .npz files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from canaryaudit.corpus.arrow_rows import dataset_table, is_saved_dataset, parquet_table, saved_dataset
from canaryaudit.corpus.cells import cell_text, check_labels, column_place
from canaryaudit.corpus.fields import listed
from canaryaudit.corpus.listing import format_of
from canaryaudit.corpus.raw_text import RawText
from canaryaudit.corpus.tables import Table, delimited_table
from canaryaudit.errors import CorpusError, one_line
from canaryaudit.table_plan import TableInsertOptions
from canaryaudit.tabular.linear.arrays import Indices, Matrix, Vector

MOST_CATEGORIES = 1000
"""Distinct texts of one column; a column with more holds names or sentences."""
LARGEST_NUMBER = 1e100
"""Of a larger one, neither squares nor differences can be added up."""
_ENDINGS = ".csv, .tsv, .parquet, .npz, or the folder of a saved data set"
_LABELS = ("y", "labels", "target")
_NAMES = ("columns", "feature_names", "names")


@dataclass(frozen=True, eq=False)
class SourceColumn:
    """A column as its owner knows it.

    Attributes:
        name: Its name.
        numbers: Shape (num_rows,), if it holds numbers.
        categories: Its distinct texts, sorted, if it holds texts.
        codes: Which of them each row has, shape (num_rows,).
    """

    name: str
    numbers: Vector | None = None
    categories: tuple[str, ...] = ()
    codes: Indices | None = None


@dataclass(frozen=True, eq=False)
class SourceTable:
    """A table that was read.

    Attributes:
        name: What messages call it.
        notes: What it was taken for, in sentences.
        columns: Its columns; empty if it is a matrix.
        matrix: The matrix, shape (num_rows, num_columns), if it is one.
        names: Of the matrix's columns.
        labels: The target's values, as text.
        ids: What identifies each row, as text; None for row numbers.
    """

    name: str
    notes: tuple[str, ...]
    columns: tuple[SourceColumn, ...]
    matrix: Matrix | None
    names: tuple[str, ...]
    labels: tuple[str, ...]
    ids: tuple[str, ...] | None


def read_source(options: TableInsertOptions) -> SourceTable:
    """Read a table.

    Args:
        options: Which, and how.

    Raises:
        CorpusError: It cannot be read, or does not hold a table with such a target; the message says what to do.
    """
    path = Path(options.corpus)
    if not path.exists():
        raise CorpusError(f"no such table: {options.corpus}; give {_ENDINGS}")
    if path.is_dir():
        if not is_saved_dataset(path):
            raise CorpusError(f"{path} is a folder without a saved data set: give {_ENDINGS}")
        return _cells(dataset_table(saved_dataset(path), path.name), options)
    if path.suffix == ".npz":
        return _matrix(path, options)
    kind = format_of(path)
    if kind == "parquet":
        return _cells(parquet_table(path, path.name), options)
    if kind in ("csv", "tsv"):
        source = RawText(path, options.encoding)
        return _cells(delimited_table(source, options.reading, tabs=kind == "tsv"), options)
    raise CorpusError(f"{options.corpus} is no table that can be read: give {_ENDINGS}")


# --- cells


def _cells(table: Table, options: TableInsertOptions) -> SourceTable:
    if options.names:
        raise CorpusError(f"--names is for a matrix in an .npz file: {table.name} has names of its own")
    places = [column_place(table, options.target, "--target")]
    places += [column_place(table, options.id, "--id")] if options.id else []
    if len(set(places)) < len(places):
        raise CorpusError(f"column {options.target!r} cannot be both the target and the row's id: choose another --id")
    left_out = {column_place(table, name, "--drop") for name in options.drop}
    used = [place for place in range(len(table.columns)) if place not in left_out and place not in places]
    names = [table.columns[place] for place in used]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise CorpusError(f"{table.name} has two columns called {twice!r}: give each its own name")
    if not used:
        raise CorpusError(f"{table.name} has no column besides the target: there is nothing to learn from")
    cells: list[list[Any]] = [[] for _ in (*places, *used)]
    for _, row in table.rows(frozenset((*places, *used))):
        for kept, place in zip(cells, (*places, *used), strict=True):
            kept.append(row[place])
    if not cells[0]:
        raise CorpusError(f"{table.name} has no rows")
    labels = tuple(cell_text(cell) for cell in cells[0])
    check_labels(labels, options.target)
    ids = tuple(cell_text(cell) for cell in cells[1]) if options.id else None
    columns = tuple(_column(name, kept, table.name) for name, kept in zip(names, cells[len(places) :], strict=True))
    return SourceTable(table.name, (f"{table.name}: {table.taken or 'a table'}",), columns, None, (), labels, ids)


def _column(name: str, cells: Sequence[Any], table: str) -> SourceColumn:
    texts = [cell_text(cell) for cell in cells]
    filled = [text for text in texts if text]
    if not filled:
        raise CorpusError(f"column {name!r} of {table} is empty: leave it out with --drop {name!r}")
    if len(set(texts)) == 1:
        raise CorpusError(
            f"column {name!r} of {table} has the same value everywhere: leave it out with --drop {name!r}"
        )
    numbers = _numbers(filled)
    if numbers is not None:
        if len(filled) < len(texts):
            first = texts.index("") + 1
            raise CorpusError(
                f"column {name!r} of {table} lacks {len(texts) - len(filled):,} numbers, the first in row {first:,}: "
                f"fill them in, or leave the column out with --drop {name!r}"
            )
        if not np.isfinite(numbers).all():
            first = int(np.flatnonzero(~np.isfinite(numbers))[0]) + 1
            raise CorpusError(
                f"column {name!r} of {table} has a number that is not finite in row {first:,}: correct it"
            )
        if np.abs(numbers).max() > LARGEST_NUMBER:
            raise CorpusError(
                f"column {name!r} of {table} has a number above {LARGEST_NUMBER:g} in row "
                f"{int(np.abs(numbers).argmax()) + 1:,}: correct it, or leave the column out with --drop {name!r}"
            )
        return SourceColumn(name, numbers=numbers)
    categories = sorted(set(texts))
    if len(categories) > MOST_CATEGORIES:
        raise CorpusError(
            f"column {name!r} of {table} has {len(categories):,} different texts, more than {MOST_CATEGORIES:,}: leave "
            f"it out with --drop {name!r}, or name the rows by it with --id {name!r}"
        )
    index = {text: place for place, text in enumerate(categories)}
    codes = np.fromiter((index[text] for text in texts), dtype=np.intp, count=len(texts))
    return SourceColumn(name, categories=tuple(categories), codes=codes)


def _numbers(texts: Sequence[str]) -> Vector | None:
    try:
        return np.array([float(text) for text in texts])
    except ValueError:
        return None


# --- matrices


def _matrix(path: Path, options: TableInsertOptions) -> SourceTable:
    if options.drop or options.id:
        raise CorpusError("--drop and --id are for tables of cells: a matrix in an .npz file has none of its own")
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (ValueError, OSError, EOFError, KeyError) as error:
        raise CorpusError(f"{path} is not a plain .npz file ({one_line(error)}): save arrays of numbers") from None
    except Exception as error:  # noqa: BLE001 - a damaged archive makes the reader raise any exception
        raise CorpusError(f"{path} is not a plain .npz file ({one_line(error)}): save it again") from None
    target = options.target
    if target not in arrays:
        raise CorpusError(
            f"--target {target}: {path.name} has no array of this name among {listed(arrays)}; save the labels as one, "
            f"such as {_LABELS[0]}"
        )
    labels = arrays.pop(target)
    named = next((arrays.pop(name) for name in _NAMES if name in arrays), None)
    matrix = _assembled(path, arrays)
    if labels.ndim != 1 or len(labels) != matrix.shape[0]:
        raise CorpusError(
            f"{path.name} has {matrix.shape[0]:,} rows and labels of shape {labels.shape}: expected one for each row"
        )
    if not matrix.shape[1]:
        raise CorpusError(f"{path.name} has a matrix without columns: there is nothing to learn from")
    values = matrix.data if sparse.issparse(matrix) else matrix
    if not np.isfinite(values).all():
        raise CorpusError(f"{path.name} has values that are missing or not finite: correct them")
    if np.abs(values).max(initial=0.0) > LARGEST_NUMBER:
        raise CorpusError(f"{path.name} has values above {LARGEST_NUMBER:g}: correct them")
    texts = tuple(cell_text(label.item()) for label in labels)
    if "" in texts:
        raise CorpusError(f"row {texts.index('') + 1:,} of {path.name} has no label: leave out rows without one")
    names = _column_names(options, matrix.shape[1], named)
    stored_as = "sparse" if sparse.issparse(matrix) else "dense"
    note = f"{path.name}: a {stored_as} matrix of {matrix.shape[0]:,} rows and {matrix.shape[1]:,} columns"
    return SourceTable(path.name, (note,), (), matrix, names, texts, None)


def _assembled(path: Path, arrays: dict[str, np.ndarray[Any, Any]]) -> Matrix:
    """Return the matrix of an .npz file: a dense array, or the parts of a sparse one."""
    try:
        if {"indices", "indptr"} <= set(arrays):
            indices, indptr = (arrays[name].astype(np.int64) for name in ("indices", "indptr"))
            values = arrays["data"].astype(np.float64) if "data" in arrays else np.ones(len(indices))
            width = int(indices.max(initial=-1)) + 1
            shape = tuple(arrays["shape"].tolist()) if "shape" in arrays else (len(indptr) - 1, width)
            kind = str(arrays["format"].item()) if "format" in arrays else "csr"
            kind = kind[2:-1] if kind.startswith("b'") else kind
            make = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix}.get(kind)
            if make is None:
                raise ValueError(f"sparse format {kind}; expected csr or csc")
            built = make((values, indices, indptr), shape=shape)
            built.check_format(full_check=True)
            rows = sparse.csr_matrix(built)
            rows.sum_duplicates()
            return rows
        dense = [array for array in arrays.values() if array.ndim == 2 and array.dtype.kind in "biuf"]
        if len(dense) != 1:
            raise ValueError(f"{len(dense)} matrices of numbers; expected one, or indices, indptr and shape")
        return np.ascontiguousarray(dense[0], dtype=np.float64)
    except (ValueError, TypeError, IndexError, AttributeError) as error:
        raise CorpusError(f"{path.name} holds no matrix that can be used ({one_line(error)}): save it again") from None


def _column_names(options: TableInsertOptions, width: int, stored: np.ndarray[Any, Any] | None) -> tuple[str, ...]:
    if options.names:
        lines = read_lines(Path(options.names), "--names")
    elif stored is not None:
        lines = [str(name) for name in stored.ravel().tolist()]
    else:
        return tuple(f"column_{number}" for number in range(1, width + 1))
    if len(lines) != width:
        raise CorpusError(f"{len(lines):,} names of columns for a matrix of {width:,} columns: expected as many")
    if len(set(lines)) != width:
        seen: set[str] = set()
        number = next(place for place, name in enumerate(lines, 1) if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise CorpusError(f"the name of column {number:,} occurs twice: give each column its own")
    return tuple(lines)


def read_lines(path: Path, flag: str) -> list[str]:
    """Return the lines of a text file that are not blank.

    Raises:
        CorpusError: It cannot be read.
    """
    if not path.is_file():
        raise CorpusError(f"{flag} {path}: no such file")
    return [line.strip() for line in RawText(path).lines() if line.strip()]
