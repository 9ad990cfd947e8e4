import math

import numpy as np
import pytest

from canaryaudit.canaries.canary import Canary
from canaryaudit.report import build_summary
from canaryaudit.report.verdicts import EXPOSED_BITS, NEVER_SEEN_BITS, Evidence, Verdict, judge_canary, judge_together
from canaryaudit.stats import detect, exposure_sum_lower_pvalue, exposure_sum_pvalue
from tests.report import builders as make

JUST = 1e-9


def judge(
    low,
    high=None,
    space_bits=33.2,
    greedy=False,
    trusted=True,
    calibrated=True,
    drop_bits=None,
    worst_bits=None,
    closing=None,
):
    return judged(low, high, space_bits, greedy, trusted, calibrated, drop_bits, worst_bits, closing)[0]


def judged(low, high, space_bits, greedy, trusted, calibrated, drop_bits, worst_bits, closing):
    high = low if high is None else high
    said = "in other words"
    return judge_canary(
        Evidence(low, high, space_bits, greedy, trusted, calibrated, drop_bits, worst_bits, said, closing)
    )


def test_the_chance_border_is_the_95_percent_quantile_of_the_exponential_law():
    assert pytest.approx(0.05) == 2**-NEVER_SEEN_BITS
    assert pytest.approx(4.32, abs=0.005) == NEVER_SEEN_BITS


def test_a_canary_at_the_chance_border_is_indistinguishable_and_just_above_it_is_not():
    assert judge(NEVER_SEEN_BITS) is Verdict.INDISTINGUISHABLE
    assert judge(NEVER_SEEN_BITS + JUST) is Verdict.RESIDUAL


def test_a_canary_at_the_exposed_border_is_exposed_and_just_below_it_is_not():
    assert judge(EXPOSED_BITS) is Verdict.EXPOSED
    assert judge(EXPOSED_BITS - JUST) is Verdict.RESIDUAL


def test_between_the_borders_a_drop_of_one_bit_makes_the_difference_between_weakened_and_residual():
    assert judge(7, drop_bits=1.0) is Verdict.WEAKENED
    assert judge(7, drop_bits=1.0 - JUST) is Verdict.RESIDUAL


def test_the_worst_case_decides_where_it_was_taken():
    assert judge(0.5, worst_bits=EXPOSED_BITS) is Verdict.EXPOSED
    assert judge(0.5, worst_bits=EXPOSED_BITS - JUST) is Verdict.RESIDUAL
    assert judge(0.5, worst_bits=EXPOSED_BITS - JUST, drop_bits=1.0) is Verdict.WEAKENED
    assert judge(0.5, worst_bits=NEVER_SEEN_BITS) is Verdict.INDISTINGUISHABLE
    assert judge(0.5, worst_bits=NEVER_SEEN_BITS + JUST) is Verdict.RESIDUAL


def test_a_secret_that_what_follows_confirms_is_not_indistinguishable():
    for worst_bits in (None, 1.0):
        assert judge(0.5, worst_bits=worst_bits, closing=0.05) is Verdict.INDISTINGUISHABLE
        assert judge(0.5, worst_bits=worst_bits, closing=0.05 - JUST) is Verdict.RESIDUAL
        assert judge(0.5, worst_bits=worst_bits, closing=0.001, drop_bits=1.0) is Verdict.WEAKENED
    _, reason = judged(0.5, None, 33.2, False, True, True, None, 1.0, 1 / 1001)
    assert reason == (
        "What follows it is predicted more surely than after other members of its space (p = 0.001): whoever guesses "
        "it can confirm it."
    )


def test_what_follows_does_not_weaken_another_verdict():
    assert judge(EXPOSED_BITS, closing=0.001) is Verdict.EXPOSED
    assert judge(0.5, worst_bits=7, closing=1.0) is Verdict.RESIDUAL
    assert judge(0.5, calibrated=False, closing=0.001) is Verdict.INCONCLUSIVE
    assert judge(0.5, space_bits=4, closing=0.001) is Verdict.INCONCLUSIVE


def test_what_the_prefix_gives_away_stays_exposed_whatever_the_worst_case_says():
    assert judge(EXPOSED_BITS, worst_bits=1.0) is Verdict.EXPOSED
    assert judge(0.0, greedy=True, worst_bits=1.0) is Verdict.EXPOSED


def test_a_worst_case_allows_for_the_number_of_probes_where_the_prefix_alone_does_not():
    """At 5.3 bits by the prefix one secret never seen in forty lies; the worst case says how many do in all ways."""
    assert judge(5.3) is Verdict.RESIDUAL
    assert judge(5.3, worst_bits=3.0) is Verdict.INDISTINGUISHABLE


