"""Weights as bytes, and back into a model."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import save
from torch import nn

from canaryaudit.errors import ModelError
from canaryaudit.storage.tensors import open_tensors

M = TypeVar("M", bound=nn.Module)


_MAKE_AGAIN = "run the command that made them again"


def weights_bytes(model: nn.Module) -> bytes:
    """Return the weights as the contents of a safetensors file, in float32."""
    return save({name: value.detach().float().cpu().contiguous() for name, value in model.state_dict().items()})


def load_into(make: Callable[[], M], path: Path, device: torch.device) -> M:
    """Read weights from safetensors; names, types and shapes are checked before anything is allocated.

    Args:
        make: Makes the model whose weights these must be.
        path: The file.
        device: Where to put the model, which is in evaluation mode.

    Raises:
        Damaged: The file is no safetensors file.
        ModelError: It does not hold this model's weights, all finite.
    """
    with torch.device("meta"):
        model = make()
    expected = {name: ("F32", list(value.shape)) for name, value in model.state_dict().items()}
    with open_tensors(path, _MAKE_AGAIN, "pt") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}
        found = {name: (own.get_dtype(), own.get_shape()) for name, own in slices.items()}
        if found != expected:
            raise ModelError(
                f"{path}: the weights do not fit model.json ({_difference(found, expected)}); {_MAKE_AGAIN}"
            )
        # Cloned: the file's own memory is a map of the file.
        tensors = {name: file.get_tensor(name).clone() for name in expected}
    broken = next((name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()), None)
    if broken is not None:
        raise ModelError(f"{path}: {broken} holds numbers that are not finite; {_MAKE_AGAIN}")
    model.load_state_dict(tensors, assign=True)
    return model.to(device).eval()


def _difference(found: dict[str, tuple[str, list[int]]], expected: dict[str, tuple[str, list[int]]]) -> str:
    def shown(own: dict[str, tuple[str, list[int]]]) -> str:
        return f"{own[name][0]} {own[name][1]}" if name in own else "nothing"

    name = next(name for name in {**expected, **found} if found.get(name) != expected.get(name))
    return f"{name[:100]!r}: expected {shown(expected)}, got {shown(found)}"
