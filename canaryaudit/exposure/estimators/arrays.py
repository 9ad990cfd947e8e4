"""Arrays as users have them: lists, numpy arrays, pandas columns and torch tensors, checked once at the door.

Nothing here imports torch or pandas: a tensor is recognized by its methods. A message gives a position and never a
value that is no number, because somebody may pass the secrets themselves.
"""

import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from canaryaudit.errors import MeasurementError
from canaryaudit.records import Estimate

MOST_SPACE_BITS = 100_000
"""A completion of 5,000 characters of any alphabet has fewer bits: more is a size whose log2 was forgotten."""


class ArrayLike(Protocol):
    """Whatever numpy can read: numpy arrays, pandas columns, torch tensors."""

    def __array__(self, *arguments: Any, **options: Any) -> np.ndarray:
        """Return the values as a numpy array."""


Values = Sequence[float] | ArrayLike
"""Several numbers: a list, a tuple, a numpy array, a pandas column or a torch tensor."""
Flags = Sequence[bool] | ArrayLike
"""Several truth values, of the same kinds."""
Rows = Sequence[int] | Flags
"""Several rows of an array, by their numbers or by a mask over all rows."""


def read_bits(values: object, name: str, *, infinite: bool = False) -> np.ndarray:
    """Return figures in bits as an array of shape (n,), float64.

    Args:
        values: One number or several.
        name: What the caller calls them, for messages.
        infinite: Whether ``inf`` is allowed, which says that a member counts for nothing.

    Raises:
        MeasurementError: They are no numbers, not of shape (n,), or one of them is NaN or infinite.
    """
    array = _read(values, name)
    if array.dtype.kind not in "iuf":
        raise MeasurementError(f"{name}: expected numbers in bits, got {_kind(array)}: give -log2 of probabilities")
    if array.ndim > 1:
        raise MeasurementError(f"{name}: expected one number or shape (n,), got {array.shape}: flatten them first")
    array = np.atleast_1d(array).astype(np.float64, copy=False)
    wrong = np.isnan(array) | (array == -np.inf) if infinite else ~np.isfinite(array)
    if wrong.any():
        position = int(np.argmax(wrong))
        expected = "numbers above -inf" if infinite else "finite numbers"
        shown = "NaN" if np.isnan(array[position]) else str(array[position])
        raise MeasurementError(
            f"{name}: expected {expected} in bits, got {shown} at position {position}: compute it again or leave it out"
        )
    return array


def read_references(values: object, name: str, fewest: int = 1, *, infinite: bool = False) -> np.ndarray:
    """Return log-perplexities of members of a space, shape (n,), float64; at least ``fewest``."""
    array = read_bits(values, name, infinite=infinite)
    if _dimensions(values) == 0:
        raise MeasurementError(f"{name}: expected several numbers, got one: give a list or an array of shape (n,)")
    if len(array) < fewest:
        raise MeasurementError(f"{name}: expected {fewest} or more numbers, got {len(array)}: score more")
    return array


def read_space_bits(space_bits: object) -> float:
    """Return log2 of a space's size: finite and at least 1, for a space of one member has nothing to choose from."""
    value = read_bits(space_bits, "space_bits")
    if len(value) != 1 or _dimensions(space_bits) != 0:
        raise MeasurementError("space_bits: expected one number, got several: give secrets of one space at a time")
    if value[0] < 1:
        raise MeasurementError(
            f"space_bits: expected at least 1, as of two members, got {value[0]:g}: give log2 of the space's size"
        )
    if value[0] > MOST_SPACE_BITS:
        raise MeasurementError(
            f"space_bits: expected at most {MOST_SPACE_BITS:,}, got {value[0]:g}, which looks like a number of "
            "members: give its log2"
        )
    return float(value[0])


def read_flags(values: object, name: str) -> np.ndarray:
    """Return truth values, shape (n,), bool."""
    array = _read(values, name)
    if array.dtype.kind != "b" or array.ndim != 1:
        raise MeasurementError(
            f"{name}: expected truth values of shape (n,), got {_kind(array)} of shape {array.shape}: compare first"
        )
    return array


def read_p_values(values: object, name: str = "p_values") -> np.ndarray:
    """Return p-values, shape (n,), float64: above 0 and at most 1."""
    array = read_bits(values, name)
    if ((array <= 0) | (array > 1)).any():
        raise MeasurementError(f"{name}: expected p-values above 0 and at most 1: compute them again")
    return array


def read_counts(values: object, name: str, least: int) -> np.ndarray:
    """Return whole numbers of at least ``least``, shape (n,), int64."""
    array = read_bits(values, name)
    if (array < least).any() or (array != np.floor(array)).any() or (array > 2**53).any():
        raise MeasurementError(f"{name}: expected whole numbers of at least {least}: give how often, not a share")
    return array.astype(np.int64)


