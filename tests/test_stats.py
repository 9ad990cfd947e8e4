"""Tests of canaryaudit.stats: the test of many canaries, and what it is said to detect."""

import numpy as np
import pytest

from canaryaudit.exposure.estimators.worst_case import joint_p_value
from canaryaudit.stats import LEVEL, POWER, detect, detectable_bits, detectable_mean_bits, exposure_sum_pvalue


def test_one_canary_is_tested_by_its_own_p_value_alone() -> None:
    found = detect([0.04], joint_pvalue=1e-9)
    assert (found.pvalue, found.is_detected, found.named) == (0.04, True, (True,))
    assert not detect([0.05], joint_pvalue=0.0).is_detected


def test_a_secret_within_chance_is_not_named_where_only_the_sum_is_beyond_it() -> None:
    """The case of a report that said 1 of 9 secrets can be told: its p was 0.37 after correction, the sum's 0.012."""
    found = detect([0.041, *[0.1] * 8], joint_pvalue=0.012)
    assert found.corrected[0] == pytest.approx(0.369)
    assert found.is_detected
    assert not any(found.named)


def test_a_secret_beyond_chance_is_named_where_the_sum_is_not() -> None:
    found = detect([0.001, *[0.7] * 8], joint_pvalue=0.4)
    assert found.named == (True, *[False] * 8)
    assert found.pvalue == pytest.approx(0.018)


def test_no_test_of_two_is_taken_for_the_only_one() -> None:
    assert not detect([0.5, 0.5], joint_pvalue=0.03).is_detected
    assert not detect([0.014, 0.9], joint_pvalue=0.9).is_detected
    assert detect([0.012, 0.9], joint_pvalue=0.9).is_detected


def test_a_second_figure_shares_the_level() -> None:
    found = detect([0.5, 0.6], 0.5, [None, 0.004], 0.5)
    assert found.corrected == pytest.approx((1.0, 0.012))
    assert found.named == (False, True)
    assert found.smallest == 0.004
    assert detect([0.5, 0.6], 0.5, [0.7, 0.9], 0.01).pvalue == pytest.approx(0.04)
    assert detect([0.5], 1.0, [0.02]).pvalue == pytest.approx(0.04)
    assert detect([0.5, 0.6], 0.02, [None, None]) == detect([0.5, 0.6], 0.02)


def test_with_two_figures_unseen_secrets_are_detected_in_five_percent_at_most() -> None:
    rng, canaries, detected, references = np.random.default_rng(4), 3, 0, 200
    for _ in range(400):
        both = rng.integers(1, references + 2, (2, canaries)) / (references + 1)
        joint = [exposure_sum_pvalue((-np.log2(own)).tolist()) for own in both]
        detected += detect(both[0].tolist(), joint[0], both[1].tolist(), joint[1]).is_detected
    assert 4 <= detected <= 32


@pytest.mark.parametrize("figures", [1, 2])
@pytest.mark.parametrize("canaries", [1, 9, 100])
def test_without_probes_the_named_exposure_is_the_smallest_that_is_detected(canaries: int, figures: int) -> None:
    border = detectable_bits(canaries, figures)
    others = [0.9] * (canaries - 1)
    second = [0.9] * canaries if figures == 2 else []
    assert detect([2 ** -(border + 0.001), *others], 0.9, second).is_detected
    assert not detect([2 ** -(border - 0.001), *others], 0.9, second).is_detected


@pytest.mark.parametrize("canaries", [2, 9, 60])
def test_a_mean_said_to_be_detected_is_detected_four_times_in_five(canaries: int) -> None:
    rng = np.random.default_rng(1)
    bits = rng.exponential(detectable_mean_bits(canaries), (4000, canaries))
    detected = np.mean([exposure_sum_pvalue(own.tolist()) <= LEVEL / 2 for own in bits])
    assert detected == pytest.approx(POWER, abs=0.02)


def test_the_joint_test_with_shared_references_detects_the_mean_too() -> None:
    rng = np.random.default_rng(2)
    mean, references, detected = detectable_mean_bits(9), 1023, 0
    for _ in range(60):
        shares = np.exp2(-rng.exponential(mean, 9))
        reached = (rng.random(references)[:, None] <= shares).sum(0)
        detected += joint_p_value([((1 + reached) / (1 + references)).tolist()], [references]) <= LEVEL / 2
    assert detected / 60 == pytest.approx(POWER, abs=0.15)


def test_more_canaries_need_more_exposure_of_one_and_less_of_all() -> None:
    assert detectable_bits(1) < detectable_bits(9) < detectable_bits(500)
    assert detectable_mean_bits(2) > detectable_mean_bits(9) > detectable_mean_bits(100) > 1.44
