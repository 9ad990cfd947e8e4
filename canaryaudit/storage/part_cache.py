"""Parts of long work kept aside, so that work that is interrupted goes on where it was."""

from pathlib import Path
from typing import Protocol

import numpy as np
from safetensors.numpy import save

from canaryaudit.errors import Damaged
from canaryaudit.storage.files import atomic_write
from canaryaudit.storage.tensors import open_tensors


class ResultCache(Protocol):
    """Keeps arrays by name."""

    def get(self, name: str) -> dict[str, np.ndarray] | None:
        """Return what was put under ``name``, or None."""

    def put(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Keep arrays under ``name``."""


class NullCache:
    """Keeps nothing: the work begins anew each time."""

    def get(self, name: str) -> None:
        """Return nothing."""

    def put(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Keep nothing."""


class DirectoryCache:
    """Keeps each part in a file of its own, written whole or not at all.

    Args:
        path: The directory; it is made with the first part.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, name: str) -> dict[str, np.ndarray] | None:
        """Return a part; a damaged file counts as none, since its work can be done again."""
        try:
            with open_tensors(self.path / f"{name}.safetensors") as file:
                return {own: file.get_tensor(own) for own in file.keys()}
        except Damaged:
            return None

    def put(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Write a part."""
        atomic_write(self.path / f"{name}.safetensors", save(arrays))
