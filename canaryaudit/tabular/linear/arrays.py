"""Rows as they are now: the matrix as given, with a small tail of rows whose values were replaced.

A request changes few rows. Copying the whole matrix would cost more than the update, so the matrix is kept as it is:
a deleted row has weight 0, and a row with new values has weight 0 where it was and stands again in the tail.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Vector = NDArray[np.float64]
Matrix = Any
"""A dense float64 array or a CSR matrix, shape (num_rows, num_columns)."""
Indices = NDArray[np.intp]
Mask = NDArray[np.bool_]

_LONGEST_TAIL = 0.5
"""Length of the tail, as a share of all rows, beyond which the matrix is written anew."""


@dataclass(frozen=True, eq=False)
class Rows:
    """The present training data.

    Attributes:
        base: The matrix, shape (num_base, num_columns).
        tail: Rows with replaced values, shape (num_tail, num_columns).
        signs: +1 or -1 for every row of base and tail.
        weights: Weight of every row of base and tail; 0 for a row that is no longer there.
        positions: For every row as the user numbers it, its place in base and tail; -1 after deletion.
    """

    base: Matrix
    tail: Matrix
    signs: Vector
    weights: Vector
    positions: Indices

    @classmethod
    def of(cls, matrix: Matrix, signs: Vector, weights: Vector) -> "Rows":
        """Return rows that nothing has changed yet."""
        return cls(matrix, matrix[:0], signs, weights, np.arange(matrix.shape[0]))

    @cached_property
    def _columns(self) -> Matrix:
        """The base transposed: of a sparse matrix a view, whose making takes as long as a small product."""
        return self.base.T

    @property
    def num_columns(self) -> int:
        """Number of columns."""
        return int(self.base.shape[1])

    @property
    def present(self) -> Mask:
        """Which rows, as the user numbers them, are still there."""
        return self.positions >= 0

    @property
    def present_signs(self) -> Vector:
        """The labels of the present rows, in the user's order."""
        return self.signs[self.positions[self.present]]

    @property
    def present_weights(self) -> Vector:
        """The weights of the present rows, in the user's order."""
        return self.weights[self.positions[self.present]]

    @property
    def num_entries(self) -> int:
        """Stored entries of the matrix."""
        return stored_entries(self.base) + stored_entries(self.tail)

    def scores(self, theta: Vector) -> Vector:
        """Return x . theta for every row of base and tail."""
        if not self.tail.shape[0]:
            scores: Vector = self.base @ theta
            return scores
        return np.concatenate((self.base @ theta, self.tail @ theta))

    def transposed(self, values: Vector) -> Vector:
        """Return the sum over rows of value times row, shape (num_columns,)."""
        total: Vector = self._columns @ values[: self.base.shape[0]]
        return total + self.tail.T @ values[self.base.shape[0] :] if self.tail.shape[0] else total

    def squares(self, values: Vector) -> Vector:
        """Return the sum over rows of value times every entry's square, shape (num_columns,)."""
        cut = self.base.shape[0]
        total = _squares(self.base, values[:cut])
        return total + _squares(self.tail, values[cut:]) if self.tail.shape[0] else total

    def gram(self, values: Vector) -> NDArray[np.float64]:
        """Return the sum over rows of value times x x', shape (num_columns, num_columns)."""
        cut = self.base.shape[0]
        total = _gram(self.base, values[:cut])
        return total + _gram(self.tail, values[cut:]) if self.tail.shape[0] else total

    def matrix(self) -> Matrix:
        """Return the present rows in the user's order."""
        return self.take(np.flatnonzero(self.present))

    def take(self, rows: Indices) -> Matrix:
        """Return some of the present rows, as the user numbers them."""
        places = self.positions[rows]
        if not self.tail.shape[0]:
            return self.base[places]
        cut = self.base.shape[0]
        order = np.argsort(np.concatenate((np.flatnonzero(places < cut), np.flatnonzero(places >= cut))))
        return _stack(self.base[places[places < cut]], self.tail[places[places >= cut] - cut])[order]

    def at(self, places: Indices) -> "Rows":
        """Return the rows at places of base and tail, in ascending order, as rows of their own."""
        cut = self.base.shape[0]
        matrix = self.base[places[places < cut]]
        if len(places) and places[-1] >= cut:
            matrix = _stack(matrix, self.tail[places[places >= cut] - cut])
        return Rows.of(matrix, self.signs[places], self.weights[places])

    def relabeled(self, rows: Indices, signs: Vector, weights: Vector) -> "Rows":
        """Return the same rows with other labels, and the weights that go with them."""
        changed_signs, changed_weights = self.signs.copy(), self.weights.copy()
        changed_signs[self.positions[rows]] = signs
        changed_weights[self.positions[rows]] = weights
        return replace(self, signs=changed_signs, weights=changed_weights)

    def deleted(self, rows: Indices) -> "Rows":
        """Return the data without some rows."""
        weights, positions = self.weights.copy(), self.positions.copy()
        weights[positions[rows]] = 0.0
        positions[rows] = -1
        return replace(self, weights=weights, positions=positions)

    def replaced(self, rows: Indices, matrix: Matrix) -> "Rows":
        """Return the data with other values in some rows.

        Args:
            rows: Which, as the user numbers them; none twice.
            matrix: Their new values, shape (len(rows), num_columns).
        """
        places = self.positions[rows]
        weights, positions = self.weights.copy(), self.positions.copy()
        positions[rows] = len(weights) + np.arange(len(rows))
        changed = replace(
            self,
            tail=_stack(self.tail, matrix),
            signs=np.concatenate((self.signs, self.signs[places])),
            weights=np.concatenate((weights, weights[places])),
            positions=positions,
        )
        changed.weights[places] = 0.0
        return changed if changed.tail.shape[0] <= _LONGEST_TAIL * len(positions) else changed._compact()

    def _compact(self) -> "Rows":
        present = self.present
        positions = np.full(len(self.positions), -1)
        positions[present] = np.arange(int(present.sum()))
        matrix = self.matrix()
        return Rows(matrix, matrix[:0], self.present_signs, self.present_weights, positions)


def stored_entries(matrix: Matrix) -> int:
    """Return how many entries of a matrix are stored: all, or those that are not zero."""
    return int(matrix.nnz if sparse.issparse(matrix) else matrix.size)


def row_norms(matrix: Matrix) -> Vector:
    """Return the Euclidean norm of every row."""
    if sparse.issparse(matrix):
        squares: Vector = np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel()
    else:
        squares = np.einsum("ij,ij->i", matrix, matrix)
    return np.sqrt(squares)


def column_values(matrix: Matrix, column: int) -> Vector:
    """Return one column, dense."""
    if sparse.issparse(matrix):
        dense: Vector = matrix[:, [column]].toarray().ravel()
        return dense
    values: Vector = matrix[:, column]
    return values


def _stack(above: Matrix, below: Matrix) -> Matrix:
    if sparse.issparse(above):
        return sparse.vstack((above, below), format="csr")
    return np.vstack((above, below))


def _squares(matrix: Matrix, values: Vector) -> Vector:
    if sparse.issparse(matrix):
        sums: Vector = matrix.multiply(matrix).T @ values
        return sums
    found: Vector = np.einsum("ij,ij,i->j", matrix, matrix, values)
    return found


def _gram(matrix: Matrix, values: Vector) -> NDArray[np.float64]:
    weighted = sparse.diags(values) @ matrix if sparse.issparse(matrix) else values[:, None] * matrix
    product: Any = matrix.T @ weighted
    dense: NDArray[np.float64] = product.toarray() if sparse.issparse(product) else product
    return dense
