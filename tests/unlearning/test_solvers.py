"""Conjugate gradients against dense linear algebra."""

import numpy as np
import pytest
import torch
from torch import Tensor

from canaryaudit.unlearning.solvers import conjugate_gradients


def symmetric(eigenvalues: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return a symmetric matrix with these eigenvalues and random eigenvectors."""
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(eigenvalues), len(eigenvalues))))[0]
    return turn @ np.diag(eigenvalues) @ turn.T


def right_side(size: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(9).normal(size=size))


@pytest.mark.parametrize("condition", [1.0, 1e2, 1e4, 1e6])
@pytest.mark.parametrize("preconditioned", [False, True])
def test_the_solution_is_that_of_dense_linear_algebra(condition: float, preconditioned: bool) -> None:
    matrix = symmetric(np.geomspace(1 / condition, 1, 30))
    dense, right = torch.from_numpy(matrix), right_side(30)
    # A preconditioner that is off by a fifth in every direction, and commutes with nothing.
    rough = torch.from_numpy(np.linalg.inv(matrix * 1.1 + 0.1 * np.diag(np.diag(matrix))))
    solved = conjugate_gradients(
        dense.matmul,
        right,
        tolerance=1e-10,
        max_iterations=400,
        precondition=rough.matmul if preconditioned else None,
    )
    expected = np.linalg.solve(matrix, right.numpy())
    assert solved.converged
    assert np.linalg.norm(solved.x.numpy() - expected) <= 2e-10 * condition * np.linalg.norm(expected)


def test_a_preconditioner_saves_products() -> None:
    matrix = np.diag(np.geomspace(1e-4, 1, 30)) + symmetric(np.full(30, 1e-5))
    dense, right = torch.from_numpy(matrix), right_side(30)
    plain = conjugate_gradients(dense.matmul, right, tolerance=1e-8, max_iterations=300)
    scaled = conjugate_gradients(
        dense.matmul, right, tolerance=1e-8, max_iterations=300, precondition=lambda r: r / dense.diagonal()
    )
    assert plain.converged
    assert scaled.converged
    assert scaled.iterations < plain.iterations / 3


def test_a_matrix_is_as_good_a_right_side_as_a_vector() -> None:
    matrix = torch.from_numpy(symmetric(np.linspace(1, 5, 12)))
    right = right_side(12).reshape(4, 3)
    solved = conjugate_gradients(lambda v: (matrix @ v.reshape(-1)).reshape(4, 3), right, tolerance=1e-12)
    assert solved.x.shape == (4, 3)
    np.testing.assert_allclose(
        solved.x.reshape(-1).numpy(), np.linalg.solve(matrix.numpy(), right.reshape(-1).numpy()), rtol=1e-9
    )


def test_every_product_counted_was_spent() -> None:
    matrix, calls = torch.from_numpy(symmetric(np.linspace(1, 50, 20))), []

    def product(direction: Tensor) -> Tensor:
        calls.append(1)
        return matrix @ direction

    solved = conjugate_gradients(product, right_side(20), tolerance=1e-6)
    assert solved.iterations + 1 == len(calls)


@pytest.mark.parametrize("max_iterations", [1, 3, 7, 60])
def test_the_certificate_is_the_true_residual(max_iterations: int) -> None:
    matrix, right = symmetric(np.geomspace(1e-3, 1, 25)), right_side(25)
    solved = conjugate_gradients(torch.from_numpy(matrix).matmul, right, tolerance=1e-3, max_iterations=max_iterations)
    true = np.linalg.norm(matrix @ solved.x.numpy() - right.numpy()) / np.linalg.norm(right.numpy())
    assert solved.residual == pytest.approx(true, rel=1e-9)


def test_the_certificate_does_not_believe_a_recurrence_that_drifted() -> None:
    """A product that is not linear: the recurrence thinks that it converged, the product with x knows better."""
    calls = []

    def product(direction: Tensor) -> Tensor:
        calls.append(1)
        return direction * (1 + 0.2 * len(calls))

    solved = conjugate_gradients(product, right_side(5), tolerance=0.01)
    assert solved.residual > 0.1
    assert not solved.converged


@pytest.mark.parametrize("max_iterations", range(1, 12))
def test_a_solution_is_converged_exactly_if_its_residual_reached_the_tolerance(max_iterations: int) -> None:
    """Also just above: a residual of 1.5 times the tolerance is none that reached it."""
    matrix, right = torch.from_numpy(symmetric(np.linspace(1, 30, 40))), right_side(40)
    residual = conjugate_gradients(matrix.matmul, right, tolerance=0.0, max_iterations=max_iterations).residual
    for tolerance, reached in ((residual / 1.5, False), (residual * 1.001, True)):
        solved = conjugate_gradients(matrix.matmul, right, tolerance=tolerance, max_iterations=max_iterations)
        assert solved.converged is reached
        assert solved.iterations == max_iterations


def test_an_indefinite_matrix_is_detected() -> None:
    matrix = symmetric(np.r_[-0.5, np.linspace(1, 2, 9)])
    solved = conjugate_gradients(torch.from_numpy(matrix).matmul, right_side(10), tolerance=1e-8)
    assert solved.curvature_min < 0
    assert not solved.converged
    assert solved.curvature_min >= -0.5 - 1e-12  # a Rayleigh quotient lies between the eigenvalues


def test_a_negative_definite_matrix_gives_no_step() -> None:
    solved = conjugate_gradients(lambda v: -v, right_side(4))
    assert solved.curvature_min == pytest.approx(-1)
    assert not solved.converged
    assert (solved.x == 0).all()


def test_the_smallest_curvature_is_a_rayleigh_quotient() -> None:
    eigenvalues = np.geomspace(1e-2, 1, 8)
    solved = conjugate_gradients(
        torch.from_numpy(symmetric(eigenvalues)).matmul, right_side(8), tolerance=1e-12, max_iterations=30
    )
    assert eigenvalues[0] - 1e-12 <= solved.curvature_min <= eigenvalues[-1]


def test_nothing_to_solve_is_solved_by_nothing() -> None:
    def never(direction: Tensor) -> Tensor:
        raise AssertionError("no product is needed")

    solved = conjugate_gradients(never, torch.zeros(3, 2))
    assert (solved.x == 0).all()
    assert (solved.residual, solved.iterations, solved.converged) == (0.0, 0, True)


def test_numbers_that_are_none_are_not_taken_for_a_solution() -> None:
    solved = conjugate_gradients(lambda v: v * float("nan"), right_side(3))
    assert not solved.converged
