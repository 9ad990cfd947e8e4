"""Partial results of long computations, stored so an interrupted computation can resume."""

from pathlib import Path
from typing import Protocol

import numpy as np
from safetensors.numpy import save

from canaryaudit.errors import Damaged
from canaryaudit.storage.files import atomic_write
from canaryaudit.storage.tensors import open_tensors


class ResultCache(Protocol):
    """Stores arrays by name."""

    def get(self, name: str) -> dict[str, np.ndarray] | None:
        """Return the arrays stored under ``name``, or None."""

    def put(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Store arrays under ``name``."""


class NullCache:
    """Stores nothing: every computation starts from the beginning."""

    def get(self, name: str) -> None:
        """Return None."""

    def put(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Ignore the arrays."""


class DirectoryCache:
    """Stores each part in a separate file, written atomically.

    Args:
        path: The directory; created with the first part.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, name: str) -> dict[str, np.ndarray] | None:
        """Return a part; a damaged file counts as missing, since it can be recomputed."""
        try:
            with open_tensors(self.path / f"{name}.safetensors") as file:
                return {key: file.get_tensor(key) for key in file.keys()}
        except Damaged:
            return None

    def put(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Write a part."""
        atomic_write(self.path / f"{name}.safetensors", save(arrays))