def read_rows(rows: object, size: int, name: str) -> np.ndarray:
    """Return row numbers of an array of ``size`` rows, shape (n,), int64; a mask's are where it is true.

    Raises:
        MeasurementError: A number is no row, negative ones included, or a mask is not of shape (size,).
    """
    array = np.atleast_1d(_read(rows, name))
    if array.ndim != 1 or (array.dtype.kind not in "iub" and array.size):
        raise MeasurementError(
            f"{name}: expected row numbers or a mask, got {_kind(array)} of shape {array.shape}: give whole numbers"
        )
    if array.dtype.kind == "b":
        if array.shape != (size,):
            raise MeasurementError(
                f"{name}: expected a mask of shape ({size},), got {array.shape}: give one truth value for each member"
            )
        return np.flatnonzero(array)
    array = array.astype(np.int64)
    if wrong := array[(array < 0) | (array >= size)].tolist():
        raise MeasurementError(f"{name}: expected row numbers from 0 to {size - 1}, got {wrong[0]}: count from 0")
    return array


def check_same_length(**arrays: np.ndarray) -> None:
    """Refuse arrays of different lengths, named as the caller names them."""
    if len({len(array) for array in arrays.values()}) > 1:
        lengths = ", ".join(f"{name} {len(array)}" for name, array in arrays.items())
        raise MeasurementError(f"expected arrays of one length, got {lengths}: give one value of each for every row")


def check_sign(secrets: np.ndarray, references: np.ndarray) -> None:
    """Refuse what can only be log-probabilities: with their sign the least likely secret looks the most exposed."""
    if secrets.size and references.size and secrets.max() < 0 and references.max() < 0:
        raise MeasurementError(
            "expected log-perplexities, got only negative numbers, as log-probabilities are: change their sign"
        )


def is_one_value(values: object) -> bool:
    """Say whether ``values`` is a single number, not a list or an array of them."""
    return _dimensions(values) == 0


def estimate_each(values: object, estimate: Callable[[float], Estimate], name: str = "secrets") -> Any:
    """Return ``estimate`` of one value, or a list of the estimates of several.

    Args:
        values: One number or several.
        estimate: The estimator, for a single number.
        name: What the caller calls them, for messages.

    Raises:
        MeasurementError: There is none, or one is no finite number.
    """
    array = read_bits(values, name)
    if not len(array):
        raise MeasurementError(f"{name}: expected at least one number, got none: give one or several")
    estimates = [estimate(float(value)) for value in array]
    return estimates[0] if is_one_value(values) else estimates


def _read(values: object, name: str) -> np.ndarray:
    """Return values as a numpy array of whatever type they have."""
    if np.ma.is_masked(values):
        raise MeasurementError(f"{name}: some values are masked: take them out with .compressed()")
    try:
        if isinstance(values, list | tuple):
            values = [_on_host(value) for value in values]
        array = np.asarray(_on_host(values))
    except (TypeError, ValueError, RuntimeError) as error:  # of ragged lists, sparse tensors, other devices' arrays
        raise MeasurementError(
            f"{name}: expected numbers, got {type(values).__name__} that numpy cannot read: give a list or an array"
        ) from error
    if array.dtype.kind == "O" and all(_is_number(value) for value in array.flat):
        return array.astype(np.float64)
    return array


def _on_host(values: Any) -> Any:
    """Return a torch tensor as a numpy array, wherever it lies and whatever its precision; all else as it is."""
    if not (hasattr(values, "detach") and hasattr(values, "is_floating_point")):
        return values
    values = values.detach().cpu()
    return (values.double() if values.is_floating_point() else values).numpy()  # numpy has no bfloat16


def _is_number(value: object) -> bool:
    """Say whether a value of an array of objects is a real number; pandas' missing value is none."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and _fits(value)


def _fits(value: numbers.Real) -> bool:
    try:
        return not math.isinf(float(value)) or value == math.inf or value == -math.inf
    except OverflowError:  # a whole number beyond every float
        return False


def _dimensions(values: object) -> int:
    return int(getattr(values, "ndim", 1 if hasattr(values, "__len__") else 0))


def _kind(array: np.ndarray) -> str:
    """Return what an array holds, in words, without its values."""
    names = {"b": "truth values", "U": "text", "S": "bytes", "c": "complex numbers", "M": "dates", "m": "durations"}
    names |= {"i": "whole numbers", "u": "whole numbers", "f": "numbers with fractions"}
    return names.get(array.dtype.kind, "objects that are no numbers")
