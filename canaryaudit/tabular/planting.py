"""Canaries in tables: flipped labels and planted values, each decided by a fair coin of its own.

Of twice as many random rows as are to be planted, a coin decides for each: its label is flipped, or stays. Rows that
stay are the controls. Coins are independent, so the one-run bound holds, for the change of one label or value. After
the flipped labels were corrected, all candidates are alike, and nothing may tell the coins: an AUC of 0.5.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import sparse

from canaryaudit.errors import CorpusError
from canaryaudit.records.tables import ColumnGroup, TableCanary, TableRecord
from canaryaudit.table_plan import Planting, TableInsertOptions
from canaryaudit.tabular.encoding import TableRows, smaller
from canaryaudit.tabular.linear.arrays import Indices, Mask, Matrix, column_values
from canaryaudit.tabular.reading import LARGEST_NUMBER


def plant(record: TableRecord, rows: TableRows, options: TableInsertOptions) -> tuple[TableRecord, TableRows]:
    """Flip labels and plant values.

    Args:
        record: What the columns are.
        rows: The rows.
        options: What to plant.

    Returns:
        Both with canaries; no row is a candidate twice.

    Raises:
        CorpusError: There are too few rows, or no such column.
    """
    wanted = [options.flip_labels, *(planting.number for planting in options.plantings)]
    if not any(wanted):
        return record, rows
    rng = np.random.default_rng([options.seed, 2])
    order = rng.permutation(len(rows.training))
    if 2 * sum(wanted) > len(order):
        raise CorpusError(
            f"{sum(wanted):,} canaries need twice as many training rows, and there are {len(order):,}: plant fewer"
        )
    canaries: list[TableCanary] = []
    codes = rows.codes.copy()
    used = 0
    for number, planting in zip(wanted, (None, *options.plantings), strict=True):
        candidates = np.sort(order[used : used + 2 * number])
        used += 2 * number
        coins = rng.integers(0, 2, size=len(candidates)).astype(bool)
        if planting is None:
            others = _other_classes(rows.codes[rows.training[candidates]], len(record.classes), rng)
            canaries += _label_canaries(record, rows, candidates, coins, others)
            codes[rows.training[candidates[coins]]] = others[coins]
        else:
            record, rows, found = _plant_value(record, rows, planting, candidates, coins)
            canaries += found
    numbered = _numbered(canaries)
    return record.model_copy(update={"canaries": numbered}), replace(rows, codes=codes)


def _other_classes(codes: Indices, classes: int, rng: np.random.Generator) -> Indices:
    """Return another class for every row: the other one of two, or a random one of more."""
    steps = 1 if classes == 2 else rng.integers(1, classes, size=len(codes))
    others: Indices = (codes + steps) % classes
    return others


def _label_canaries(
    record: TableRecord, rows: TableRows, candidates: Indices, coins: Mask, others: Indices
) -> list[TableCanary]:
    own = rows.codes[rows.training[candidates]].tolist()
    return [
        TableCanary(
            id="",
            kind="label",
            row=row,
            planted=coin,
            original=record.classes[was],
            value=record.classes[other],
        )
        for row, coin, was, other in zip(candidates.tolist(), coins.tolist(), own, others.tolist(), strict=True)
    ]


def _plant_value(
    record: TableRecord, rows: TableRows, planting: Planting, candidates: Indices, coins: Mask
) -> tuple[TableRecord, TableRows, list[TableCanary]]:
    group = source_column(record, planting.column, "--plant")
    if group.categories is not None and planting.value not in group.categories:
        record, rows = _with_category(record, rows, group, planting.value)
        group = source_column(record, planting.column, "--plant")
    value = parsed_value(group, planting.value, "--plant")
    places = rows.training[candidates]
    originals = current_values(record, rows.matrix[places], group)
    canaries = [
        TableCanary(id="", kind="value", row=row, planted=bool(coin), column=group.name, original=was, value=value)
        for row, coin, was in zip(candidates.tolist(), coins.tolist(), originals, strict=True)
    ]
    matrix = with_values(record, rows.matrix, group, places[coins], value)
    return record, replace(rows, matrix=matrix), canaries


def check_canaries(record: TableRecord, rows: TableRows) -> None:
    """Refuse canaries that are none of the table's, as in a record that somebody edited.

    Raises:
        CorpusError: A canary has no row or no column there, or a value that its column cannot have.
    """
    total = len(rows.training)
    for canary in record.canaries:
        if canary.row >= total:
            raise CorpusError(f"{canary.id} is no training row of the table: verify the run")
        if canary.kind == "label":
            if canary.original == canary.value or not {canary.original, canary.value} <= {*record.classes}:
                raise CorpusError(f"{canary.id} has labels that the table does not have: verify the run")
            continue
        group = source_column(record, canary.column, canary.id)
        for value in (canary.original, canary.value):
            known = isinstance(value, float) if group.categories is None else value in group.categories
            if not known:
                raise CorpusError(f"{canary.id} has a value that its column cannot have: verify the run")


def source_column(record: TableRecord, name: str, flag: str) -> ColumnGroup:
    """Return a column of the source by its name.

    Raises:
        CorpusError: There is none.
    """
    group = next((own for own in record.groups if own.name == name), None)
    if group is None:
        near = ", ".join(own.name for own in record.groups[:5])
        raise CorpusError(f"{flag}: no column is called {name!r}; the first are {near}")
    return group


def parsed_value(group: ColumnGroup, text: str, flag: str) -> float | str:
    """Return a value of a column: a number, or a category that it has.

    Raises:
        CorpusError: It is neither.
    """
    if group.categories is not None:
        if text not in group.categories:
            known = ", ".join(map(repr, group.categories[:5])) + (", …" if len(group.categories) > 5 else "")
            raise CorpusError(f"{flag} {group.name}: {text!r} is not one of its values; expected one of {known}")
        return text
    try:
        number = float(text)
    except ValueError:
        number = np.nan
    if not np.isfinite(number):
        raise CorpusError(f"{flag} {group.name}: expected a number, got {text!r}")
    if abs(number) > LARGEST_NUMBER:
        raise CorpusError(f"{flag} {group.name}: expected a number up to {LARGEST_NUMBER:g}, got {text!r}")
    return number


def first_column(record: TableRecord, group: ColumnGroup) -> int:
    """Return the number of a source column's first encoded column."""
    return record.columns.index(group.columns[0])


