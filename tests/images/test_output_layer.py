"""The exact output layer against L-BFGS on the same objective, written here anew."""

import numpy as np
import pytest
from scipy import optimize

from canaryaudit.errors import Inconclusive
from canaryaudit.images import output_layer
from canaryaudit.images.output_layer import solve_output_layer

RNG = np.random.default_rng(0)
FEATURES = np.maximum(RNG.normal(size=(300, 6)), 0.0)
LABELS = (FEATURES @ RNG.normal(size=(6, 4)) + RNG.normal(size=(300, 4))).argmax(1)


def objective(flat: np.ndarray, penalty: float) -> tuple[float, np.ndarray]:
    weights = flat.reshape(4, 7)
    logits = FEATURES @ weights[:, :6].T + weights[:, 6]
    logits -= logits.max(1, keepdims=True)
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    value = -np.log(chances[np.arange(300), LABELS]).sum() + penalty / 2 * (weights**2).sum()
    rest = chances - np.eye(4)[LABELS]
    gradient = np.column_stack((rest.T @ FEATURES, rest.sum(0))) + penalty * weights
    return value, gradient.ravel()


@pytest.mark.parametrize("penalty", [0.01, 3.0])
@pytest.mark.parametrize("far", [0.0, 5.0])
def test_it_is_the_minimum_wherever_it_starts(penalty: float, far: float) -> None:
    start = far * np.random.default_rng(1).normal(size=(4, 7))
    solved = solve_output_layer(FEATURES, LABELS, start, penalty)
    best = optimize.minimize(objective, np.zeros(28), args=(penalty,), jac=True, options={"gtol": 1e-9})
    value, gradient = objective(solved.weights.ravel(), penalty)
    assert value <= best.fun + 1e-5
    assert np.linalg.norm(gradient) / 300 == pytest.approx(solved.residual, rel=1e-6)
    assert solved.residual <= output_layer.TOLERANCE
    np.testing.assert_allclose(solved.weights.ravel(), best.x, atol=0.3 if penalty < 1 else 2e-3)


def test_what_does_not_converge_is_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_layer, "MOST_STEPS", 1)
    with pytest.raises(Inconclusive, match="residual is above"):
        solve_output_layer(FEATURES, LABELS, np.zeros((4, 7)), 0.01)
