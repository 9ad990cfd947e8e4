"""Tests of canaryaudit.exposure.estimators.calibration."""

import math

import numpy as np
import pytest

from canaryaudit.exposure.estimators import calibrate


def uniform_ranks(count: int, seed: int, size: int = 10**6) -> np.ndarray:
    return math.log2(size) - np.log2(np.random.default_rng(seed).integers(1, size + 1, count))


def test_uniform_ranks_pass() -> None:
    results = [calibrate(uniform_ranks(64, seed)) for seed in range(200)]
    passed = [result is not None and result.passed for result in results]
    assert np.mean(passed) >= 0.96
    means = [result.mean_bits for result in results if result is not None]
    assert np.mean(means) == pytest.approx(1 / math.log(2), abs=0.05)


def test_controls_that_look_memorized_fail() -> None:
    result = calibrate(uniform_ranks(64, 0) + 2)
    assert result is not None
    assert not result.passed
    assert "do not rely" in result.note


def test_controls_that_all_look_average_fail() -> None:
    """The mean is as it must be, the law is not."""
    result = calibrate(np.full(64, 1.44))
    assert result is not None
    assert not result.passed


def test_few_controls_say_little() -> None:
    result = calibrate(uniform_ranks(4, 1))
    assert result is not None
    assert "only 4 controls" in result.note


def test_no_controls_give_no_calibration() -> None:
    assert calibrate(np.empty(0)) is None


@pytest.mark.parametrize("size", [4, 20, 100])
def test_small_spaces_pass_as_often_as_large_ones(size: int) -> None:
    bits = np.full(64, math.log2(size))
    results = [calibrate(uniform_ranks(64, seed, size), bits) for seed in range(300)]
    assert np.mean([result is not None and result.passed for result in results]) >= 0.97
    memorized = calibrate(np.r_[uniform_ranks(40, 0, size), bits[:24]], bits)
    assert memorized is not None
    assert not memorized.passed