def current_values(record: TableRecord, matrix: Matrix, group: ColumnGroup) -> list[float | str]:
    """Return the values that rows have in a source column; a row without any category has an empty text."""
    start = first_column(record, group)
    if group.categories is None:
        numbers: list[float | str] = column_values(matrix, start).tolist()
        return numbers
    part = matrix[:, start : start + len(group.categories)]
    dense = part.toarray() if sparse.issparse(part) else part
    names = np.array([*group.categories, ""], dtype=object)
    codes = np.where(dense.any(axis=1), dense.argmax(axis=1), len(group.categories))
    texts: list[float | str] = names[codes].tolist()
    return texts


def with_values(record: TableRecord, matrix: Matrix, group: ColumnGroup, places: Indices, value: float | str) -> Matrix:
    """Return a matrix with one value of a source column in some rows."""
    start, width = first_column(record, group), len(group.columns)
    new = [float(value)] if group.categories is None else [float(own == value) for own in group.categories]
    if not sparse.issparse(matrix):
        changed = matrix.copy()
        changed[places, start : start + width] = new
        return changed
    block = matrix[:, start : start + width].toarray()
    block[places] = new
    parts = (matrix[:, :start], sparse.csr_matrix(block), matrix[:, start + width :])
    return sparse.hstack(parts, format="csr")


def _with_category(
    record: TableRecord, rows: TableRows, group: ColumnGroup, category: str
) -> tuple[TableRecord, TableRows]:
    """Add a category that no row has yet, as the last one."""
    place = first_column(record, group) + len(group.columns)
    added = group.model_copy(update={"categories": (*(group.categories or ()), category)})
    groups = tuple(added if own is group else own for own in record.groups)
    empty = sparse.csr_matrix((rows.matrix.shape[0], 1))
    parts = (sparse.csr_matrix(rows.matrix[:, :place]), empty, sparse.csr_matrix(rows.matrix[:, place:]))
    matrix = smaller(sparse.hstack(parts, format="csr"))
    return record.model_copy(update={"groups": groups}), replace(rows, matrix=matrix)


def _numbered(canaries: Sequence[TableCanary]) -> tuple[TableCanary, ...]:
    counts, found = {True: 0, False: 0}, []
    digits = max(2, len(str(len(canaries))))
    for canary in canaries:
        counts[canary.planted] += 1
        word = "canary" if canary.planted else "control"
        found.append(canary.model_copy(update={"id": f"{word}-{counts[canary.planted]:0{digits}}"}))
    return tuple(found)
