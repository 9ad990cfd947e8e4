"""The command line for ``torchrun``, with a tiny model, small parts and frequent checkpoints; see ``torchrun``.

FAIL="train:1" in the environment makes process 1 run out of memory in its tenth step of training, and FAIL="measure:1"
in its tenth part of the references.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from canaryaudit.cli.main import main
from canaryaudit.exposure import importance_sampling as importance
from canaryaudit.exposure import measurement, references, scoring
from canaryaudit.exposure import uniform_sample as uniform
from canaryaudit.pipeline import measure as stage
from canaryaudit.training import loop as training

training.SIZES["small"] = (8, 24, 1)
training._CHECKPOINT_SECONDS = 0.2
scoring._CHUNK = 100
uniform.PART, references._BLOCK, references.KEEP_FROM = 128, 2, 1000
stage.DRAFT_FROM = measurement.DRAFT_FROM = 1000
importance._LOT = 100


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
        case ["measure", rank] if rank == os.environ["RANK"]:
            references.match_targets = failing(references.match_targets, 10)
    main()
