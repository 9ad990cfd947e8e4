"""X, y and the columns' names, checked: what cannot be used is refused in one line."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.utils.validation import check_array

from canaryaudit.errors import UnlearningError, one_line
from canaryaudit.tabular.linear.arrays import Matrix

_SPARSE, _FEW_COLUMNS = 0.25, 20
"""A table with more columns, of whose values fewer than this share are not zero, is kept as a sparse matrix."""


def names_of(estimator: Any, X: Any, columns: Sequence[str] | None) -> list[str]:  # noqa: N803
    """Return the columns' names: as given, a DataFrame's, the estimator's, or numbers.

    Raises:
        UnlearningError: A DataFrame's column holds no numbers, or two columns have one name.
    """
    if columns is not None:
        names = [str(name) for name in columns]
    elif hasattr(X, "columns"):
        names = [str(name) for name in X.columns]
        numbered = [name for place, name in enumerate(X.columns) if not isinstance(name, str) and name != place]
        if numbered:
            raise UnlearningError(f"column names must be text, got {numbered[0]!r}: rename the columns")
        for name, kind in zip(names, X.dtypes, strict=True):
            if getattr(kind, "kind", "O") not in "biuf":
                raise UnlearningError(
                    f"column {name} holds {kind} values: encode it as numbers first, for example by pandas.get_dummies"
                )
    elif hasattr(estimator, "feature_names_in_"):
        names = [str(name) for name in estimator.feature_names_in_]
    else:
        names = [str(index) for index in range(np.shape(X)[1] if np.ndim(X) > 1 or sparse.issparse(X) else 0)]
    if len(set(names)) != len(names):
        seen: set[str] = set()
        twice = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise UnlearningError(f"two columns are called {twice}: give each its own name")
    return names


def checked_matrix(X: Any, fewest: int = 2) -> Matrix:  # noqa: N803
    """Return a copy of X in float64, dense or CSR, whichever is smaller.

    Raises:
        UnlearningError: It has missing or infinite values, or not two dimensions.
    """
    try:
        matrix = check_array(X, accept_sparse="csr", dtype=np.float64, copy=True, ensure_min_samples=fewest)
    except (ValueError, TypeError) as error:
        raise UnlearningError(f"X cannot be used: {one_line(error)}") from None
    few = matrix.shape[1] > _FEW_COLUMNS and not sparse.issparse(matrix)
    if sparse.issparse(matrix) or (few and np.count_nonzero(matrix) < _SPARSE * matrix.size):
        rows = sparse.csr_matrix(matrix)
        rows.sum_duplicates()
        rows.eliminate_zeros()
        return rows
    return np.ascontiguousarray(matrix)


def classes_of(targets: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the classes, sorted, shape (num_classes,).

    Raises:
        UnlearningError: There is one only, or labels are missing.
    """
    if targets.dtype.kind == "f" and not np.isfinite(targets).all():
        raise UnlearningError("y has missing labels: leave those rows out")
    try:
        classes = np.unique(targets)
    except TypeError:
        raise UnlearningError("y mixes labels of several types: expected numbers only, or text only") from None
    if classes.dtype.kind == "f" and len(classes) > 2 and len(broken := classes[classes != np.round(classes)]):
        raise UnlearningError(f"y holds {broken[0]:g}, which is no whole number: expected classes, not amounts")
    if len(classes) < 2:
        raise UnlearningError(f"y has {len(classes):,} classes: expected two, or more for a LogisticRegression")
    return classes


def with_intercept(matrix: Matrix, value: float) -> Matrix:
    """Return a matrix with a last column of a value."""
    if sparse.issparse(matrix):
        column = sparse.csr_matrix(np.full((matrix.shape[0], 1), value))
        return sparse.hstack((matrix, column), format="csr")
    return np.hstack((matrix, np.full((matrix.shape[0], 1), value)))
