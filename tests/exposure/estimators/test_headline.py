"""Tests of canaryaudit.exposure.estimators.headline."""

import pytest

from canaryaudit.errors import MeasurementError
from canaryaudit.exposure.estimators.headline import choose_headline
from canaryaudit.records import Estimate


def estimate(bits: float, low: float, high: float, trusted: bool = True) -> Estimate:
    return Estimate(bits=bits, low=low, high=high, trusted=trusted)


EXACT = estimate(5, 5, 5)
BOUNDS = estimate(4, 4, 6, trusted=False)


def test_the_exact_figure_wins() -> None:
    chosen = choose_headline(
        {"importance": estimate(5.1, 5.0, 5.2), "exact": EXACT, "sampled": estimate(5, 4.99, 5.01)}
    )
    assert (chosen.bits, chosen.low, chosen.high, chosen.method) == (5, 5, 5, "exact")


def test_a_trusted_figure_wins_over_a_narrower_one_that_is_not() -> None:
    narrow = estimate(9, 9, 9, trusted=False)
    assert choose_headline({"importance": narrow, "sampled": estimate(5, 4, 6)}).method == "sampled"


def test_of_trusted_figures_the_narrower_wins() -> None:
    assert choose_headline({"importance": estimate(5, 4.9, 5.1), "sampled": estimate(5, 4, 6)}).method == "importance"
    assert choose_headline({"importance": estimate(5, 3, 7), "sampled": estimate(5, 4, 6)}).method == "sampled"


def test_of_untrusted_figures_the_narrower_wins() -> None:
    found = choose_headline(
        {"importance": estimate(5, 3, 7, trusted=False), "sampled": estimate(5, 4, 6, trusted=False)}
    )
    assert found.method == "sampled"


def test_certified_bounds_cut_the_interval() -> None:
    chosen = choose_headline({"exact": BOUNDS, "importance": estimate(5, 3, 5.5)})
    assert (chosen.bits, chosen.low, chosen.high, chosen.method) == (5, 4, 5.5, "importance")


def test_an_interval_outside_the_certified_bounds_gives_way() -> None:
    chosen = choose_headline({"exact": BOUNDS, "importance": estimate(8, 7, 9)})
    assert (chosen.bits, chosen.low, chosen.high) == (6, 6, 6)


def test_certified_bounds_alone_are_reported_as_such() -> None:
    chosen = choose_headline({"exact": BOUNDS, "skew-normal": estimate(30, 0, 33)})
    assert (chosen.bits, chosen.low, chosen.high, chosen.method) == (4, 4, 6, "exact")


def test_the_skew_normal_figure_is_never_the_headline() -> None:
    with pytest.raises(MeasurementError, match="at least one"):
        choose_headline({"skew-normal": EXACT})
