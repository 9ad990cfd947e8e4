"""Tests of canaryaudit.exposure.estimators.arrays, by way of the estimators that take the arrays."""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from canaryaudit.errors import MeasurementError
from canaryaudit.exposure.estimators import (
    Estimate,
    Rescored,
    calibrate,
    importance_exposure,
    sampled_exposure,
    skew_normal_exposure,
)

SECRETS = [1.5, 24.0, 40.0]  # bfloat16 has these too
REFERENCES = [float(value) for value in range(20, 60)]
KINDS: dict[str, Callable[[list[float]], Any]] = {
    "list": list,
    "tuple": tuple,
    "numpy": np.array,
    "single precision": lambda values: np.array(values, dtype=np.float32),
    "not contiguous": lambda values: np.repeat(values, 2)[::2],
    "objects": lambda values: np.array([Fraction(value) for value in values], dtype=object),
    "numbers of numpy": lambda values: [np.float64(value) for value in values],
    "pandas": lambda values: pd.Series(values, index=range(7, 7 + len(values))),
    "pandas, may miss values": lambda values: pd.Series(values, dtype="Float64"),
    "torch": torch.tensor,
    "torch, differentiable": lambda values: torch.tensor(values, requires_grad=True),
    "torch, bfloat16": lambda values: torch.tensor(values, dtype=torch.bfloat16),
    "torch, list of scalars": lambda values: [torch.tensor(value, requires_grad=True) for value in values],
    "torch, whole numbers": lambda values: torch.tensor([2 * value for value in values]).long().double() / 2,
}
ESTIMATORS: dict[str, Callable[..., Any]] = {
    "sampled": sampled_exposure,
    "importance": lambda secrets, draws, space: importance_exposure(
        secrets, draws, space, log2_weights=np.full(40, 10.0)
    ),
    "skew-normal": skew_normal_exposure,
}
estimators = pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)


class ElsewhereTensor:
    """Stands for a tensor on a GPU, which numpy cannot read; recognized by its methods as torch's are."""

    def __init__(self, values: list[float]) -> None:
        self.values = torch.tensor(values)
        self.ndim = self.values.ndim

    def __array__(self, *_: object) -> np.ndarray:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def is_floating_point(self) -> bool:
        return True

    def detach(self) -> "ElsewhereTensor":
        return self

    def cpu(self) -> torch.Tensor:
        return self.values


@estimators
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_kind_of_array_gives_the_same(estimator: Callable[..., Any], kind: Callable[..., Any]) -> None:
    estimates = estimator(kind(SECRETS), kind(REFERENCES), 10)
    assert estimates == [estimator(secret, np.array(REFERENCES), 10.0) for secret in SECRETS]
    assert len({estimate.bits for estimate in estimates}) == len(SECRETS)


def test_tensors_on_other_devices_are_fetched() -> None:
    expected = sampled_exposure(SECRETS, REFERENCES, 10)
    assert sampled_exposure(ElsewhereTensor(SECRETS), ElsewhereTensor(REFERENCES), 10) == expected
    if torch.cuda.is_available():
        secrets, references = (torch.tensor(values, device="cuda") for values in (SECRETS, REFERENCES))
        assert sampled_exposure(secrets, references, 10) == expected


@estimators
@pytest.mark.parametrize("one", [24, 24.0, np.float32(24), np.array(24.0), torch.tensor(24.0), Fraction(24)])
def test_one_value_gives_one_estimate(estimator: Callable[..., Any], one: Any) -> None:
    assert isinstance(estimator(one, REFERENCES, 10), Estimate)


@estimators
def test_a_list_of_one_gives_a_list_of_one(estimator: Callable[..., Any]) -> None:
    assert estimator([24.0], REFERENCES, 10) == [estimator(24.0, REFERENCES, 10)]


