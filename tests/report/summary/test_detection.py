"""The sentences on what an audit could have detected."""

import pytest

from canaryaudit.report.judgment import DetectionFigures
from canaryaudit.report.summary.detection import power_sentence
from canaryaudit.stats import detectable_bits, detectable_mean_bits


def figures(bits: float | None, mean: float | None) -> DetectionFigures:
    return DetectionFigures(
        pvalue=0.5,
        joint_test="",
        joint_pvalue=0.5,
        smallest_pvalue=0.5,
        corrected_pvalue=0.5,
        named=(),
        detected=False,
        detectable_bits=bits,
        detectable_mean_bits=mean,
    )


@pytest.mark.parametrize("canaries", [2, 3, 9, 100])
def test_a_mean_of_all_is_said_only_where_it_is_less_than_one_secret_needs_alone(canaries: int) -> None:
    bits, mean = detectable_bits(canaries), detectable_mean_bits(canaries)
    sentence = power_sentence(figures(bits, mean))
    assert f"one secret with {bits:.1f} bits" in sentence
    assert ("all secrets with a mean of" in sentence) == (mean < bits)
    assert f"all secrets with a mean of {mean:.1f} bits" in power_sentence(figures(None, mean))


def test_both_sides_of_that_occur() -> None:
    assert detectable_mean_bits(2) > detectable_bits(2)
    assert detectable_mean_bits(9) < detectable_bits(9)
