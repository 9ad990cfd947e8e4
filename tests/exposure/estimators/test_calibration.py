"""Tests of canaryaudit.exposure.estimators.calibration."""

import math

import numpy as np
import pytest
from scipy.stats import kstwo

from canaryaudit.exposure.estimators import calibrate
from canaryaudit.exposure.estimators.calibration import FRESH_CONTROLS, confirm


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


# --- fresh controls


@pytest.mark.parametrize("count", [8, 32])
def test_a_sound_measurement_fails_once_in_two_thousand_times(count: int) -> None:
    """Of 20,000 sound measurements, the first test of each by the formula; the code decides on those it fails."""
    rng = np.random.default_rng(3)
    shares = np.sort(rng.random((20_000, count)), axis=1)
    steps = np.arange(count)
    distance = np.maximum((steps + 1) / count - shares, shares - steps / count).max(1)
    suspects = shares[distance > kstwo.ppf(0.985, count)]
    failed = failed_first = 0
    for own in suspects:
        bits = -np.log2(own)
        first = calibrate(bits)
        assert first is not None
        if not first.passed:
            failed_first += 1
            fresh = -np.log2(rng.random(FRESH_CONTROLS))
            failed += not confirm(first, fresh.tolist(), [64.0] * FRESH_CONTROLS, (0, 4)).passed
    assert 150 <= failed_first <= 250, "the first test alone fails one in a hundred"
    assert failed <= 20, "one in a thousand"


def test_fresh_controls_do_not_excuse_a_broken_measurement() -> None:
    rng = np.random.default_rng(4)
    broken = {
        "ranked too high": lambda count: np.minimum(rng.exponential(3.0, count), 19.9),
        "all average": lambda count: rng.normal(1.44, 0.2, count).clip(0.01),
        "known": lambda count: np.full(count, 15.0),
        "never likely": lambda count: rng.exponential(0.6, count),
    }
    for name, draw in broken.items():
        first = [result for result in (calibrate(draw(32)) for _ in range(60)) if result and not result.passed]
        assert len(first) >= 30, name
        passed = [confirm(own, draw(FRESH_CONTROLS).tolist(), [64.0] * FRESH_CONTROLS, (0, 4)) for own in first]
        assert np.mean([own.passed for own in passed]) <= 0.1, name


def test_what_decided_is_recorded() -> None:
    first = calibrate(uniform_ranks(64, 0) + 2)
    assert first is not None
    result = confirm(first, uniform_ranks(96, 1).tolist(), [math.log2(10**6)] * 96, (7, 4))
    assert result.passed
    assert result.ks_pvalue == first.ks_pvalue
    assert result.confirmation is not None
    assert (result.confirmation.controls, result.confirmation.seed) == (96, (7, 4))
    assert result.confirmation.ks_pvalue >= 0.05
    assert result.note == "the first test failed by chance: 96 fresh controls are as they must be"
