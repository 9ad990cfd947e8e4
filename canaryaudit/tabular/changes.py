"""What a request asks for, resolved to columns, rows, values and labels, and carried out on the data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy import sparse

from canaryaudit.errors import UnlearningError
from canaryaudit.tabular.columns import Columns
from canaryaudit.tabular.linear.arrays import Indices, Matrix, Rows, Vector
from canaryaudit.tabular.linear.objective import Objective


@dataclass(frozen=True, eq=False)
class Replacement:
    """New values of some columns in some rows.

    Examples:
        >>> Replacement(columns=["age", "income"], rows=[3, 4], values=[[40, 1.5], [41, 1.0]]).columns
        ['age', 'income']

    Attributes:
        columns: Names, numbers or patterns.
        rows: Numbers of rows, or a mask; all rows if None.
        values: One value, one for each column, or shape (num_rows, num_columns).
    """

    columns: Any
    values: Any
    rows: Any = None


@dataclass(frozen=True, eq=False)
class Request:
    """Everything that one update is to do at once: values first, then labels, rows and columns.

    Examples:
        >>> request = Request(columns=["name_*"], rows=[17], labels={3: "yes"})
        >>> request.labels[3], len(request.replacements)
        ('yes', 0)

    Attributes:
        columns: Columns to remove: names, numbers or patterns.
        replacements: Values to replace.
        rows: Rows to delete: numbers or a mask.
        labels: New labels by row.
    """

    columns: Any = ()
    replacements: Sequence[Replacement] = ()
    rows: Any = ()
    labels: Mapping[int, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Change:
    """What a request did, in numbers.

    Examples:
        >>> nothing = np.empty(0, dtype=int)
        >>> Change(columns=np.array([3]), values=0, labels=2, rows=nothing, along=()).words
        '1 column removed, 2 labels changed'

    Attributes:
        columns: Columns removed, one-hot groups included.
        values: Values replaced.
        labels: Labels changed.
        rows: Rows deleted.
        along: Names of columns removed because their one-hot group was asked for in part.
    """

    columns: Indices
    values: int
    labels: int
    rows: Indices
    along: tuple[str, ...]

    @property
    def words(self) -> str:
        """The change in words: ``3 columns removed, 10 rows deleted``."""
        parts = (
            (len(self.columns), "column", "removed"),
            (self.values, "value", "replaced"),
            (self.labels, "label", "changed"),
            (len(self.rows), "row", "deleted"),
        )
        words = [f"{count:,} {noun}{'' if count == 1 else 's'} {verb}" for count, noun, verb in parts if count]
        return ", ".join(words) or "nothing changed"


@dataclass(frozen=True, eq=False)
class Labels:
    """The classes, and what their rows weigh.

    Attributes:
        classes: Shape (num_classes,); of two, the negative one, then the positive one.
        weights: Weight of a row of each class; shape (num_classes,).
    """

    classes: np.ndarray[Any, Any]
    weights: Vector

    def signs(self, labels: Any) -> Vector:
        """Return +1 for the second of two classes and -1 for the first; of more, each class's number from 0.

        Raises:
            UnlearningError: A label is none of them.
        """
        given = np.asarray(labels)
        codes = np.full(given.shape, -1.0)
        for number, own in enumerate(self.classes):
            codes[np.asarray(given == own, dtype=bool)] = number
        if (codes < 0).any():
            names = [str(own) for own in self.classes[:5]]
            known = f"{', '.join(names[:-1])} or {names[-1]}" if len(self.classes) <= 5 else f"{', '.join(names)}, …"
            raise UnlearningError(
                f"unknown label {np.ravel(given)[np.flatnonzero(np.ravel(codes < 0))[0]]}: expected {known}"
            )
        return 2.0 * codes - 1.0 if len(self.classes) == 2 else codes

    def weights_of(self, signs: Vector) -> Vector:
        """Return the weight of every row's class."""
        numbers = signs > 0 if len(self.classes) == 2 else signs
        weights: Vector = self.weights[numbers.astype(np.intp)]
        return weights

    def missing(self, signs: Vector) -> np.ndarray[Any, Any]:
        """Return the classes that no row has."""
        numbers = (signs > 0).astype(np.intp) if len(self.classes) == 2 else signs.astype(np.intp)
        counts = np.bincount(numbers, minlength=len(self.classes))
        absent: np.ndarray[Any, Any] = self.classes[counts == 0]
        return absent


def along_words(names: Sequence[str]) -> str:
    """Return a warning about columns that were removed because their one-hot group was asked for in part."""
    return f"removed along with their one-hot group: {', '.join(names[:5])}"


