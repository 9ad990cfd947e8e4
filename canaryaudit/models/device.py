"""Device and precision of a model."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch

from canaryaudit.errors import ModelError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def autocast(device: torch.device | str, precision: str) -> AbstractContextManager[object]:
    """Return the context in which matrix products run in ``precision``."""
    kind = torch.device(device).type
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=precision == "bf16")


def resolve_device(device: str) -> torch.device:
    """Turn ``auto``, ``cpu`` or ``cuda`` into a device.

    Raises:
        ModelError: ``cuda`` is requested but not available, or the name is unknown.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ModelError(f"unknown device {device!r}: expected auto, cpu or cuda")
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise ModelError("no CUDA device is available: use --device cpu")
    return torch.device(device)


def resolve_precision(precision: str, device: torch.device) -> str:
    """Turn ``auto`` into ``bf16`` if matrix products in bfloat16 are clearly faster on this device, else ``fp32``.

    Raises:
        ModelError: An unknown precision.
    """
    if precision in PRECISIONS:
        return precision
    if precision != "auto":
        raise ModelError(f"unknown precision {precision!r}: expected auto, fp32 or bf16")

    def seconds(dtype: torch.dtype) -> float:
        left, right = (torch.ones(512, 1024, device=device, dtype=dtype) for _ in range(2))
        return min(_seconds_of(lambda: left @ right.T, device) for _ in range(5))

    # Measured, since many processors accept bfloat16 but only some are fast at it.
    return "bf16" if seconds(torch.bfloat16) < 0.6 * seconds(torch.float32) else "fp32"


def _seconds_of(work: Callable[[], object], device: torch.device) -> float:
    # Processor time: on a busy machine, wall time would make the choice random.
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    start = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start
