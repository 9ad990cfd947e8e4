"""Tests of canaryaudit.exposure.estimators.worst_case."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from canaryaudit.errors import MeasurementError
from canaryaudit.exposure.estimators.worst_case import (
    MIN_TAIL,
    TAIL_SHARE,
    ReferenceScores,
    WorstCase,
    extended_p_value,
    joint_p_value,
    log2_weights,
)

FAMILIES = ["template"] + ["context"] * 4 + ["reworded"] * 5 + ["partial"] * 2


def costs_of(rng: np.random.Generator, members: int) -> np.ndarray:
    """Costs of members under twelve probes: dependent, of unlike scales and shapes, one of them full of ties."""
    shared = rng.standard_normal(members)
    noise = rng.standard_normal((len(FAMILIES), members))
    costs = 30 + np.arange(1, 13)[:, None] * (0.8 * shared + 0.6 * noise)
    costs[3] = rng.exponential(5, members)
    costs[5] = 20 - rng.exponential(3, members)  # a heavy tail on the likely side
    costs[7] = np.round(costs[7] / 12)
    return costs


def judged_plainly(secret: np.ndarray, references: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
    """The definition, word for word, on the pool of the secret and its references."""
    pool = np.column_stack((secret, references))
    size = max(2, min(pool.shape[1] // 2, max(MIN_TAIL, round(pool.shape[1] * TAIL_SHARE))))
    bits = np.empty_like(pool)
    for row, costs in enumerate(pool):
        bits[row] = -np.log2((stats.rankdata(costs) - 0.5) / len(costs))
        tail = np.sort(costs)[:size]
        mean_excess = (tail[-1] - tail).sum() / (size - 1)
        if mean_excess > 0:
            beyond = costs < tail[-1]
            start = math.log2(len(costs) / (size - 0.5))
            bits[row, beyond] = start + (tail[-1] - costs[beyond]) / mean_excess / math.log(2)
    scores = (bits + weights[:, None]).max(0)
    return float((scores >= scores[0]).mean()), bits[:, 0]


@pytest.mark.parametrize("references", [2, 3, 9, 40, 300])
def test_a_secret_is_judged_as_the_definition_says(references: int) -> None:
    rng = np.random.default_rng(references)
    weights = log2_weights(FAMILIES)
    for shift in (0.0, 8.0, 200.0):
        costs, secret = costs_of(rng, references), costs_of(rng, 1)[:, 0] - shift
        found = ReferenceScores(costs, weights).judge(secret)
        p_value, bits = judged_plainly(secret, costs, weights)
        assert found.p_value == pytest.approx(p_value)
        assert found.tail_bits == pytest.approx(bits)
        assert found.probe == int(np.argmax(bits + weights))
        assert found.unmatched == (found.p_value == pytest.approx(1 / (references + 1)))


def test_a_reference_is_judged_as_a_secret_beside_the_others_is() -> None:
    costs = costs_of(np.random.default_rng(0), 60)
    weights = log2_weights(FAMILIES)
    scores = ReferenceScores(costs, weights)
    for index in range(60):
        alone = ReferenceScores(np.delete(costs, index, axis=1), weights).judge(costs[:, index])
        among = scores.judge_reference(index)
        assert among.p_value == pytest.approx(alone.p_value)
        assert among.tail_bits == pytest.approx(alone.tail_bits)


@pytest.mark.parametrize("references", [19, 64, 250])
def test_p_values_of_secrets_never_seen_are_uniform(references: int) -> None:
    rng = np.random.default_rng(references)
    weights = log2_weights(FAMILIES)
    p_values = np.array(
        [ReferenceScores(costs_of(rng, references), weights).judge(costs_of(rng, 1)[:, 0]).p_value for _ in range(1500)]
    )
    # Spread over the step below each, they would be exactly uniform.
    spread = p_values - rng.random(len(p_values)) / (references + 1)
    assert stats.kstest(spread, "uniform").pvalue > 0.01
    for level in (0.05, 0.1, 0.25, 0.5):
        assert (
            stats.binomtest(int((p_values <= level).sum()), len(p_values), level, alternative="greater").pvalue > 0.01
        )


def test_a_secret_that_one_probe_finds_is_detected_among_many() -> None:
    rng = np.random.default_rng(0)
    weights = log2_weights(FAMILIES)
    found = []
    for trial in range(100):
        secret, probe = costs_of(rng, 1)[:, 0], (6, 8, 9)[trial % 3]
        secret[probe] -= 8 * (probe + 1)  # eight standard deviations
        found.append((ReferenceScores(costs_of(rng, 400), weights).judge(secret), probe))
    assert np.mean([worst.p_value <= 0.05 for worst, _ in found]) > 0.95
    assert np.mean([worst.probe == probe for worst, probe in found]) > 0.95


def test_families_share_their_weight() -> None:
    weights = np.exp2(log2_weights(FAMILIES))
    assert weights.sum() == pytest.approx(1)
    assert weights[0] == pytest.approx(1 / 4)
    assert weights[1:5] == pytest.approx(np.full(4, 1 / 16))


def unmatched(references: int) -> WorstCase:
    return WorstCase(0, 20.0, 1 / (references + 1), np.zeros(1), unmatched=True)


def test_below_the_least_rank_the_exposure_itself_goes_on() -> None:
    assert extended_p_value(unmatched(99), 30.0, -3.0) == 2.0**-27
    assert extended_p_value(unmatched(99), 5.0, -3.0) == 1 / 100
    matched = WorstCase(0, 20.0, 0.5, np.zeros(1), unmatched=False)
    assert extended_p_value(matched, 30.0, 0.0) == 0.5


def test_extended_p_values_are_valid_at_every_level() -> None:
    """Whole spaces of 4,096 members under four probes: whoever is drawn, p <= x at most a share x of the time."""
    rng = np.random.default_rng(0)
    size, references, probes = 4096, 30, 4
    weights = log2_weights(["template", "bare", "bare", "bare"])
    found = []
    for _ in range(40):
        costs = np.vstack([rng.standard_normal(size) + 0.5 * rng.standard_normal(size) for _ in range(probes)])
        exposures = math.log2(size) - np.log2(1 + np.argsort(np.argsort(costs, axis=1), axis=1))
        for secret in rng.choice(size, 400, replace=False):
            others = rng.choice(np.delete(np.arange(size), secret), references, replace=False)
            worst = ReferenceScores(costs[:, others], weights).judge(costs[:, secret])
            best = int(np.argmax(exposures[:, secret] + weights))  # the most that refining can find
            found.append(extended_p_value(worst, float(exposures[best, secret]), float(weights[best])))
    p_values = np.array(found)
    assert p_values.min() < 0.2 / references
    for level in (0.5, 0.1, 0.05, 1 / 31, 0.01, 0.002, 0.0005):
        assert (
            stats.binomtest(int((p_values <= level).sum()), len(p_values), level, alternative="greater").pvalue > 1e-3
        )


def test_the_joint_p_value_is_uniform_though_secrets_share_their_references() -> None:
    rng = np.random.default_rng(0)
    found, taken_alone = [], []
    for trial in range(150):
        templates = []
        for references, secrets in ((100, 150), (60, 3)):
            scores = np.sort(rng.standard_normal(references))
            above = references - np.searchsorted(scores, rng.standard_normal(secrets))
            templates.append((1 + above) / (references + 1))
        found.append(joint_p_value(templates, (100, 60), seed=trial))
        flat = np.concatenate(templates)
        taken_alone.append(float(stats.gamma.sf(-np.log(flat).sum(), len(flat))))
    assert stats.kstest(found, "uniform").pvalue > 0.01
    # As if they were independent, they would raise false alarms: the correction does something.
    assert np.mean(np.array(taken_alone) <= 0.05) > 0.08 > np.mean(np.array(found) <= 0.05)


def test_the_joint_p_value_finds_what_no_secret_shows_alone() -> None:
    assert joint_p_value([[0.06] * 12], (500,)) < 0.001
    assert joint_p_value([[0.6] * 12], (500,)) > 0.5
    assert joint_p_value([[1e-9]], (99,)) == pytest.approx(0.01, abs=0.005)


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 30), st.integers(1, 5), st.integers(0, 10**6))
def test_small_and_tied_pools_give_p_values(references: int, probes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    costs = rng.integers(0, 3, (probes, references)).astype(float)
    found = ReferenceScores(costs, log2_weights(["bare"] * probes)).judge(rng.integers(0, 3, probes).astype(float))
    assert 1 / (references + 1) <= found.p_value <= 1
    assert np.isfinite(found.tail_bits).all()


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(MeasurementError, match="at least 2 references"):
        ReferenceScores(np.zeros((3, 1)), np.zeros(3))
    with pytest.raises(MeasurementError, match="a weight for each of 3 probes"):
        ReferenceScores(np.zeros((3, 5)), np.zeros(2))
    with pytest.raises(MeasurementError, match="no number"):
        ReferenceScores(np.zeros((1, 5)), np.zeros(1)).judge(np.array([math.nan]))
    with pytest.raises(MeasurementError, match="at least one p-value"):
        joint_p_value([[]], (5,))
    with pytest.raises(MeasurementError, match="at least one probe"):
        log2_weights([])
