"""Conjugate gradients, LiSSA and the dense solver against numpy's linear algebra."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from canaryaudit.errors import UnlearningError
from canaryaudit.unlearning.curvature.conjugate_gradients import ConjugateGradients, Solution
from canaryaudit.unlearning.curvature.solvers import MAX_DENSE, Dense, LiSSA, lanczos


def symmetric(eigenvalues: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return a symmetric matrix with these eigenvalues and random eigenvectors."""
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(eigenvalues), len(eigenvalues))))[0]
    return turn @ np.diag(eigenvalues) @ turn.T


def conjugate_gradients(product: Callable[[Tensor], Tensor], right: Tensor, **options: Any) -> Solution[Tensor]:
    return ConjugateGradients(**options).solve(product, right)


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


# --- damping, and all solvers alike

SOLVERS = (ConjugateGradients(tolerance=1e-9), LiSSA(tolerance=1e-9, max_iterations=5000), Dense())
every_solver = pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: type(solver).__name__)


@every_solver
@pytest.mark.parametrize("damping", [0.0, 0.3])
def test_every_solver_finds_the_damped_solution(solver: Any, damping: float) -> None:
    matrix = symmetric(np.geomspace(1e-2, 1, 20))
    solved = solver.solve(torch.from_numpy(matrix).matmul, right_side(20), damping)
    expected = np.linalg.solve(matrix + damping * np.eye(20), right_side(20).numpy())
    assert solved.status == "converged"
    assert solved.damping == damping
    np.testing.assert_allclose(solved.x.numpy(), expected, rtol=1e-6)


@every_solver
def test_every_solver_detects_an_indefinite_matrix(solver: Any) -> None:
    matrix = torch.from_numpy(symmetric(np.r_[-0.5, np.linspace(1, 2, 9)]))
    solved = solver.solve(matrix.matmul, right_side(10))
    assert solved.status == "indefinite"
    assert -0.5 - 1e-9 <= solved.curvature_min < 0


@every_solver
def test_damping_beyond_the_negative_curvature_makes_it_definite(solver: Any) -> None:
    matrix = symmetric(np.r_[-0.5, np.linspace(1, 2, 9)])
    solved = solver.solve(torch.from_numpy(matrix).matmul, right_side(10), 1.0)
    assert solved.status == "converged"
    assert solved.curvature_min >= 0.5 - 1e-6
    np.testing.assert_allclose(solved.x.numpy(), np.linalg.solve(matrix + np.eye(10), right_side(10)), rtol=1e-6)


@every_solver
def test_every_solver_certifies_the_true_residual(solver: Any) -> None:
    matrix = symmetric(np.geomspace(1e-2, 1, 12))
    solved = solver.solve(torch.from_numpy(matrix).matmul, right_side(12).reshape(3, 4).reshape(-1), 0.1)
    left = (matrix + 0.1 * np.eye(12)) @ solved.x.numpy() - right_side(12).numpy()
    assert solved.residual == pytest.approx(np.linalg.norm(left) / np.linalg.norm(right_side(12)), abs=1e-14)


@every_solver
def test_every_solver_takes_a_matrix_for_a_vector(solver: Any) -> None:
    matrix = torch.from_numpy(symmetric(np.linspace(1, 3, 12)))
    solved = solver.solve(lambda v: (matrix @ v.reshape(-1)).view_as(v), right_side(12).reshape(4, 3))
    assert solved.x.shape == (4, 3)
    assert solved.converged


@every_solver
def test_every_product_is_counted_those_for_the_spectrum_too(solver: Any) -> None:
    matrix, calls = torch.from_numpy(symmetric(np.linspace(1, 3, 12))), []

    def product(direction: Tensor) -> Tensor:
        calls.append(1)
        return matrix @ direction

    assert solver.solve(product, right_side(12)).products == len(calls)


@every_solver
def test_no_solver_moves_for_nothing(solver: Any) -> None:
    solved = solver.solve(lambda v: v, torch.zeros(5, dtype=torch.float64))
    assert (solved.x == 0).all()


# --- LiSSA


def test_lissa_and_conjugate_gradients_agree_where_both_converge() -> None:
    matrix = torch.from_numpy(symmetric(np.geomspace(1e-3, 1, 40)))
    right = right_side(40)
    series = LiSSA(tolerance=1e-6, max_iterations=100_000).solve(matrix.matmul, right, 1e-2)
    krylov = ConjugateGradients(tolerance=1e-6, max_iterations=200).solve(matrix.matmul, right, 1e-2)
    assert series.converged
    assert krylov.converged
    assert krylov.iterations < series.iterations
    torch.testing.assert_close(series.x, krylov.x, rtol=1e-3, atol=1e-4)


