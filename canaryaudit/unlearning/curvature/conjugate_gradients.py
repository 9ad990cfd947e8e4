"""Conjugate gradients on arrays of either kind, torch tensors or NumPy arrays, and what every solver returns.

The updates of networks and of linear models share this solver; it imports no torch, which a linear model does without.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar

import numpy as np

from canaryaudit.errors import UnlearningError

if TYPE_CHECKING:
    from torch import Tensor

V = TypeVar("V", "Tensor", np.ndarray[Any, np.dtype[np.float64]])
"""A vector, of any shape."""

LinearMap = Callable[[V], V]
Status = Literal["converged", "stopped", "indefinite", "diverged"]

DRIFT = 1.01
"""How far the certified residual may lie above the one that the recurrence stopped at."""


@dataclass(frozen=True)
class Solution(Generic[V]):
    """An approximate solution of (A + lambda I) x = b.

    Attributes:
        x: The solution, of the right-hand side's shape.
        residual: ||(A + lambda I) x - b|| / ||b||, from a product with x itself.
        iterations: Products with A spent on the iteration itself.
        curvature_min: Smallest v'(A + lambda I)v / v'v met; negative where the matrix is indefinite.
        status: ``converged``: the residual reached the tolerance and no direction of negative curvature was met;
            ``stopped``: the limit of iterations came first; ``indefinite``: such a direction was met, and ``x``
            is what was found before it; ``diverged``: the iteration ran away, and ``x`` is zero.
        damping: lambda: what was asked for and what the solver added itself.
        products: All products with A, those for the spectrum and for the certificate included.
    """

    x: V
    residual: float
    iterations: int
    curvature_min: float
    status: Status
    damping: float = 0.0
    products: int = 0

    @property
    def converged(self) -> bool:
        """Whether the status is ``converged``."""
        return self.status == "converged"


class Solver(Protocol[V]):
    """A way to solve (A + lambda I) x = b."""

    def solve(self, product: LinearMap[V], right: V, damping: float = 0.0) -> Solution[V]:
        """Solve for one right-hand side b, of any shape.

        Args:
            product: x -> A x.
            right: b.
            damping: lambda.
        """


@dataclass(frozen=True)
class ConjugateGradients(Generic[V]):
    """Conjugate gradients, for positive definite matrices (Hestenes & Stiefel 1952).

    A direction of curvature zero or less ends the iteration and is reported.

    Attributes:
        tolerance: Relative residual to stop at.
        max_iterations: Most products to spend.
        precondition: r -> M r with M close to the inverse of A + lambda I, positive definite.
        certify: Whether to spend one more product on the residual; without it, the residual is the recurrence's. For
            a caller who checks what it makes of the solution.
    """

    tolerance: float = 0.1
    max_iterations: int = 50
    precondition: LinearMap[V] | None = None
    certify: bool = True

    def __post_init__(self) -> None:
        check_limits(self.tolerance, self.max_iterations)

    def solve(self, product: LinearMap[V], right: V, damping: float = 0.0) -> Solution[V]:
        """Solve (A + lambda I) x = b; see ``Solver``."""
        inverse = self.precondition or (lambda value: value)
        x = _zeros(right)
        size = _norm(right)
        if size == 0:
            return Solution(x, 0.0, 0, math.inf, "converged", damping)
        residual = direction = right
        reduced = 1.0
        smallest = math.inf
        iterations = 0
        while iterations < self.max_iterations and _norm(residual) > self.tolerance * size:
            conditioned = inverse(residual)
            previous, reduced = reduced, float((residual * conditioned).sum())
            direction = conditioned + (reduced / previous) * direction if iterations else conditioned
            image = product(direction) + damping * direction
            iterations += 1
            curvature = float((direction * image).sum())
            smallest = min(smallest, curvature / float((direction * direction).sum()))
            if curvature <= 0:
                break
            length = reduced / curvature
            x = x + length * direction
            residual = residual - length * image
        # The recurrence drifts; the certificate does not trust it.
        certified = _norm(product(x) + damping * x - right) / size if self.certify else _norm(residual) / size
        if smallest <= 0:
            status: Status = "indefinite"
        else:
            status = "converged" if certified <= DRIFT * self.tolerance else "stopped"
        return Solution(x, certified, iterations, smallest, status, damping, iterations + self.certify)


def check_limits(tolerance: float, max_iterations: int) -> None:
    """Refuse limits that no solver can keep.

    Raises:
        UnlearningError: The tolerance is negative, or there is no iteration.
    """
    if not tolerance >= 0:
        raise UnlearningError(f"a solver's tolerance must be 0 or more, got {tolerance}")
    if max_iterations < 1:
        raise UnlearningError(f"a solver needs at least one iteration, got {max_iterations}")


def _norm(vector: V) -> float:
    return float(np.linalg.norm(vector) if isinstance(vector, np.ndarray) else vector.norm())


def _zeros(vector: V) -> V:
    return np.zeros_like(vector) if isinstance(vector, np.ndarray) else vector.new_zeros(vector.shape)