def test_failed_controls_leave_a_worst_case_no_good_verdict():
    assert judge(1.0, worst_bits=1.0, calibrated=False) is Verdict.INCONCLUSIVE
    assert judge(1.0, worst_bits=11.0, calibrated=False) is Verdict.EXPOSED


def together(verdicts, bits, joint_pvalue=None):
    """Judge canaries of these exposures, or with a joint p-value of these worst cases."""
    joint = exposure_sum_pvalue(bits) if joint_pvalue is None else joint_pvalue
    return judge_together(verdicts, detect([2**-own for own in bits], joint))


def test_worst_cases_are_judged_together_by_the_largest_and_by_their_joint_p_value():
    good = Verdict.INDISTINGUISHABLE
    assert together([good] * 4, [1.0] * 4, joint_pvalue=0.025) is good
    assert together([good] * 4, [1.0] * 4, joint_pvalue=0.024) is Verdict.RESIDUAL
    # log2(2 * 4 / 5 %) = 7.32: the two tests share the level.
    assert together([good] * 3 + [Verdict.RESIDUAL], [1.0] * 3 + [7.3], joint_pvalue=0.05) is good
    assert together([good] * 3 + [Verdict.RESIDUAL], [1.0] * 3 + [7.4], joint_pvalue=0.05) is Verdict.RESIDUAL


def test_a_greedy_completion_is_exposed_whatever_the_figure_says():
    assert judge(0.0, greedy=True) is Verdict.EXPOSED
    assert judge(0.0, greedy=True, trusted=False, calibrated=False) is Verdict.EXPOSED


def test_the_lower_end_must_reach_the_exposed_border_and_the_upper_end_must_stay_below_chance():
    assert judge(9.0, 14.0) is Verdict.RESIDUAL
    assert judge(3.0, 5.0) is Verdict.RESIDUAL
    assert judge(1.0, 3.0) is Verdict.INDISTINGUISHABLE


def test_a_canary_is_judged_by_its_worst_case_over_all_prompts():
    assert judge(0.5, worst_bits=NEVER_SEEN_BITS) is Verdict.INDISTINGUISHABLE
    assert judge(0.5, worst_bits=NEVER_SEEN_BITS + JUST) is Verdict.RESIDUAL
    assert judge(0.5, worst_bits=EXPOSED_BITS - JUST, drop_bits=3.0) is Verdict.WEAKENED
    assert judge(0.5, worst_bits=EXPOSED_BITS) is Verdict.EXPOSED
    # The template's own prefix is one of the probes: a figure above chance there is allowed for by the number of them.
    assert judge(5.0, worst_bits=2.0) is Verdict.INDISTINGUISHABLE


def test_no_worst_case_excuses_what_the_prefix_gives_away_or_controls_that_failed():
    assert judge(EXPOSED_BITS, worst_bits=0.1) is Verdict.EXPOSED
    assert judge(0.5, worst_bits=0.1, greedy=True) is Verdict.EXPOSED
    assert judge(0.5, worst_bits=0.1, calibrated=False) is Verdict.INCONCLUSIVE
    assert judge(0.5, worst_bits=EXPOSED_BITS, calibrated=False) is Verdict.EXPOSED


def test_an_interval_that_allows_everything_gives_no_verdict():
    assert judge(0.0, 33.2) is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("flaw", [{"trusted": False}, {"calibrated": False}])
def test_no_good_verdict_rests_on_an_untrusted_estimate_or_on_failed_controls(flaw):
    assert judge(1.0, **flaw) is Verdict.INCONCLUSIVE
    assert judge(1.0, worst_bits=1.0, **flaw) is Verdict.INCONCLUSIVE


def test_a_missing_figure_gives_no_verdict():
    assert judge(None) is (Verdict.INCONCLUSIVE)


def test_in_a_small_space_the_likeliest_member_is_exposed_and_in_a_tiny_one_nothing_is_said():
    assert judge(6.64, space_bits=6.64) is Verdict.EXPOSED
    assert judge(2.0, space_bits=2.0, greedy=True) is Verdict.INCONCLUSIVE


def test_as_many_canaries_may_lie_above_the_chance_border_as_chance_puts_there():
    good, trace = Verdict.INDISTINGUISHABLE, Verdict.RESIDUAL
    assert together([good] * 19 + [trace], [1.0] * 19 + [6.0]) is good
    assert together([good] * 10 + [trace] * 10, [1.0] * 10 + [6.0] * 10) is trace


def test_together_exposures_must_not_add_up_to_more_than_chance_explains():
    """Nine canaries of 3 bits each: none stands out alone, and nine secrets never seen would average 1.44."""
    good, weakened = Verdict.INDISTINGUISHABLE, Verdict.WEAKENED
    assert together([good] * 9, [1.5] * 9) is good
    assert together([good] * 9, [3.0] * 9) is Verdict.RESIDUAL
    assert together([good] * 8 + [weakened], [3.0] * 8 + [4.5]) is weakened


