"""The stored curvature: an approximate inverse of the Hessian, made once and used by every later request.

Removing columns J needs no new factorization. With P the inverse of the whole Hessian, that of the Hessian without the
rows and columns J is, on the columns kept (Schur complement),

    v -> P v - P[:, J] P[J, J]^-1 (P v)[J].

Deleted rows and corrected values change the Hessian itself; the stored inverse is then a preconditioner, and what is
returned never depends on how good it is: every result is checked by its full gradient.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, blas, cho_solve, cholesky, lapack, solve_triangular

from canaryaudit.tabular.linear.arrays import Indices, Mask, Vector
from canaryaudit.tabular.linear.objective import Point

LARGEST_DENSE = 12_000
"""Columns beyond which no dense inverse is stored: 576 MB in single precision."""
_PRODUCTS_WORTH = 8
"""How many entries a product with the inverse may read for each entry of the data. A gradient reads each of those
twice; beyond that the conjugate gradients do better with more, cheaper iterations."""
_REUSED = 8
"""How many multiplications of a product of two matrices take the time of one of a product with a vector."""
_SINGLE_PRECISION = 1e5
"""Condition number up to which the inverse is stored in single precision: half the memory, a third of the time."""


class StoredCurvature(Protocol):
    """An approximation of the inverse Hessian."""

    @property
    def kind(self) -> str:
        """What is stored, in words."""

    def restricted(self, kept: Mask) -> Callable[[Vector], Vector]:
        """Return v -> P_K v on the columns kept, 0 in all others."""


@dataclass(frozen=True, eq=False)
class DenseInverse:
    """The inverse itself, symmetric, shape (num_columns, num_columns), in Fortran's order."""

    matrix: NDArray[np.float32] | NDArray[np.float64]
    kind: str = "dense inverse"

    def restricted(self, kept: Mask) -> Callable[[Vector], Vector]:
        """Return the product with the Schur complement."""
        removed = np.flatnonzero(~kept)
        if not len(removed):
            return self.product
        return _Complement(self, np.flatnonzero(kept), removed)

    def product(self, vector: Vector) -> Vector:
        """Return the inverse times a vector."""
        multiply = blas.ssymv if self.matrix.dtype == np.float32 else blas.dsymv
        # Scaled, so single precision neither overflows nor underflows.
        size = float(np.abs(vector).max(initial=0.0)) or 1.0
        image: Vector = multiply(1.0, self.matrix, vector / size, lower=1).astype(np.float64) * size
        return image


class _Complement:
    """v -> P_K v, factor by factor at first, and written out once it was asked for often enough to pay.

    Args:
        inverse: P.
        kept: The columns that stay.
        removed: The others.
    """

    def __init__(self, inverse: DenseInverse, kept: Indices, removed: Indices) -> None:
        self.inverse, self.kept, self.removed = inverse, kept, removed
        self.beside = np.asarray(inverse.matrix[:, removed])  # (num_columns, num_removed)
        # In double precision: the inverse of this block decides whether the complement is positive definite.
        block = self.beside[removed].astype(np.float64)
        self.factor = cholesky(block, lower=True, check_finite=False)
        self.written: DenseInverse | None = None
        columns, gone, stay = len(inverse.matrix), len(removed), len(kept)
        saved = columns**2 + 2 * gone * columns + gone**2 - stay**2
        # Products of matrices reuse what they read, products with a vector do not.
        self.waiting = 1 + gone * stay * (gone + stay) / (_REUSED * saved)

    def __call__(self, vector: Vector) -> Vector:
        """Return P_K v, 0 in removed columns."""
        self.waiting -= 1
        if self.waiting < 0:
            inside = np.zeros_like(vector)
            inside[self.kept] = self._written().product(vector[self.kept])
            return inside
        whole = self.inverse.product(vector)
        back = cho_solve((self.factor, True), whole[self.removed], check_finite=False)
        found: Vector = whole - self.beside @ back.astype(self.beside.dtype)
        found[self.removed] = 0.0
        return found

    def _written(self) -> DenseInverse:
        if self.written is None:
            beside = self.beside[self.kept].astype(np.float64)  # (num_kept, num_removed)
            half = solve_triangular(self.factor, beside.T, lower=True, check_finite=False)
            block = self.inverse.matrix[np.ix_(self.kept, self.kept)].astype(np.float64) - half.T @ half
            single = self.inverse.matrix.dtype == np.float32
            self.written = DenseInverse(np.asfortranarray(block, dtype=np.float32) if single else block)
        return self.written


@dataclass(frozen=True, eq=False)
class DiagonalInverse:
    """One over the Hessian's diagonal, shape (num_columns,): for many columns and few entries."""

    diagonal: Vector
    kind: str = "diagonal"

    def restricted(self, kept: Mask) -> Callable[[Vector], Vector]:
        """Return the product with the diagonal."""
        diagonal = np.where(kept, self.diagonal, 0.0)
        return lambda vector: diagonal * vector


def store_curvature(point: Point) -> StoredCurvature:
    """Store the curvature at the minimizer, in the form that pays.

    A product with a dense inverse reads every entry of it. Where that is many times the data, a gradient is cheaper
    than the product, and the diagonal serves better.
    """
    rows, columns = point.objective.rows, len(point.objective.kept)
    entries = rows.num_entries * columns // rows.num_columns  # a gradient reads them for every class
    if columns <= LARGEST_DENSE and columns**2 <= max(_PRODUCTS_WORTH * entries, 10_000):
        try:
            return invert(point.hessian())
        except LinAlgError:  # An unpenalized intercept beside a column that equals it, say.
            pass
    return DiagonalInverse(1.0 / np.maximum(point.hessian_diagonal(), np.finfo(np.float64).tiny))


def invert(hessian: NDArray[np.float64]) -> DenseInverse:
    """Return the inverse of a positive definite matrix.

    Raises:
        LinAlgError: It is not positive definite.
    """
    norm = float(np.abs(hessian).sum(axis=0).max(initial=0.0))
    factor, failed = lapack.dpotrf(hessian, lower=1, overwrite_a=0)
    if failed:
        raise LinAlgError("the Hessian is not positive definite")
    reciprocal, _ = lapack.dpocon(factor, norm, uplo="L")
    inverse, _ = lapack.dpotri(factor, lower=1, overwrite_c=1)
    lower = np.tril(inverse)
    matrix = np.asfortranarray(lower + np.tril(inverse, -1).T)
    single = reciprocal > 1 / _SINGLE_PRECISION
    return DenseInverse(np.asfortranarray(matrix, dtype=np.float32) if single else matrix)
