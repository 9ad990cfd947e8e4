"""Conjugate gradients that report their own health."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

LinearMap = Callable[[Tensor], Tensor]

_DRIFT = 1.01
"""How far the certified residual may lie above the one that the recurrence stopped at."""


@dataclass(frozen=True)
class Solution:
    """An approximate solution of A x = b.

    Attributes:
        x: The solution, of the right-hand side's shape.
        residual: ||A x - b|| / ||b||, from a product with x itself.
        iterations: Products with A spent on the iteration; one more was spent on the residual.
        curvature_min: Smallest p'Ap / p'p over the search directions; negative where A is indefinite.
        converged: Whether the residual reached the tolerance, and no direction of negative curvature was met.
    """

    x: Tensor
    residual: float
    iterations: int
    curvature_min: float
    converged: bool


def conjugate_gradients(
    product: LinearMap,
    right: Tensor,
    *,
    tolerance: float = 0.1,
    max_iterations: int = 50,
    precondition: LinearMap | None = None,
) -> Solution:
    """Solve A x = b for a positive definite A given by its products   (Hestenes & Stiefel 1952).

    A direction of curvature zero or less ends the iteration: the solution so far is returned, not
    converged, and ``curvature_min`` tells why.

    Args:
        product: x -> A x.
        right: b.
        tolerance: Relative residual to stop at.
        max_iterations: Most products to spend.
        precondition: r -> M r with M close to the inverse of A, positive definite.
    """
    inverse = precondition or (lambda value: value)
    x = torch.zeros_like(right)
    size = float(right.norm())
    if size == 0:
        return Solution(x, 0.0, 0, float("inf"), True)
    residual = right.clone()
    conditioned = inverse(residual)
    direction = conditioned.clone()
    reduced = (residual * conditioned).sum()
    smallest = float("inf")
    iterations = 0
    while iterations < max_iterations and float(residual.norm()) > tolerance * size:
        image = product(direction)
        iterations += 1
        curvature = float((direction * image).sum())
        smallest = min(smallest, curvature / float((direction * direction).sum()))
        if curvature <= 0:
            break
        length = float(reduced) / curvature
        x = x + length * direction
        residual = residual - length * image
        conditioned = inverse(residual)
        previous, reduced = reduced, (residual * conditioned).sum()
        direction = conditioned + (reduced / previous) * direction
    # The recurrence drifts; the certificate does not trust it.
    certified = float((product(x) - right).norm()) / size
    return Solution(x, certified, iterations, smallest, smallest > 0 and certified <= _DRIFT * tolerance)