def carry_out(
    request: Request, objective: Objective, names: Columns, labels: Labels, row_weights: Vector
) -> tuple[Objective, Change]:
    """Return the objective on the data after a request, and what was changed.

    Args:
        request: What to do.
        objective: On the data before it.
        names: The columns that the user knows; the intercept is none of them.
        labels: The classes.
        row_weights: Weight of every row apart from its class's, as prepared.

    Raises:
        UnlearningError: It names unknown or removed columns, unknown or deleted rows, values of the wrong shape, or
            leaves no column, or one class only.
    """
    rows, values = objective.rows, 0
    for replacement in request.replacements:
        rows, count = _replace(replacement, rows, names, objective)
        values += count
    relabeled = _rows(list(request.labels), rows) if request.labels else np.empty(0, dtype=np.intp)
    if len(relabeled):
        given = list(request.labels.values())
        same = all(type(own) is type(given[0]) for own in given)  # or numbers would become texts
        signs = labels.signs(np.array(given, dtype=None if same else object))
        rows = rows.relabeled(relabeled, signs, labels.weights_of(signs) * row_weights[relabeled])
    deleted = _rows(request.rows, rows)
    if len(deleted):
        rows = rows.deleted(deleted)
    asked = _asked_columns(request.columns, names, objective)
    removed = names.with_groups(asked, objective.rows.base) if len(asked) else asked
    removed = removed[objective.kept[removed]]
    if len(gone := labels.missing(rows.present_signs)):
        if len(labels.classes) - len(gone) < 2:
            raise UnlearningError("after the request all rows have the same label: nothing is left to tell apart")
        raise UnlearningError(
            f"after the request no row has the label {gone[0]!s}: a retrained model would not know it; prepare the "
            "model anew without these rows"
        )
    changed = replace(objective, rows=rows)
    if len(removed):
        mask = np.zeros(len(objective.kept), dtype=bool)
        mask[removed] = True
        changed = changed.without_columns(mask)
        if not changed.kept[: len(names)].any():
            raise UnlearningError("the request removes every column: keep at least one")
    more = sorted(set(removed.tolist()) - set(asked.tolist())) if len(removed) > len(asked) else ()
    along = tuple(names.names[index] for index in more)
    change = Change(removed, values, len(relabeled), deleted, along)
    if change.words == "nothing changed":
        raise UnlearningError("the request changes nothing: name columns, rows, values or labels")
    return changed, change


def _asked_columns(wanted: Any, names: Columns, objective: Objective) -> Indices:
    if not isinstance(wanted, str) and np.ndim(wanted) and not len(wanted):
        return np.empty(0, dtype=np.intp)
    found = names.find(wanted)
    left = found[objective.kept[found]]
    if not len(left):
        raise UnlearningError(f"column {names.names[found[0]]} was removed before")
    return left


def _rows(wanted: Any, rows: Rows) -> Indices:
    """Return the numbers of rows, each once, that are all still there."""
    given = np.asarray(wanted)
    total = len(rows.positions)
    if given.dtype == bool:
        if given.shape != (total,):
            raise UnlearningError(f"a mask of rows needs shape ({total},), got {given.shape}")
        given = np.flatnonzero(given)
    elif given.size == 0:
        return np.empty(0, dtype=np.intp)
    elif given.dtype.kind not in "iu":
        raise UnlearningError(
            f"rows are numbers from 0 to {total - 1:,} in the order of X, or a mask; got {given.dtype} values"
        )
    given = np.atleast_1d(given)
    if given.ndim != 1:
        raise UnlearningError(f"rows need one dimension, got shape {given.shape}")
    if outside := given[(given < 0) | (given >= total)].tolist():
        raise UnlearningError(f"there is no row {outside[0]}: expected 0 to {total - 1:,}, in the order of X")
    unique, counts = np.unique(given, return_counts=True)
    if len(unique) != len(given):
        raise UnlearningError(f"row {int(unique[counts > 1][0])} is given more than once")
    if gone := given[~rows.present[given]].tolist():
        raise UnlearningError(f"row {gone[0]} was deleted before")
    return given.astype(np.intp)


def _replace(replacement: Replacement, rows: Rows, names: Columns, objective: Objective) -> tuple[Rows, int]:
    columns = names.find(replacement.columns)
    if gone := columns[~objective.kept[columns]].tolist():
        raise UnlearningError(f"column {names.names[gone[0]]} was removed before")
    where = np.flatnonzero(rows.present) if replacement.rows is None else _rows(replacement.rows, rows)
    shape = (len(where), len(columns))
    try:
        given = np.asarray(replacement.values, dtype=np.float64)
        values = np.broadcast_to(given[:, None] if given.shape == shape[:1] and shape[1] == 1 else given, shape)
    except (TypeError, ValueError):
        raise UnlearningError(
            f"values need shape {shape} for {shape[0]:,} rows and {shape[1]:,} columns, or to be one number"
        ) from None
    if not np.isfinite(values).all():
        raise UnlearningError("values to replace with must be finite numbers")
    if not len(where):
        raise UnlearningError("no row to replace values in")
    return rows.replaced(where, _with_values(rows.take(where), columns, values)), values.size


def _with_values(matrix: Matrix, columns: Indices, values: Vector) -> Matrix:
    if not sparse.issparse(matrix):
        changed = matrix.copy()
        changed[:, columns] = values
        return changed
    keep = np.ones(matrix.shape[1])
    keep[columns] = 0.0
    placed = sparse.csr_matrix(
        (values.ravel(), np.tile(columns, matrix.shape[0]), np.arange(matrix.shape[0] + 1) * len(columns)),
        shape=matrix.shape,
    )
    changed = (matrix @ sparse.diags(keep) + placed).tocsr()
    changed.eliminate_zeros()
    return changed