def test_lissa_reports_the_damping_that_its_scale_hides() -> None:
    """The literature's (1 - d) x - A x / s solves (A + d s I) x = b."""
    matrix = symmetric(np.linspace(0.1, 4, 10))
    solver = LiSSA(tolerance=1e-10, max_iterations=5000, scale=10.0, own_damping=0.05)
    solved = solver.solve(torch.from_numpy(matrix).matmul, right_side(10), 0.2)
    assert solved.damping == pytest.approx(0.2 + 0.05 * 10)
    np.testing.assert_allclose(
        solved.x.numpy(), np.linalg.solve(matrix + solved.damping * np.eye(10), right_side(10)), rtol=1e-7
    )


@pytest.mark.parametrize("terms", [1, 2, 30])
def test_lissa_adds_the_terms_of_the_neumann_series(terms: int) -> None:
    matrix, right = symmetric(np.linspace(0.1, 4, 10)), right_side(10).numpy()
    solved = LiSSA(tolerance=0.0, max_iterations=terms, scale=5.0).solve(
        torch.from_numpy(matrix).matmul, right_side(10)
    )
    series = sum(np.linalg.matrix_power(np.eye(10) - matrix / 5, k) @ right / 5 for k in range(terms))
    np.testing.assert_allclose(solved.x.numpy(), series, rtol=1e-10)
    assert solved.iterations == terms
    assert solved.status == "stopped"


def test_thirty_terms_on_an_ill_conditioned_matrix_are_no_solution_and_do_not_pass_for_one() -> None:
    matrix = torch.from_numpy(symmetric(np.geomspace(1e-5, 1, 30)))
    solved = LiSSA(tolerance=0.1, max_iterations=30).solve(matrix.matmul, right_side(30))
    assert solved.status == "stopped"
    assert solved.residual > 0.5


def test_a_scale_that_is_too_small_is_refused_as_diverged() -> None:
    matrix = torch.from_numpy(symmetric(np.linspace(1, 8, 10)))
    solved = LiSSA(scale=1.0).solve(matrix.matmul, right_side(10))
    assert solved.status == "diverged"
    assert (solved.x == 0).all()
    assert solved.iterations < 100


@pytest.mark.parametrize("options", [{"scale": 0.0}, {"scale": -1.0}, {"own_damping": 1.0}, {"own_damping": -0.1}])
def test_lissa_is_checked_when_it_is_made(options: dict[str, float]) -> None:
    with pytest.raises(UnlearningError, match="of LiSSA"):
        LiSSA(**options)


@pytest.mark.parametrize("kind", [ConjugateGradients, LiSSA])
def test_limits_are_checked_when_a_solver_is_made(kind: type) -> None:
    with pytest.raises(UnlearningError, match="at least one iteration, got 0"):
        kind(max_iterations=0)
    with pytest.raises(UnlearningError, match="tolerance must be 0 or more, got nan"):
        kind(tolerance=float("nan"))


def test_a_matrix_too_large_to_be_written_out_is_refused() -> None:
    with pytest.raises(UnlearningError, match="too large to be written out"):
        Dense().solve(lambda v: v, torch.zeros(MAX_DENSE + 1))


# --- the spectrum


@pytest.mark.parametrize("low", [-2.0, 0.01])
def test_lanczos_finds_both_ends_of_the_spectrum(low: float) -> None:
    eigenvalues = np.r_[low, np.linspace(0.5, 1, 60), 7.0]
    found = lanczos(torch.from_numpy(symmetric(eigenvalues)).matmul, right_side(62), 25)
    assert found.largest == pytest.approx(7.0, rel=1e-6)
    assert found.smallest == pytest.approx(low, abs=0.02)


def test_lanczos_stays_within_the_spectrum() -> None:
    eigenvalues = np.geomspace(1e-3, 1, 50)
    for iterations in (1, 3, 8):
        found = lanczos(torch.from_numpy(symmetric(eigenvalues)).matmul, right_side(50), iterations)
        assert eigenvalues[0] - 1e-12 <= found.smallest <= found.largest <= 1 + 1e-12


def test_lanczos_sees_past_an_invariant_subspace() -> None:
    """A right-hand side that is an eigenvector would show one eigenvalue only."""
    start = torch.zeros(10, dtype=torch.float64)
    start[0] = 1.0
    found = lanczos(torch.diag(torch.arange(1.0, 11.0, dtype=torch.float64)).matmul, start, 10)
    assert (found.smallest, found.largest) == pytest.approx((1.0, 10.0))
