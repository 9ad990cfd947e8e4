"""Compare a step that several processes share with the same step of one process; the first one prints the outcome.

The figures: for batches of several lengths, the largest difference of a gradient's entry, as a share of the largest
entry, and whether losses, characters, hits and characters outside the secrets were counted alike; and whether steps
after a resumption were the same to the last bit.
"""

import copy
import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from canaryaudit.distributed import SINGLE_PROCESS, ProcessGroup, process_group
from canaryaudit.models.char_lstm import CharLSTM
from canaryaudit.progress import NullReporter
from canaryaudit.records import Architecture
from canaryaudit.training.config import TrainingConfig
from canaryaudit.training.data import TrainingData
from canaryaudit.training.loop import _Loop

ROWS = (8, 7, 3, 1)


def new_loop(processes: ProcessGroup) -> _Loop:
    """Return a training of a model in double precision, which is drawn alike everywhere."""
    torch.manual_seed(0)
    model = CharLSTM(Architecture(vocabulary="\n abcdefg", embedding=6, hidden=12, layers=2)).double()
    text = torch.zeros(1000, dtype=torch.int64)
    config = TrainingConfig(epochs=1, batch_size=8, window=20, gradient_clip=1e9)
    return _Loop(model, config, TrainingData(text, text.bool(), text[:0]), NullReporter(), processes)


def batch(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return windows and which of their characters are secret."""
    generator = torch.Generator().manual_seed(rows)
    return torch.randint(9, (rows, 21), generator=generator), torch.rand(rows, 21, generator=generator) < 0.3


def step(rows: int, processes: ProcessGroup) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the gradient and the tally of one step."""
    loop = new_loop(processes)
    loop._share_steps()
    loop._step(*batch(rows))
    gradients = [parameter.grad.flatten() for parameter in loop.model.parameters() if parameter.grad is not None]
    return torch.cat(gradients), loop.tally


def resumed_alike(processes: ProcessGroup) -> bool:
    """Tell whether steps after a resumption leave the very weights that they leave without one."""
    whole = new_loop(processes)
    whole._share_steps()
    for rows in ROWS:
        whole._step(*batch(rows))
    tensors, facts = copy.deepcopy(whole.state())
    resumed = new_loop(processes)
    resumed.restore(tensors, facts)
    resumed._share_steps()
    for loop in (whole, resumed):
        for rows in ROWS:
            loop._step(*batch(rows))
    return all(torch.equal(own, whole.state()[0][name]) for name, own in resumed.state()[0].items())


if __name__ == "__main__":
    job = process_group()
    if job.rank == 0:
        job.share("steps", {}, {})
    else:
        assert job.next_task() is not None
    batches = []
    for rows in ROWS:
        (one, counted), (shared, counted_shared) = step(rows, SINGLE_PROCESS), step(rows, job)
        error = float((one - shared).abs().max() / one.abs().max())
        batches.append({"rows": rows, "error": error, "counted": torch.allclose(counted, counted_shared, rtol=1e-6)})
    alike = resumed_alike(job)
    if job.rank == 0:
        print(json.dumps({"batches": batches, "resumed_alike": alike}))
    job.leave()
