"""Columns by name, number or pattern; one-hot groups; what is seen in the values of how they were prepared."""

import fnmatch
import numbers
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import sparse

from canaryaudit.errors import UnlearningError
from canaryaudit.tabular.linear.arrays import Indices, Mask, Matrix, Vector, row_norms

_SEPARATORS = "=_:./|"
"""What stands between the name and the value of a one-hot column: sex_Male, sex=Male."""
_ONE_EACH = 0.95
"""Share of rows that have exactly one of a one-hot group's columns."""
_LARGEST_GROUP = 200
_EQUAL = 1e-9


class Columns:
    """The names of a matrix's columns.

    Args:
        names: One for each column; numbers, as text, if the user gave none.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._groups: dict[int, list[int]] = {}
        self._alone: Mask | None = None  # once all groups are found
        self._overlaps: dict[str, tuple[list[int], Indices]] = {}
        self._by_column: Matrix = None
        self._entries = np.empty(0, dtype=np.intp)

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def _index(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.names)}

    @cached_property
    def _families(self) -> dict[str, list[int]]:
        """Columns by each beginning that ends before a separator."""
        families: dict[str, list[int]] = {}
        for index, name in enumerate(self.names):
            for place, character in enumerate(name):
                if character in _SEPARATORS and place:
                    families.setdefault(name[: place + 1], []).append(index)
        return families

    def find(self, wanted: Any) -> Indices:
        """Return the numbers of the columns that are wanted.

        Args:
            wanted: A name, a number, a pattern such as ``name_*``, or several of them. A name that no column has but
                that one-hot columns begin with, such as ``sex`` for ``sex_Male``, stands for all of them.

        Raises:
            UnlearningError: No column is called so, or none is wanted.
        """
        single = isinstance(wanted, str | numbers.Integral)
        items: Iterable[Any] = [wanted] if single else wanted
        if not single and (given := self._numbered(items)) is not None:
            return given
        found: dict[int, None] = {}
        for item in items:
            found.update(dict.fromkeys(self._find_one(item)))
        if not found:
            raise UnlearningError("no column to unlearn: give the name of at least one")
        return np.fromiter(found, dtype=np.intp)

    def _numbered(self, items: Any) -> Indices | None:
        """Return numbers of columns, each once, if all that is wanted are numbers; many are looked up at once."""
        if isinstance(items, list | tuple) and not all(type(item) is int for item in items):
            return None
        given = np.asarray(items) if isinstance(items, list | tuple | np.ndarray) else np.empty(0)
        if given.dtype.kind not in "iu" or given.ndim != 1 or not given.size:
            return None
        if given.min() < 0 or given.max() >= len(self.names):
            return None  # looked at one by one, which names the first that is wrong
        _, first = np.unique(given, return_index=True)
        numbered: Indices = given[np.sort(first)].astype(np.intp)
        return numbered

    def _find_one(self, item: Any) -> list[int]:
        if isinstance(item, numbers.Integral) and not isinstance(item, bool | np.bool_):
            if not 0 <= int(item) < len(self.names):
                raise UnlearningError(f"there is no column {item}: expected 0 to {len(self.names) - 1:,}")
            return [int(item)]
        if isinstance(item, str):
            if item in self._index:
                return [self._index[item]]
            found = [index for index, name in enumerate(self.names) if fnmatch.fnmatchcase(name, item)]
            families = (self._families.get(item + separator, []) for separator in _SEPARATORS)
            found = found or next((family for family in families if len(family) > 1), [])
            if found:
                return found
            near = [name for name in self.names if item.lower() in name.lower()][:3]
            hint = f"similar ones are {', '.join(near)}" if near else f"the first is {self.names[0]}"
            raise UnlearningError(f"no column is called {item!r}: {hint}")
        raise UnlearningError(f"a column is a name or a number, got {type(item).__name__}")

    def with_groups(self, chosen: Indices, matrix: Matrix) -> Indices:
        """Return the columns with all others of their one-hot groups, which would give them away exactly.

        A group is a set of columns whose names begin alike, up to a separator, and of which every row has exactly one
        that is not zero; a twentieth of the rows may have none if all values that are not zero are equal.

        Args:
            chosen: Columns.
            matrix: The data as prepared.
        """
        if self._alone is not None and self._alone[chosen].all():
            return chosen
        extended = dict.fromkeys(chosen.tolist())
        for column in chosen.tolist():
            if column not in self._groups:
                group = self._group_of(column, matrix)
                self._groups.update(dict.fromkeys(group, group))
            if len(self._groups[column]) > 1:
                extended.update(dict.fromkeys(self._groups[column]))
        return np.fromiter(extended, dtype=np.intp)

    def set_group(self, members: list[int]) -> None:
        """Declare columns to be one group, such as those that one column of texts was encoded as."""
        self._groups.update(dict.fromkeys(members, members))

    def find_groups(self, matrix: Matrix) -> None:
        """Find all one-hot groups at once, so no request has to, and keep no copy of the data."""
        self.with_groups(np.arange(len(self.names)), matrix)
        self._alone = np.array([len(self._groups[column]) == 1 for column in range(len(self.names))])
        self._by_column, self._overlaps = None, {}

    def _group_of(self, column: int, matrix: Matrix) -> list[int]:
        name = self.names[column]
        for place in range(len(name) - 1, 0, -1):  # the longest common beginning first
            if name[place] in _SEPARATORS:
                group = self._group_in(column, name[: place + 1], matrix)
                if len(group) > 1:
                    return group
        return [column]

    def _group_in(self, column: int, beginning: str, matrix: Matrix) -> list[int]:
        """Return the one-hot group of a column among columns that begin alike; empty if there is none."""
        if beginning not in self._overlaps:
            self._overlaps[beginning] = self._overlaps_of(beginning, matrix)
        members, overlaps = self._overlaps[beginning]
        if column not in members:
            return []
        group = np.flatnonzero(overlaps[members.index(column)] == 0)
        group = np.sort(np.append(group, members.index(column)))
        among, rows = overlaps[np.ix_(group, group)], matrix.shape[0]
        filled = int(np.trace(among))  # the diagonal counts each column's entries
        if among.sum() != filled or filled < _ONE_EACH * rows:
            return []
        found = [members[place] for place in group.tolist()]
        # Two columns may exclude each other by chance; indicators have one value, or leave out no row.
        part = matrix[:, found]
        values = part.data if sparse.issparse(part) else part[part != 0]
        return found if filled == rows or np.ptp(values) < _EQUAL else []

    def _overlaps_of(self, beginning: str, matrix: Matrix) -> tuple[list[int], Indices]:
        """Return the columns that begin so and are not empty, and in how many rows each two of them have entries."""
        if self._by_column is None:
            self._by_column = sparse.csc_matrix(matrix) if sparse.issparse(matrix) else matrix
            self._entries = _entries(matrix, 0)
        members = [member for member in self._families.get(beginning, []) if self._entries[member]]
        nothing = np.zeros((0, 0), dtype=np.intp)
        if not 2 <= len(members) <= _LARGEST_GROUP or self._entries[members].sum() < _ONE_EACH * matrix.shape[0]:
            return [], nothing
        held = (self._by_column[:, members] != 0).astype(np.float64)
        product: Any = held.T @ held
        dense = product.toarray() if sparse.issparse(product) else product
        return members, np.rint(dense).astype(np.intp)


def scaling_of(matrix: Matrix, names: Sequence[str]) -> "Scaling":
    """Return what the values themselves show of how they were scaled."""
    norms = row_norms(matrix)
    norms = norms[norms > 0]
    unit_rows = bool(len(norms) and len(names) > 1 and np.abs(norms - 1.0).max() < _EQUAL)
    if matrix.shape[0] < 3:
        return Scaling(unit_rows, ())
    squares = matrix.multiply(matrix) if sparse.issparse(matrix) else matrix * matrix
    mean, mean_square = (np.ravel(part.mean(axis=0)) for part in (matrix, squares))
    standard = (np.abs(mean) < _EQUAL) & (np.abs(mean_square - 1.0) < _EQUAL)
    low, high = (_dense(part) for part in (matrix.min(axis=0), matrix.max(axis=0)))
    # An indicator has the range 0 to 1 too, and was not scaled: its values equal their squares.
    ranged = (np.abs(low) < _EQUAL) & (np.abs(high - 1.0) < _EQUAL) & (mean - mean_square > _EQUAL)
    ranged &= not unit_rows  # of which a row with one value alone has a 1
    return Scaling(unit_rows, tuple(names[index] for index in np.flatnonzero(standard | ranged).tolist()))


@dataclass(frozen=True)
class Scaling:
    """How the data were scaled, as far as their values show it.

    Attributes:
        unit_rows: Whether every row has length 1.
        columns: Names of columns that were standardized, or scaled to 0 to 1, over these very rows.
    """

    unit_rows: bool
    columns: tuple[str, ...]

    def warnings(self, *, columns_go: bool, rows_change: bool) -> tuple[str, ...]:
        """Return what a request leaves behind in the values of what it removes."""
        found = []
        if columns_go and self.unit_rows:
            found.append(
                "rows were scaled to length 1 with the removed columns in them, so their other values still depend on "
                "the removed ones: scale the rows without them, and pass the result to replace()"
            )
        if rows_change and self.columns:
            found.append(
                f"columns such as {', '.join(self.columns[:3])} were scaled with the rows or values that are removed, "
                "so the scaler still depends on them: fit it without them, and prepare the model anew"
            )
        return tuple(found)


def _entries(matrix: Matrix, axis: int) -> Indices:
    """Return the number of values that are not zero, of every column (axis 0) or row (axis 1)."""
    counts: Indices = matrix.getnnz(axis=axis) if sparse.issparse(matrix) else np.count_nonzero(matrix, axis=axis)
    return counts


def _dense(row: Matrix) -> Vector:
    values: Vector = np.ravel(row.toarray() if sparse.issparse(row) else row)
    return values