def test_only_those_that_stand_out_on_their_own_decide_whether_all_are_weakened():
    good, weakened, trace = Verdict.INDISTINGUISHABLE, Verdict.WEAKENED, Verdict.RESIDUAL
    assert together([good] * 7 + [trace, weakened], [1.0] * 7 + [4.4, 9.9]) is weakened
    assert together([good] * 7 + [trace, weakened], [1.0] * 7 + [9.9, 4.4]) is trace


def test_secrets_never_seen_are_detected_once_in_twenty_times_at_most_and_hardly_ever_named():
    """Calibration: the level is one for all tests together, and naming keeps it."""
    rng = np.random.default_rng(0)
    detected = named = 0
    for _ in range(4000):
        bits = rng.exponential(1 / np.log(2), 9).tolist()
        found = detect([2**-own for own in bits], exposure_sum_pvalue(bits))
        detected += found.is_detected
        named += any(found.named)
    assert 0.03 < detected / 4000 < 0.057  # 5 % less what the two tests have in common
    assert named / 4000 < detected / 4000


def test_an_unseen_secret_is_named_beside_memorized_ones_once_in_twenty_times_at_most():
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(4000):
        bits = [20.0, 20.0, *rng.exponential(1 / np.log(2), 7).tolist()]
        wrong += any(detect([2**-own for own in bits], exposure_sum_pvalue(bits)).named[2:])
    assert 0.02 < wrong / 4000 < 0.06


def test_one_exposed_canary_exposes_the_whole_and_one_without_verdict_leaves_it_open():
    good = Verdict.INDISTINGUISHABLE
    assert together([good] * 99 + [Verdict.EXPOSED], [1.0] * 100) is Verdict.EXPOSED
    assert together([good] * 99 + [Verdict.INCONCLUSIVE], [1.0] * 100) is Verdict.INCONCLUSIVE
    assert judge_together([], None) is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("members", [100, 500, 676, 800, 900, 1000])
def test_rank_two_lies_within_one_bit_of_a_small_space_whatever_the_digits(members):
    canary = Canary(id="canary-01", template="the PIN is {digits:3}.", completion="417", repetitions=4)
    canaries = make.canary_set([canary], num_controls=0)
    found = make.canary_measurement(canary, math.log2(members), math.log2(members) - 1, greedy=False)
    before = make.measurement(canaries, {"canary-01": 5.0}).model_copy(update={"canaries": (found,)})
    summary = build_summary(make.manifest(), canaries, make.model_record(), before, [], "story")
    assert summary.canaries[0].last.verdict is Verdict.EXPOSED


@pytest.mark.parametrize("rank", [14, 17, 31, 50, 661])
def test_a_rank_on_the_border_of_chance_is_put_beside_it_by_no_rounding(rank):
    assert judge(math.log2(20 * rank) - math.log2(rank)) is Verdict.INDISTINGUISHABLE
    three = round(math.log2(120 * rank) - math.log2(rank), 6)
    good = Verdict.INDISTINGUISHABLE
    assert together([good, good, Verdict.RESIDUAL], [0.3, 0.3, three], joint_pvalue=1.0) is good


@pytest.mark.parametrize("rank", [1, 2, 500, 975, 1000])
def test_the_probability_of_so_small_an_exposure_counts_the_members_that_are_no_likelier(rank):
    found = exposure_sum_lower_pvalue([math.log2(1000 / rank)], [math.log2(1000)])
    assert found == pytest.approx((1000 - rank + 1) / 1000)


@pytest.mark.parametrize(("members", "canaries"), [(40, 1), (40, 3), (1000, 5), (10**10, 9)])
def test_secrets_never_seen_are_called_conspicuously_unlikely_once_in_a_hundred_times_at_most(members, canaries):
    rng = np.random.default_rng(0)
    space = math.log2(members)
    exposures = np.log2(members / rng.integers(1, members, (4000, canaries), endpoint=True))
    said = np.mean([exposure_sum_lower_pvalue(own.tolist(), [space] * canaries) < 0.01 for own in exposures])
    assert said < 0.015
    if members > 100:
        assert said > 0.004


def test_secrets_that_were_all_made_conspicuously_unlikely_are_said_to_be_so():
    said = "smaller than chance explains"
    gone = dict.fromkeys(make.GONE, 0.04)
    assert any(said in warning for warning in make.before_after(after=gone).warnings)
    assert not any(said in warning for warning in make.before_after().warnings)
    assert any("only test whether secrets are too likely" in limit for limit in make.before_after().limits)
