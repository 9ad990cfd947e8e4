import pytest

from canaryaudit.report.verdicts import EXPOSED_BITS, NEVER_SEEN_BITS, Verdict, judge_canary, judge_together

JUST = 1e-9


def judge(low, high=None, space_bits=33.2, greedy=False, trusted=True, calibrated=True, drop_bits=None):
    high = low if high is None else high
    return judge_canary(
        low, high, space_bits, greedy=greedy, trusted=trusted, calibrated=calibrated, drop_bits=drop_bits
    )[0]


def test_the_chance_border_is_the_95_percent_quantile_of_the_exponential_law():
    assert pytest.approx(0.05) == 2**-NEVER_SEEN_BITS
    assert pytest.approx(4.32, abs=0.005) == NEVER_SEEN_BITS


def test_a_canary_at_the_chance_border_is_indistinguishable_and_just_above_it_is_not():
    assert judge(NEVER_SEEN_BITS) is Verdict.INDISTINGUISHABLE
    assert judge(NEVER_SEEN_BITS + JUST) is Verdict.TRACES


def test_a_canary_at_the_exposed_border_is_exposed_and_just_below_it_is_not():
    assert judge(EXPOSED_BITS) is Verdict.EXPOSED
    assert judge(EXPOSED_BITS - JUST) is Verdict.TRACES


def test_between_the_borders_a_drop_of_one_bit_makes_the_difference_between_weakened_and_traces():
    assert judge(7, drop_bits=1.0) is Verdict.WEAKENED
    assert judge(7, drop_bits=1.0 - JUST) is Verdict.TRACES


def test_a_greedy_completion_is_exposed_whatever_the_figure_says():
    assert judge(0.0, greedy=True) is Verdict.EXPOSED
    assert judge(0.0, greedy=True, trusted=False, calibrated=False) is Verdict.EXPOSED


def test_the_lower_end_must_reach_the_exposed_border_and_the_upper_end_must_stay_below_chance():
    assert judge(9.0, 14.0) is Verdict.TRACES
    assert judge(3.0, 5.0) is Verdict.TRACES
    assert judge(1.0, 3.0) is Verdict.INDISTINGUISHABLE


def test_an_interval_that_allows_everything_gives_no_verdict():
    assert judge(0.0, 33.2) is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("flaw", [{"trusted": False}, {"calibrated": False}])
def test_no_good_verdict_rests_on_an_untrusted_estimate_or_on_failed_controls(flaw):
    assert judge(1.0, **flaw) is Verdict.INCONCLUSIVE


def test_a_missing_figure_gives_no_verdict():
    assert judge_canary(None, None, 33.2, greedy=False, trusted=True, calibrated=True, drop_bits=None)[0] is (
        Verdict.INCONCLUSIVE
    )


def test_in_a_small_space_the_likeliest_member_is_exposed_and_in_a_tiny_one_nothing_is_said():
    assert judge(6.64, space_bits=6.64) is Verdict.EXPOSED
    assert judge(2.0, space_bits=2.0, greedy=True) is Verdict.INCONCLUSIVE


def test_as_many_canaries_may_lie_above_the_chance_border_as_chance_puts_there():
    good, trace = Verdict.INDISTINGUISHABLE, Verdict.TRACES
    assert judge_together([good] * 19 + [trace], [1.0] * 19 + [6.0]) is good
    assert judge_together([good] * 10 + [trace] * 10, [1.0] * 10 + [6.0] * 10) is trace


def test_together_the_largest_exposure_must_be_one_that_chance_explains():
    good, trace = Verdict.INDISTINGUISHABLE, Verdict.TRACES
    assert judge_together([good] * 3 + [trace], [1.0] * 3 + [6.4]) is trace  # log2(20 * 4) = 6.3


def test_one_exposed_canary_exposes_the_whole_and_one_without_verdict_leaves_it_open():
    good = Verdict.INDISTINGUISHABLE
    assert judge_together([good] * 99 + [Verdict.EXPOSED], [1.0] * 100) is Verdict.EXPOSED
    assert judge_together([good] * 99 + [Verdict.INCONCLUSIVE], [1.0] * 100) is Verdict.INCONCLUSIVE
    assert judge_together([], []) is Verdict.INCONCLUSIVE
