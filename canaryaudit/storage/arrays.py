"""Safetensors files of NumPy arrays: rows of tables and images, coefficients and their curvature."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from canaryaudit.storage.tensors import open_tensors

Arrays = Mapping[str, np.ndarray]
"""Arrays by name."""


def arrays_bytes(arrays: Arrays, facts: Mapping[str, str] | None = None) -> bytes:
    """Return a safetensors file of arrays, with facts in its header."""
    # In C order: the format has no other.
    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, dict(facts or {}))


def read_arrays(path: Path, repair: str) -> dict[str, np.ndarray]:
    """Return the arrays of a safetensors file.

    Raises:
        Damaged: It is not one.
    """
    with open_tensors(path, repair) as file:
        return {name: file.get_tensor(name) for name in file.keys()}
