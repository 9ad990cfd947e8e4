"""A table as a run keeps it: one matrix in the source's units, one-hot columns, classes, ids, and what is held out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from canaryaudit.corpus.cells import Arrays, arrays_sha256, check_ids, held_out, id_arrays, ids_of, sorted_classes
from canaryaudit.errors import CorpusError
from canaryaudit.records.tables import MOST_CLASSES, ColumnGroup, TableRecord
from canaryaudit.table_plan import TableInsertOptions
from canaryaudit.tabular.columns import Columns
from canaryaudit.tabular.linear.arrays import Indices, Mask, Matrix, Vector
from canaryaudit.tabular.reading import SourceTable, read_lines

_SPARSE = 0.25
"""Share of values that are not zero below which a matrix is kept sparse."""
FEWEST_ROWS = 10


@dataclass(frozen=True, eq=False)
class TableRows:
    """The rows of a table, in the source's units.

    Attributes:
        matrix: All rows, held out ones included, shape (num_rows, num_columns).
        codes: The number of each row's class, shape (num_rows,).
        heldout: Which rows are held out, shape (num_rows,).
        ids: What identifies each row, as text; None for row numbers, from 1.
    """

    matrix: Matrix
    codes: Indices
    heldout: Mask
    ids: tuple[str, ...] | None

    def arrays(self) -> Arrays:
        """Return the arrays that a file holds."""
        parts: Arrays = {"codes": self.codes.astype(np.uint8), "heldout": self.heldout.astype(np.uint8)}
        if sparse.issparse(self.matrix):
            parts |= {name: getattr(self.matrix, name) for name in ("data", "indices", "indptr")}
            parts["shape"] = np.array(self.matrix.shape, dtype=np.int64)
        else:
            parts["dense"] = self.matrix
        return parts | id_arrays(self.ids)

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray[Any, Any]], columns: int, classes: int) -> "TableRows":
        """Return the rows of a file.

        Args:
            arrays: What it holds.
            columns: How many columns its record names.
            classes: How many classes it names.

        Raises:
            CorpusError: They do not fit each other.
        """
        try:
            if "dense" in arrays:
                matrix: Matrix = arrays["dense"].astype(np.float64)
            else:
                shape = tuple(arrays["shape"].tolist())
                parts = (arrays["data"].astype(np.float64), arrays["indices"], arrays["indptr"])
                matrix = sparse.csr_matrix(parts, shape=shape)
                matrix.check_format(full_check=True)
            ids = ids_of(arrays)
            codes, heldout = arrays["codes"].astype(np.intp), arrays["heldout"].astype(bool)
            counts = {matrix.shape[0], len(codes), len(heldout), *([len(ids)] if ids is not None else [])}
            is_known = ((codes >= 0) & (codes < classes)).all()
            if len(counts) != 1 or matrix.ndim != 2 or matrix.shape[1] != columns or not is_known:
                raise ValueError("shapes")
        except (KeyError, ValueError, TypeError, IndexError, UnicodeDecodeError) as error:
            raise CorpusError(
                f"the run's rows do not fit its columns ({type(error).__name__}): verify the run"
            ) from None
        return cls(matrix, codes, heldout, ids)

    @property
    def training(self) -> Indices:
        """Which rows are trained on, in order."""
        return np.flatnonzero(~self.heldout)

    def sha256(self) -> str:
        """Return the SHA-256 of everything."""
        return arrays_sha256(self.arrays())


def encode(source: SourceTable, options: TableInsertOptions) -> tuple[TableRecord, TableRows]:
    """Encode a table: texts as one-hot columns, labels as classes, and a part held out.

    Args:
        source: As it was read.
        options: What to hold out, how to scale, and which columns are sensitive.

    Raises:
        CorpusError: The labels are no classes, ids occur twice, or there are too few rows.
    """
    classes, numeric = _classes(source.labels, options.target)
    if len(source.labels) < FEWEST_ROWS:
        raise CorpusError(f"{source.name} has {len(source.labels)} rows: expected at least {FEWEST_ROWS}")
    if source.ids is not None:
        check_ids(source.ids, options.id or "")
    number = {label: place for place, label in enumerate(classes)}
    codes = np.array([number[label] for label in source.labels], dtype=np.intp)
    heldout = held_out(len(codes), options.holdout, options.seed)
    left = np.bincount(codes[~heldout], minlength=len(classes))
    if (left > 0).sum() < 2:
        raise CorpusError(
            "all training rows have the same label: hold out fewer rows with --holdout, or give more rows"
        )
    if not left.all():
        raise CorpusError(
            f"no training row has the label {classes[int(left.argmin())]!r}: hold out fewer rows with --holdout, or "
            "give more rows of it"
        )
    matrix, groups = _matrix(source)
    rows = TableRows(matrix, codes, heldout, source.ids)
    if (options.scale or ("none" if source.matrix is not None else "range")) == "range":
        groups = scaled(groups, matrix[rows.training])
    record = TableRecord(
        target=options.target,
        classes=classes,
        numeric_classes=numeric,
        groups=groups,
        matrix=source.matrix is not None,
        identified_by=options.id or "",
        sensitive=(),
        canaries=(),
    )
    if options.columns:
        found = find_columns(record, options.columns, "--columns")
        record = record.model_copy(update={"sensitive": found})
    return record, rows


def known_columns(record: TableRecord) -> Columns:
    """Return the columns with the one-hot groups that the encoding made; those of a matrix are found in its values."""
    columns, place = Columns(record.columns), 0
    if not record.matrix:
        for group in record.groups:
            members = list(range(place, place + len(group.columns)))
            columns.set_group(members)
            place += len(members)
    return columns


def find_columns(record: TableRecord, wanted: Sequence[str], flag: str) -> tuple[str, ...]:
    """Return the encoded columns that are meant.

    Args:
        record: What there is.
        wanted: Names, patterns, several of them separated by commas, or files with one per line.
        flag: What messages call it.

    Raises:
        UnlearningError: No column is called so.
        CorpusError: A file cannot be read.
    """
    columns, names = known_columns(record), record.columns
    by_source = {group.name: group.columns for group in record.groups}
    asked: list[str] = []
    for text in wanted:
        if text in by_source or text in names:
            asked.append(text)
        elif _is_file(text):
            asked += read_lines(Path(text), flag)
        else:
            asked += [part.strip() for part in text.split(",") if part.strip()]
    found: dict[str, None] = {}
    for name in asked:
        own = by_source.get(name) or [names[place] for place in columns.find(name).tolist()]
        found.update(dict.fromkeys(own))
    if not found:
        raise CorpusError(f"{flag}: expected the name of at least one column, got none")
    return tuple(found)


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        return False


def scaling(record: TableRecord) -> tuple[Vector, Vector]:
    """Return what is subtracted from every column and what the difference is divided by, shapes (num_columns,)."""
    pairs = [(group.offset, group.width) for group in record.groups for _ in group.columns]
    offset, width = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    return offset, width


def scale_rows(matrix: Matrix, record: TableRecord) -> Matrix:
    """Return a matrix in the units that models are trained in."""
    offset, width = scaling(record)
    if sparse.issparse(matrix):
        if offset.any():  # of columns of numbers, which have few zeros
            dense = np.flatnonzero(offset)
            kept = np.where(offset == 0, 1.0 / width, 0.0)
            values = (matrix[:, dense].toarray() - offset[dense]) / width[dense]
            columns = sparse.csr_matrix((np.ones(len(dense)), (np.arange(len(dense)), dense)), (len(dense), len(width)))
            return ((matrix @ sparse.diags(kept)) + sparse.csr_matrix(values) @ columns).tocsr()
        return (matrix @ sparse.diags(1.0 / width)).tocsr()
    return (matrix - offset) / width


def scaled(groups: Sequence[ColumnGroup], training: Matrix) -> tuple[ColumnGroup, ...]:
    """Return columns of numbers with the offset and width that bring the training rows to 0 to 1."""
    found, place = [], 0
    for group in groups:
        if group.categories is None:
            column = training[:, [place]]
            values = column.toarray() if sparse.issparse(column) else column
            low, high = float(values.min()), float(values.max())
            group = group.model_copy(update={"offset": low, "width": high - low if high > low else 1.0})  # noqa: PLW2901
        found.append(group)
        place += len(group.columns)
    return tuple(found)


def _classes(labels: Sequence[str], target: str) -> tuple[tuple[str, ...], bool]:
    found, numeric = sorted_classes(labels)
    shown = ", ".join(repr(label) for label in found[:3]) + (", …" if len(found) > 3 else "")
    if len(found) < 2:
        raise CorpusError(f"{target!r} has 1 class ({shown}): expected two or more")
    if len(found) > 2 and (broken := next((label for label in found if _is_broken(label)), "")):
        raise CorpusError(f"{target!r} holds {broken}, which is no whole number: expected classes, not amounts")
    if len(found) > MOST_CLASSES:
        raise CorpusError(f"{target!r} has {len(found):,} classes ({shown}): expected at most {MOST_CLASSES}")
    return tuple(found), numeric


def _is_broken(label: str) -> bool:
    """Return whether a label is a number that is not whole."""
    try:
        return not float(label).is_integer()
    except (ValueError, OverflowError):
        return False


def _matrix(source: SourceTable) -> tuple[Matrix, tuple[ColumnGroup, ...]]:
    if source.matrix is not None:
        return smaller(source.matrix), tuple(ColumnGroup(name=name, categories=None) for name in source.names)
    total = len(source.labels)
    parts, groups = [], []
    for column in source.columns:
        if column.codes is None:
            parts.append(sparse.csr_matrix(np.asarray(column.numbers)[:, None]))
        else:
            shape = (total, len(column.categories))
            parts.append(sparse.csr_matrix((np.ones(total), column.codes, np.arange(total + 1)), shape=shape))
        categories = None if column.codes is None else column.categories
        groups.append(ColumnGroup(name=column.name, categories=categories))
    names = [name for group in groups for name in group.columns]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise CorpusError(f"two encoded columns are called {twice!r}: rename one of the source's columns")
    return smaller(sparse.hstack(parts, format="csr")), tuple(groups)


def smaller(matrix: Matrix) -> Matrix:
    """Return a matrix dense or sparse, whichever is smaller."""
    filled = matrix.nnz if sparse.issparse(matrix) else np.count_nonzero(matrix)
    few = filled < _SPARSE * matrix.shape[0] * matrix.shape[1]
    if few:
        rows = sparse.csr_matrix(matrix)
        rows.eliminate_zeros()
        return rows
    return matrix.toarray() if sparse.issparse(matrix) else matrix
