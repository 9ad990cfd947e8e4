"""The command line for ``torchrun``, with a tiny model, small parts and frequent checkpoints; see ``torchrun``.

FAIL="train:1" in the environment makes process 1 run out of memory in its tenth step of training.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from canaryaudit import training
from canaryaudit.cli import main

training.SIZES["small"] = (8, 24, 1)
training._CHECKPOINT_SECONDS = 0.2


def failing(work: Callable[..., Any], after: int) -> Callable[..., Any]:
    """Return ``work`` so that its calls after so many find no memory."""
    calls = iter(range(after))

    def attempt(*arguments: Any) -> Any:
        if next(calls, None) is None:
            raise MemoryError
        return work(*arguments)

    return attempt


if __name__ == "__main__":
    match os.environ.get("FAIL", "").split(":"):
        case ["train", rank] if rank == os.environ["RANK"]:
            training.one_cycle = failing(training.one_cycle, 10)
    main()
