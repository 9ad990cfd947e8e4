"""Tests that no estimator ranks NaN: it would look like the most exposed secret of all."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from canaryaudit.errors import MeasurementError
from canaryaudit.exposure import estimators
from canaryaudit.exposure.estimators.memorization import mean_interval
from canaryaudit.exposure.estimators.worst_case import ReferenceScores, extended_p_value, joint_p_value
from canaryaudit.records import Estimate
from canaryaudit.stats import holm

REFERENCES = np.random.default_rng(0).normal(100, 10, 200)
FIT = estimators.fit_skew_normal(REFERENCES, refits=1)
ESTIMATE = Estimate(bits=5.0, low=4.0, high=6.0, trusted=True)

# Every function with arguments that it takes; each number in turn becomes NaN.
CALLS: dict[str, tuple[Callable[..., Any], list[Any]]] = {
    "sampled": (lambda *a: estimators.sampled_exposure(*a[:3], counts=a[3]), [80.0, REFERENCES, 20.0, np.ones(200)]),
    "sampled, several": (estimators.sampled_exposure, [np.array([80.0, 90.0]), REFERENCES, 20.0]),
    "rescored": (lambda bits, share: estimators.Rescored([0, 1], bits, share), [np.ones(2), np.ones(2)]),
    "importance": (
        lambda *a: estimators.importance_exposure(*a[:3], log2_weights=a[3], strata=a[4]),
        [80.0, REFERENCES, 20.0, np.zeros(200), np.arange(200) % 2.0],
    ),
    "ranks": (estimators.enumerate_ranks, [REFERENCES, 3.0]),
    "exact": (estimators.exact_exposure, [np.array([1.0, 2.0]), 20.0]),
    "bounded": (estimators.bounded_exposure, [1.0, 9.0, 20.0]),
    "fit": (lambda references: estimators.fit_skew_normal(references, refits=1), [REFERENCES]),
    "skew-normal": (lambda *a: estimators.skew_normal_exposure(*a, fit=FIT), [80.0, REFERENCES, 20.0]),
    "cdf": (estimators.log2_skew_normal_cdf, [1.0, 1.0]),
    "calibration": (estimators.calibrate, [REFERENCES / 50, 20.0]),
    "curve": (
        lambda *a: estimators.memorization_curve(*a[:3], [True] * 4, low=a[3], high=a[4]),
        [np.array([1.0, 1, 4, 4]), np.arange(4.0), np.full(4, 20.0), np.arange(4.0), np.arange(4.0)],
    ),
    "headline": (
        lambda *a: estimators.choose_headline(
            {"sampled": ESTIMATE.model_copy(update=dict(zip(("bits", "low", "high"), a, strict=True)))}
        ),
        [5.0, 4.0, 6.0],
    ),
    "worst case": (
        lambda scores, weights, own: ReferenceScores(scores, weights).judge(own),
        [np.random.default_rng(0).normal(100, 10, (3, 50)), np.zeros(3), np.full(3, 90.0)],
    ),
    "extended": (
        lambda low, weight: extended_p_value(
            ReferenceScores(REFERENCES[None], np.zeros(1)).judge(np.array([1.0])), low, weight
        ),
        [9.0, 0.0],
    ),
    "joint": (lambda p_values: joint_p_value([p_values], [20]), [np.array([0.5, 0.1])]),
    "holm": (holm, [np.array([0.5, 0.1])]),
    "mean": (mean_interval, [np.arange(4.0), np.arange(4.0), np.full(4, 20.0)]),
}
CASES = [(name, index) for name, (_, arguments) in CALLS.items() for index in range(len(arguments))]


@pytest.mark.parametrize("name", CALLS)
def test_the_calls_are_sound_without_it(name: str) -> None:
    function, arguments = CALLS[name]
    if name == "ranks":
        arguments = [arguments[0], 3]
    function(*arguments)


@pytest.mark.parametrize(("name", "index"), CASES)
@pytest.mark.parametrize("last", [False, True])
def test_not_a_number_is_refused_wherever_it_stands(name: str, index: int, last: bool) -> None:
    function, arguments = CALLS[name]
    given = list(arguments)
    if isinstance(given[index], float):
        given[index] = math.nan
    else:
        given[index] = given[index].copy()
        given[index][(-1,) * given[index].ndim if last else (0,) * given[index].ndim] = math.nan
    with pytest.raises(MeasurementError):
        function(*given)