NO_NUMBERS: dict[str, tuple[Any, str]] = {
    "NaN": ([1.0, math.nan], "expected finite numbers in bits, got NaN at position 1"),
    "one NaN": (math.nan, "expected finite numbers in bits, got NaN at position 0"),
    "infinite": (np.array([math.inf]), "expected finite numbers in bits, got inf at position 0"),
    "minus infinity": ([1.0, -math.inf], "expected finite numbers in bits, got -inf at position 1"),
    "NaN in a tensor": (torch.tensor([math.nan]), "expected finite numbers in bits, got NaN at position 0"),
    "empty": ([], "expected (at least|[0-9]+ or more)"),
    "truth values": ([True, False], "expected numbers in bits, got truth values"),
    "one truth value": (True, "expected numbers in bits, got truth values"),
    "a mask": (torch.tensor([True]), "expected numbers in bits, got truth values"),
    "text": (["0123456789"], "expected numbers in bits, got text"),
    "one text": ("0123456789", "expected numbers in bits, got text"),
    "bytes": (b"0123456789", "expected numbers in bits, got bytes"),
    "complex numbers": ([1 + 2j], "expected numbers in bits, got complex numbers"),
    "dates": (np.array(["2020-01-01"], dtype="datetime64[D]"), "expected numbers in bits, got dates"),
    "nothing": (None, "expected numbers in bits, got objects that are no numbers"),
    "a generator": ((value for value in SECRETS), "expected numbers in bits, got objects that are no numbers"),
    "a column": (np.ones((3, 1)), r"expected one number or shape \(n,\), got \(3, 1\)"),
    "ragged": ([[1.0], [1.0, 2.0]], "expected numbers, got list that numpy cannot read"),
    "sparse": (torch.eye(2).to_sparse(), "expected numbers, got Tensor that numpy cannot read"),
    "missing": (pd.Series([1.0, None], dtype="Float64"), "expected .*numbers"),
    "masked": (np.ma.masked_less([1.0, 2.0], 2), "some values are masked"),
    "beyond floats": ([10**400], "expected numbers in bits, got objects that are no numbers"),
}


@estimators
@pytest.mark.parametrize(("values", "complaint"), NO_NUMBERS.values(), ids=NO_NUMBERS)
def test_what_is_no_number_is_refused_in_one_line(
    estimator: Callable[..., Any], values: object, complaint: str
) -> None:
    with pytest.raises(MeasurementError, match=f"^secrets: {complaint}") as caught:
        estimator(values, REFERENCES, 10)
    assert "\n" not in str(caught.value)
    assert "0123456789" not in str(caught.value), "a secret was shown"


@pytest.mark.parametrize("estimator", [sampled_exposure, skew_normal_exposure])
@pytest.mark.parametrize(("values", "complaint"), NO_NUMBERS.values(), ids=NO_NUMBERS)
def test_references_are_checked_like_secrets(estimator: Callable[..., Any], values: object, complaint: str) -> None:
    with pytest.raises(MeasurementError, match=f"^references: {complaint}"):
        estimator(24.0, values, 10)


@pytest.mark.parametrize("estimator", [sampled_exposure, skew_normal_exposure])
def test_one_number_is_no_sample(estimator: Callable[..., Any]) -> None:
    with pytest.raises(MeasurementError, match="references: expected several numbers, got one"):
        estimator(24.0, 30.0, 10)


def test_an_infinite_draw_counts_for_nothing_and_others_must_be_numbers() -> None:
    weights = np.full(3, 2.0)
    counted, left_out = ([5.0, other, 6.0] for other in (4.0, math.inf))
    assert importance_exposure(5.5, left_out, 8, log2_weights=weights).bits == pytest.approx(8 - math.log2(1 + 4 / 3))
    assert importance_exposure(5.5, counted, 8, log2_weights=weights).bits == pytest.approx(8 - math.log2(1 + 8 / 3))
    for wrong in (math.nan, -math.inf):
        with pytest.raises(MeasurementError, match="draws: expected numbers above -inf in bits, got .* at position 1"):
            importance_exposure(5.5, [5.0, wrong, 6.0], 8, log2_weights=weights)
    with pytest.raises(MeasurementError, match="log2_weights: expected finite numbers"):
        importance_exposure(5.5, counted, 8, log2_weights=[1.0, math.inf, 1.0])


@estimators
@pytest.mark.parametrize("space_bits", [0, 0.5, -1, math.nan, math.inf, [10.0], [10.0, 10.0], "10", True, None, 10**10])
def test_the_space_has_a_size(estimator: Callable[..., Any], space_bits: object) -> None:
    with pytest.raises(MeasurementError, match="^space_bits: expected"):
        estimator(24.0, REFERENCES, space_bits)


