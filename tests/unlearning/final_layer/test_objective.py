"""The reduction to active columns and its derivatives, against automatic differentiation of the whole loss."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from canaryaudit.unlearning.final_layer import objective
from canaryaudit.unlearning.final_layer.objective import FinalLayerProblem, KroneckerInverse
from tests.unlearning.builders import random_problem

SEEDS = range(3)


def moved(origin: torch.Tensor, seed: int, size: float = 0.7) -> torch.Tensor:
    return origin + size * torch.from_numpy(np.random.default_rng(seed + 100).normal(size=tuple(origin.shape)))


@pytest.mark.parametrize("active", [(0, 2, 3), (4,), (0, 1, 2, 3, 4)])
def test_the_value_differs_from_the_whole_loss_by_a_constant(active: tuple[int, ...]) -> None:
    whole = random_problem(active=active)
    problem = whole.reduced()
    differences = [
        float(whole.loss(columns)) - problem.value(columns)
        for columns in (whole.origin, *(moved(whole.origin, seed) for seed in SEEDS))
    ]
    assert differences == pytest.approx([differences[0]] * 4, abs=1e-9)


def test_the_value_is_a_sum_of_kullback_leibler_divergences() -> None:
    """Zero where every position is predicted as wanted, positive elsewhere."""
    whole = random_problem()
    probabilities = torch.softmax(whole.features @ whole.matrix[:-1] + whole.matrix[-1], 1)
    problem = FinalLayerProblem.of(
        whole.features, probabilities, whole.weights, whole.matrix, whole.active, whole.ridge
    )
    assert problem.value(whole.origin) == pytest.approx(0, abs=1e-10)
    assert problem.value(moved(whole.origin, 0, 1e-3)) > 0


@pytest.mark.parametrize("active", [(0, 2, 3), (4,), (0, 1, 2, 3, 4)])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_gradient_is_that_of_the_whole_loss(seed: int, active: tuple[int, ...]) -> None:
    whole = random_problem(seed, active=active)
    problem = whole.reduced()
    columns = moved(whole.origin, seed)
    gradient = problem.gradient(columns, problem.probabilities(columns))
    torch.testing.assert_close(gradient, whole.gradient(columns), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("active", [(0, 2, 3), (0, 1, 2, 3, 4)])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_curvature_product_is_that_of_the_dense_hessian(seed: int, active: tuple[int, ...]) -> None:
    whole = random_problem(seed, active=active)
    problem = whole.reduced()
    columns = moved(whole.origin, seed)
    direction = moved(torch.zeros_like(columns), seed + 1)
    product = problem.curvature_product(problem.probabilities(columns), direction)
    dense = whole.hessian(columns) @ direction.reshape(-1)
    torch.testing.assert_close(product.reshape(-1), dense, rtol=1e-10, atol=1e-10)


def test_the_objective_is_convex() -> None:
    whole = random_problem()
    assert (
        torch.linalg.eigvalsh(whole.hessian(moved(whole.origin, 1))).min() >= whole.ridge * whole.weights.sum() - 1e-9
    )


def test_the_probabilities_are_those_of_the_whole_softmax() -> None:
    whole = random_problem()
    columns = moved(whole.origin, 2)
    matrix = whole.matrix.index_copy(1, whole.active, columns)
    expected = torch.softmax(whole.features @ matrix[:-1] + matrix[-1], 1)[:, whole.active]
    torch.testing.assert_close(whole.reduced().probabilities(columns), expected)


def test_nothing_is_lost_in_float32_where_all_symbols_are_active() -> None:
    """Targets that lack a rounding error to 1 must not be charged for symbols that cannot occur."""
    whole = random_problem(active=(0, 1, 2, 3, 4))
    single = replace(whole, targets=whole.targets * (1 - 1e-6)).single()
    assert torch.isneginf(single.others).all()
    columns = moved(whole.origin, 0).float()
    probabilities = single.probabilities(columns)
    assert torch.isfinite(probabilities).all()
    assert torch.isfinite(single.gradient(columns, probabilities)).all()
    assert torch.isfinite(single.curvature_product(probabilities, columns)).all()
    entropy = -(torch.special.entr(whole.targets).sum(1) * whole.weights).sum()
    assert single.value(columns) == pytest.approx(float(whole.loss(columns.double()) + entropy), rel=1e-4)


@pytest.mark.parametrize("damping", [1e-2, 3.0])
def test_the_preconditioner_is_the_dense_inverse_of_the_kronecker_product(damping: float) -> None:
    whole = random_problem()
    problem = whole.reduced()
    distribution = problem.probabilities(moved(whole.origin, 1))
    # One position at a time, from the definition.
    covariance, curvature, spread = np.zeros((4, 4)), np.zeros((3, 3)), 0.0
    for features, own, weight in zip(
        np.c_[whole.features.numpy(), np.ones(40)], distribution.numpy(), whole.weights.numpy(), strict=True
    ):
        block = np.diag(own) - np.outer(own, own)
        curvature += weight * block
        covariance += weight * np.trace(np.diag(own) - np.diag(own**2)) * np.outer(features, features)
        spread += weight * (own * (1 - own)).sum()
    dense = np.kron(covariance / spread, curvature) + damping * np.eye(12)
    value = moved(torch.zeros(4, 3, dtype=torch.float64), 3)
    np.testing.assert_allclose(
        KroneckerInverse(problem, distribution).apply(value, damping).reshape(-1).numpy(),
        np.linalg.solve(dense, value.reshape(-1).numpy()),
        rtol=1e-9,
    )


def test_the_preconditioner_inverts_the_curvature_itself_where_all_laws_agree() -> None:
    """Then the Hessian is a Kronecker product."""
    whole = random_problem(ridge=0.0)
    problem = whole.reduced()
    distribution = problem.probabilities(whole.origin)[:1].expand(40, -1)
    value = moved(torch.zeros(4, 3, dtype=torch.float64), 3)
    solved = KroneckerInverse(problem, distribution).apply(value, 0.5)
    torch.testing.assert_close(problem.curvature_product(distribution, solved) + 0.5 * solved, value)


# --- curvature in bfloat16


@pytest.mark.parametrize("seed", SEEDS)
def test_a_bfloat16_curvature_product_is_close_to_the_exact_one(seed: int) -> None:
    """Eight bits of mantissa in features, direction and slope: about 0.3 % each, in every sum."""
    whole = random_problem(seed, width=24, positions=400)
    exact, rough = whole.single(), whole.single("bf16")
    assert (rough.fast.dtype, exact.fast.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(exact.fast, torch.cat(exact.features))
    columns = moved(whole.origin, seed).float()
    distribution = exact.probabilities(columns)
    direction = moved(torch.zeros_like(whole.origin), seed + 1).float()
    expected = exact.curvature_product(distribution, direction)
    found = rough.curvature_product(distribution, direction)
    assert found.dtype == torch.float32
    error = float((found - expected).norm() / expected.norm())
    assert 0 < error < 0.02


def test_value_and_gradient_are_in_full_precision_whatever_the_curvatures() -> None:
    whole = random_problem()
    exact, rough = whole.single(), whole.single("bf16")
    columns = moved(whole.origin, 0).float()
    distribution = exact.probabilities(columns)
    assert rough.value(columns) == exact.value(columns)
    assert torch.equal(rough.gradient(columns, distribution), exact.gradient(columns, distribution))


def test_a_subsample_for_the_curvature_weighs_as_much_as_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heavy positions stand for themselves; of the light ones each taken stands for several."""
    monkeypatch.setattr(objective, "CURVATURE_ROWS", 400)
    whole = random_problem(width=6, positions=4000)
    weights = torch.ones(4000, dtype=torch.float64)
    weights[[7, 1999]] = 500.0
    problem = replace(whole, weights=weights).reduced()
    assert len(problem.rows) == pytest.approx(402, abs=2)
    assert {7, 1999} <= set(problem.rows.tolist())
    assert (problem.row_weights[torch.isin(problem.rows, torch.tensor([7, 1999]))] == 500.0).all()
    assert float(problem.row_weights.sum()) == pytest.approx(float(weights.sum()))
    distribution = problem.probabilities(problem.origin)
    direction = moved(torch.zeros_like(problem.origin), 3)
    every = replace(whole, weights=weights)
    monkeypatch.setattr(objective, "CURVATURE_ROWS", 4000)
    expected = every.reduced().curvature_product(distribution, direction)
    found = problem.curvature_product(distribution[problem.rows], direction)
    assert float((found - expected).norm() / expected.norm()) < 0.2


