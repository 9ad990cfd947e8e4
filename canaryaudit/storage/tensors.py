"""Open untrusted safetensors files.

The library checks every type, shape and offset against the file's size before it returns a tensor. Its limit on the
header is 100 MB, which lets a malicious file take over a gigabyte, so the header's length is checked first.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
from safetensors import SafetensorError, safe_open

from canaryaudit.errors import Damaged, one_line
from canaryaudit.records import Architecture
from canaryaudit.storage.files import open_plain, read_errors

MAX_HEADER_BYTES = 16 * 2**20
"""Over five times the need of the weights of a hundred 64-layer models, or of a checkpoint after 10,000 epochs."""

_LENGTH_BYTES = 8  # the file begins with the header's length, little-endian


_CHUNK = 2**22


@contextmanager
def open_tensors(path: Path, repair: str = "remove it", framework: Literal["np", "pt"] = "np") -> Iterator[safe_open]:
    """Open a safetensors file; tensors are read on request.

    Args:
        path: The file.
        repair: What to do if it is damaged, as a clause.
        framework: Return NumPy arrays (``np``) or PyTorch tensors (``pt``).

    Raises:
        Damaged: It is not a complete safetensors file without spare bytes. Or a tensor read in the block has a type
            that the framework lacks, or exceeds memory.
    """
    try:
        _ = data_start(path, repair)
        with safe_open(path, framework) as file:
            yield file
    except (SafetensorError, OSError, RuntimeError, MemoryError, AttributeError, TypeError, ValueError) as error:
        # The last three: NumPy lacks a type, such as F8_E4M3, or does not support 500 dimensions.
        raise Damaged(path, one_line(error), repair) from error


def data_start(path: Path, repair: str = "remove it") -> int:
    """Return the offset of the first tensor's first byte; the tensors follow without gaps.

    Raises:
        Damaged: It is missing or not a plain file, or its header is larger than the file or than ``MAX_HEADER_BYTES``.
    """
    try:
        with open_plain(path, repair) as file:
            length, size = int.from_bytes(file.read(_LENGTH_BYTES), "little"), path.stat().st_size
    except FileNotFoundError:
        raise Damaged(path, "it is missing", repair) from None
    except OSError as error:
        raise Damaged(path, error.strerror or str(error), repair) from error
    if size < _LENGTH_BYTES or length > min(size - _LENGTH_BYTES, MAX_HEADER_BYTES):
        raise Damaged(path, "its header is truncated, or its length is invalid", repair)
    return _LENGTH_BYTES + length


def weight_shapes(architecture: Architecture, members: int = 1) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of a model's weights: a ``CharLSTM``, or an ``Ensemble`` of several."""
    symbols, hidden = len(architecture.vocabulary), architecture.hidden
    shapes: dict[str, tuple[int, ...]] = {"embedding.weight": (symbols, architecture.embedding)}
    for layer in range(architecture.layers):
        shapes[f"lstm.weight_ih_l{layer}"] = (4 * hidden, hidden if layer else architecture.embedding)
        shapes[f"lstm.weight_hh_l{layer}"] = (4 * hidden, hidden)
        shapes[f"lstm.bias_ih_l{layer}"] = shapes[f"lstm.bias_hh_l{layer}"] = (4 * hidden,)
    shapes |= {"output.weight": (symbols, hidden), "output.bias": (symbols,)}
    if members == 1:
        return shapes
    return {f"members.{member}.{name}": shape for member in range(members) for name, shape in shapes.items()}


def found_shapes(path: Path, precision: Literal["F32", "F64"] = "F32") -> dict[str, tuple[int, ...] | None]:
    """Return the shape of each tensor in a file; None for tensors of another precision."""
    with open_tensors(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}
        return {
            name: tuple(part.get_shape()) if part.get_dtype() == precision else None for name, part in slices.items()
        }


def all_finite(path: Path, precision: Literal["F32", "F64"] = "F32") -> bool:
    """Return whether a file of floating-point tensors holds only finite numbers; a few megabytes are read at a time."""
    kind = "<f4" if precision == "F32" else "<f8"
    with read_errors(path), open_plain(path) as file:
        file.seek(data_start(path))
        return all(np.isfinite(np.frombuffer(data, dtype=kind)).all() for data in iter(lambda: file.read(_CHUNK), b""))
