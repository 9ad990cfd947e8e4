"""What a file of weights holds, told without loading a model: its header, and its numbers a few megabytes at a time."""

from pathlib import Path

import numpy as np

from canaryaudit.files import read_errors
from canaryaudit.records import Architecture
from canaryaudit.tensorfiles import data_start, open_tensors

_CHUNK = 2**22


def weight_shapes(architecture: Architecture, members: int = 1) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of a model's weights: those of ``CharLSTM``, or of an ``Ensemble`` of several."""
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


def found_shapes(path: Path) -> dict[str, tuple[int, ...] | None]:
    """Return the shape of each tensor in a file; None for those that are not in float32."""
    with open_tensors(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}
        return {name: tuple(own.get_shape()) if own.get_dtype() == "F32" else None for name, own in slices.items()}


def all_finite(path: Path) -> bool:
    """Tell whether a file of float32 tensors holds finite numbers only; a few megabytes are read at a time."""
    with read_errors(path), path.open("rb") as file:
        file.seek(data_start(path))
        return all(np.isfinite(np.frombuffer(data, dtype="<f4")).all() for data in iter(lambda: file.read(_CHUNK), b""))