@estimators
def test_log_probabilities_are_not_taken_for_log_perplexities(estimator: Callable[..., Any]) -> None:
    """With their sign the least likely secret would look the most exposed."""
    with pytest.raises(MeasurementError, match="change their sign"):
        estimator(-24.0, -np.array(REFERENCES), 10)


def test_arrays_of_different_lengths_are_refused() -> None:
    with pytest.raises(MeasurementError, match="arrays of one length, got references 3, counts 2"):
        sampled_exposure(1.0, [1.0, 2.0, 3.0], 10, counts=[1, 2])
    with pytest.raises(MeasurementError, match="draws 2, log2_weights 3, strata 2"):
        importance_exposure(1.0, [1.0, 2.0], 10, log2_weights=[1.0, 2.0, 3.0])
    with pytest.raises(MeasurementError, match="exposures_bits 2, space_bits 3"):
        calibrate([1.0, 2.0], [10.0, 10.0, 10.0])


@pytest.mark.parametrize("counts", [[0, 1, 1], [1.5, 1, 1], [-1, 2, 2], [math.nan, 1, 1]])
def test_counts_are_whole_numbers(counts: list[float]) -> None:
    with pytest.raises(MeasurementError, match="^counts: expected"):
        sampled_exposure(1.0, [1.0, 2.0, 3.0], 10, counts=counts)


@pytest.mark.parametrize(
    ("rows", "bits", "probabilities", "complaint"),
    [
        ([0], [1.0], [0.0], "probabilities: expected numbers above 0"),
        ([0], [1.0], [1.5], "probabilities: expected numbers above 0"),
        ([0], [math.nan], [1.0], "bits: expected finite numbers"),
        ([0, 1], [1.0], [1.0], "rows 2, bits 1, probabilities 1"),
        ([-1], [1.0], [1.0], "rows: expected row numbers"),
        ([3], [1.0], [1.0], "rescored rows: expected row numbers from 0 to 2, got 3"),
    ],
)
def test_rescored_references_fit(rows: Any, bits: Any, probabilities: Any, complaint: str) -> None:
    with pytest.raises(MeasurementError, match=complaint):
        sampled_exposure(1.0, [1.0, 2.0, 3.0], 10, rescored=Rescored(rows, bits, probabilities))


@pytest.mark.parametrize("exposure", [math.nan, math.inf, -1.0, 11.0])
def test_controls_exposures_lie_within_their_space(exposure: float) -> None:
    with pytest.raises(MeasurementError, match="expected"):
        calibrate([1.0, exposure], 10)


def test_one_space_is_that_of_all_controls() -> None:
    assert calibrate([1.0, 0.5, 3.0], 10) == calibrate([1.0, 0.5, 3.0], [10.0] * 3)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=5), st.lists(st.integers(0, 9), min_size=2, max_size=50))
def test_sampled_exposures_are_those_of_counting(secrets: list[int], references: list[int]) -> None:
    for secret, estimate in zip(secrets, sampled_exposure(secrets, references, 40), strict=True):
        likelier = sum(1.0 if value < secret else 0.5 if value == secret else 0.0 for value in references)
        share = (likelier + 0.5) / (len(references) + 1)
        assert estimate.bits == pytest.approx(-math.log2(share))


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=5),
    st.lists(st.tuples(st.integers(0, 9), st.floats(-30, 30)), min_size=2, max_size=50),
)
def test_importance_exposures_are_those_of_the_weighted_mean(
    secrets: list[int], draws: list[tuple[int, float]]
) -> None:
    costs, weights = [cost for cost, _ in draws], [weight for _, weight in draws]
    for secret, estimate in zip(secrets, importance_exposure(secrets, costs, 40, log2_weights=weights), strict=True):
        total = sum((1.0 if cost < secret else 0.5) * 2.0**weight for cost, weight in draws if cost <= secret)
        expected = 40 - math.log2(1 + total / len(draws))
        assert estimate.bits == pytest.approx(min(max(expected, 0), 40), abs=1e-9)
