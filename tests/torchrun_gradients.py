"""Compare a step that several processes share with the same step of one process; the first one prints the outcome.

The figures: for batches of several lengths, the largest difference of a gradient's entry, as a share of the largest
entry, and whether losses, characters, hits and characters outside the secrets were counted alike.
"""

import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from canaryaudit.model import CharLSTM
from canaryaudit.narration import Silent
from canaryaudit.ranks import ALONE, Ranks, of_job
from canaryaudit.records import Architecture
from canaryaudit.training import TrainingConfig, TrainingData, _Loop


def step(windows: torch.Tensor, secret: torch.Tensor, ranks: Ranks) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the gradient and the tally of one step, in double precision."""
    torch.manual_seed(0)
    model = CharLSTM(Architecture(vocabulary="\n abcdefg", embedding=6, hidden=12, layers=2)).double()
    text = torch.zeros(1000, dtype=torch.int64)
    data = TrainingData(text, text.bool(), text[:0])
    config = TrainingConfig(epochs=1, batch_size=8, window=20, gradient_clip=1e9)
    loop = _Loop(model, config, data, Silent(), ranks)
    loop._share_steps()
    loop._step(windows, secret)
    return torch.cat(
        [parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]
    ), loop.tally


if __name__ == "__main__":
    job = of_job()
    if job.rank == 0:
        job.share("gradients", {}, {})
    else:
        assert job.next_task() is not None
    found = []
    for rows in (8, 7, 3, 1):
        generator = torch.Generator().manual_seed(rows)
        windows = torch.randint(9, (rows, 21), generator=generator)
        secret = torch.rand(rows, 21, generator=generator) < 0.3
        (one, counted), (shared, counted_shared) = step(windows, secret, ALONE), step(windows, secret, job)
        error = float((one - shared).abs().max() / one.abs().max())
        found.append({"rows": rows, "error": error, "counted": torch.allclose(counted, counted_shared, rtol=1e-6)})
    if job.rank == 0:
        print(json.dumps(found))
    job.leave()
