"""Convert weights to bytes, and load them into a model."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import save
from torch import nn

from canaryaudit.errors import ModelError
from canaryaudit.storage.tensors import open_tensors

M = TypeVar("M", bound=nn.Module)


_MAKE_AGAIN = "rerun the command that made them"


def weights_bytes(model: nn.Module) -> bytes:
    """Return the weights as the contents of a safetensors file, in float32."""
    return save({name: value.detach().float().cpu().contiguous() for name, value in model.state_dict().items()})


def load_into(make: Callable[[], M], path: Path, device: torch.device) -> M:
    """Read weights from safetensors; names, types and shapes are checked before anything is allocated.

    Args:
        make: Makes the model to load the weights into.
        path: The file.
        device: The device of the model, which is returned in evaluation mode.

    Raises:
        Damaged: The file is not a safetensors file.
        ModelError: It does not hold finite weights of this model.
    """
    with torch.device("meta"):
        model = make()
    expected = {name: ("F32", list(value.shape)) for name, value in model.state_dict().items()}
    with open_tensors(path, _MAKE_AGAIN, "pt") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}
        actual = {name: (part.get_dtype(), part.get_shape()) for name, part in slices.items()}
        if actual != expected:
            raise ModelError(
                f"{path}: the weights do not match model.json ({_difference(actual, expected)}); {_MAKE_AGAIN}"
            )
        # Cloned: the tensors map the file.
        tensors = {name: file.get_tensor(name).clone() for name in expected}
    broken = next((name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()), None)
    if broken is not None:
        raise ModelError(f"{path}: {broken} holds infinite or NaN values; {_MAKE_AGAIN}")
    model.load_state_dict(tensors, assign=True)
    return model.to(device).eval()


def _difference(actual: dict[str, tuple[str, list[int]]], expected: dict[str, tuple[str, list[int]]]) -> str:
    def shown(tensors: dict[str, tuple[str, list[int]]]) -> str:
        return f"{tensors[name][0]} {tensors[name][1]}" if name in tensors else "nothing"

    name = next(name for name in {**expected, **actual} if actual.get(name) != expected.get(name))
    return f"{name[:100]!r}: expected {shown(expected)}, got {shown(actual)}"
