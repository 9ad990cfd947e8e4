"""The output layer, solved exactly on features that were computed once.

With the features f_i fixed, the output layer is multinomial logistic regression,

    L(W) = sum_i -log softmax(W f_i)[y_i] + lambda / 2 ||W||^2,        f_i with a 1 at its end for the bias,

which is strictly convex: one minimum, however it is reached. Newton's method reaches it; its steps are solved by
conjugate gradients on the exact Hessian, preconditioned by the inverses of its diagonal blocks, one for each class:
sum_i p_ik (1 - p_ik) f_i f_i' + lambda.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.special import log_softmax, softmax

from canaryaudit.errors import Inconclusive
from canaryaudit.unlearning.curvature.conjugate_gradients import ConjugateGradients

Array = np.ndarray[Any, np.dtype[np.float64]]
Codes = np.ndarray[Any, np.dtype[np.int64]]

TOLERANCE = 1e-5
"""Norm of the gradient for each row: what retraining by the same objective could change is below it."""
MOST_STEPS = 50
_INNER = 60
_SHORTEST = 2.0**-20
_DECREASE = 1e-4


@dataclass(frozen=True, eq=False)
class OutputLayer:
    """An output layer at the minimum of its objective.

    Attributes:
        weights: Shape (K, D + 1), the bias last.
        residual: Norm of the gradient of the summed loss, for each row.
        steps: Newton steps.
    """

    weights: Array
    residual: float
    steps: int


def solve_output_layer(
    features: Array, labels: Codes, start: Array, penalty: float, *, tolerance: float = TOLERANCE
) -> OutputLayer:
    """Minimize the objective.

    Args:
        features: Shape (N, D).
        labels: Classes from 0, shape (N,).
        start: Weights to start from, shape (K, D + 1), the bias last.
        penalty: lambda, above 0.
        tolerance: Norm of the gradient for each row to stop at.

    Raises:
        Inconclusive: The residual stays above the tolerance.
    """
    rows = np.concatenate((features, np.ones((len(features), 1))), axis=1)
    weights, total = start.astype(np.float64), len(rows)
    single = rows.astype(np.float32)  # For directions; the gradient that decides is computed in double precision.
    targets = np.zeros((total, len(weights)))
    targets[np.arange(total), labels] = 1.0
    value, gradient, chances = _evaluate(rows, targets, weights, penalty)
    for step in range(MOST_STEPS):
        residual = float(np.linalg.norm(gradient)) / total
        if residual <= tolerance:
            return OutputLayer(weights, residual, step)
        solver = ConjugateGradients[Array](
            tolerance=min(0.1, residual**0.5),
            max_iterations=_INNER,
            precondition=_class_blocks(single, chances, penalty),
            certify=False,
        )
        direction = solver.solve(_hessian_product(single, chances, penalty), -gradient).x
        slope, length = float((gradient * direction).sum()), 1.0
        while True:
            new = _evaluate(rows, targets, weights + length * direction, penalty)
            # Near the minimum the values differ by rounding only; the gradient then decides.
            if new[0] <= value + _DECREASE * length * slope or np.linalg.norm(new[1]) < np.linalg.norm(gradient) / 2:
                break
            length /= 2
            if length < _SHORTEST:
                raise Inconclusive(f"the output layer's residual stays at {residual:.1e}: use another method")
        weights = weights + length * direction
        value, gradient, chances = new
    raise Inconclusive(
        f"the output layer's residual is above {tolerance:.0e} after {MOST_STEPS} steps: use another method"
    )


def _hessian_product(rows: Any, chances: Array, penalty: float) -> Callable[[Array], Array]:
    """Return the product with the Hessian."""
    single = chances.astype(np.float32)

    def product(vector: Array) -> Array:
        moved = rows @ vector.T.astype(np.float32)
        moved = single * (moved - (single * moved).sum(axis=1, keepdims=True))
        image: Array = (moved.T @ rows).astype(np.float64) + penalty * vector
        return image

    return product


def _class_blocks(rows: Any, chances: Array, penalty: float) -> Callable[[Array], Array]:
    """Return the product with the inverse of the Hessian's diagonal blocks."""
    factors = []
    for own in chances.T:
        block = (rows * (own * (1 - own)).astype(np.float32)[:, None]).T @ rows
        block[np.diag_indices_from(block)] += penalty
        factors.append(cho_factor(block.astype(np.float64)))
    return lambda vector: np.stack([cho_solve(own, part) for own, part in zip(factors, vector, strict=True)])


def _evaluate(rows: Array, targets: Array, weights: Array, penalty: float) -> tuple[float, Array, Array]:
    """Return the objective, its gradient, and every row's probabilities."""
    logits = rows @ weights.T
    value = -float((targets * log_softmax(logits, axis=1)).sum()) + penalty / 2 * float((weights**2).sum())
    chances: Array = softmax(logits, axis=1)
    gradient: Array = (chances - targets).T @ rows + penalty * weights
    return value, gradient, chances
