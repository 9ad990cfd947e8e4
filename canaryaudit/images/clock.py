"""What a computation costs: processor time on a CPU, which others' work does not change; elapsed time on a GPU."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


@contextmanager
def work_seconds(device: torch.device) -> Iterator[Callable[[], float]]:
    """Yield a function that returns the seconds that the block took, once it is done; before, those so far."""
    start = _now(device)
    total: list[float] = []
    try:
        yield lambda: total[0] if total else _now(device) - start
    finally:
        total.append(_now(device) - start)