# --- more positions


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("cut", [1, 15, 39])
def test_a_problem_with_rows_added_is_the_problem_of_all_rows(cut: int, precision: str) -> None:
    """Value, gradient and curvature, the ridge's share in them included."""
    whole = random_problem(4, ridge=0.3)
    every = whole.single(precision)
    first = replace(
        whole, features=whole.features[:cut], targets=whole.targets[:cut], weights=whole.weights[:cut]
    ).single(precision)
    joined = first.with_rows(
        torch.cat(every.features)[cut:], every.targets[cut:], every.weights[cut:], every.others[cut:]
    )
    assert torch.equal(torch.cat(joined.features), torch.cat(every.features))
    assert torch.equal(joined.fast, every.fast)
    for name in ("targets", "weights", "origin"):
        assert torch.equal(getattr(joined, name), getattr(every, name)), name
        assert getattr(joined, name).dtype == getattr(every, name).dtype, name
    torch.testing.assert_close(joined.others, every.others)
    assert joined.ridge == pytest.approx(every.ridge, rel=1e-6)
    columns = moved(whole.origin, 1).float()
    distribution = joined.probabilities(columns)
    assert joined.value(columns) == pytest.approx(every.value(columns), rel=1e-6)
    torch.testing.assert_close(joined.gradient(columns, distribution), every.gradient(columns, distribution))
    expected = every.curvature_product(distribution, columns)  # in bfloat16 every block's product is rounded
    tolerance = float(expected.abs().max()) * (2**-7 if precision == "bf16" else 1e-5)
    torch.testing.assert_close(joined.curvature_product(distribution, columns), expected, rtol=0, atol=tolerance)


def test_a_problem_is_left_as_it_is_where_rows_are_added() -> None:
    problem = random_problem().reduced()
    rows = len(problem.weights)
    problem.with_rows(torch.cat(problem.features), problem.targets, problem.weights, problem.others)
    assert len(problem.weights) == rows == sum(map(len, problem.features))
