"""Training steps of the paper's model: ours against a plain fp32 loop and the 24-character scheme."""

import numpy as np
import torch
from torch import nn

from canaryaudit.models.char_lstm import CharLSTM
from canaryaudit.models.device import resolve_precision
from canaryaudit.progress import NullReporter
from canaryaudit.records import Architecture
from canaryaudit.training.config import SIZES, TrainingConfig
from canaryaudit.training.data import TrainingData
from canaryaudit.training.loop import train
from tests.benchmarks.harness import Comparison, rates

_SYMBOLS = "".join(map(chr, range(32, 86)))


def _text(length: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, len(_SYMBOLS), length))


def plain_step(
    model: CharLSTM, optimizer: torch.optim.Optimizer, windows: torch.Tensor, *, predicted: int
) -> torch.Tensor:
    """Take a step as one writes it down first, for the last labels of each window; return their logits."""
    logits, target = model(windows[:, :-1])[:, -predicted:], windows[:, -predicted:]
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten())
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return logits


def run() -> list[Comparison]:
    """Compare one short epoch of each."""
    embedding, hidden, layers = SIZES["paper"]
    precision = resolve_precision("auto", torch.device("cpu"))
    text = _text(25_701)
    architecture = Architecture(vocabulary=_SYMBOLS, embedding=embedding, hidden=hidden, layers=layers)

    def ours() -> int:
        config = TrainingConfig(size="paper", epochs=1, precision=precision)
        data = TrainingData(train=text, secret=torch.zeros_like(text, dtype=torch.bool), heldout=text[:0])
        _, record = train(data, _SYMBOLS, config, NullReporter())
        # The rate of the steps themselves: the evaluation at the end is no part of an epoch.
        return round(record.characters_per_second * record.seconds)

    def plain(window: int, batch: int, steps: int, every_position: bool) -> int:
        torch.manual_seed(0)
        model = CharLSTM(architecture)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        for step in range(steps):
            starts = torch.arange(batch) * window + step
            windows = text[starts[:, None] + torch.arange(window + 1)]
            plain_step(model, optimizer, windows, predicted=window if every_position else 1)
        return batch * steps * (window if every_position else 1)

    plain_rates = rates(ours, lambda: plain(100, 32, 4, every_position=True), rounds=3)
    scheme_rates = rates(ours, lambda: plain(24, 64, 4, every_position=False), rounds=3)
    name = f"training, paper size, {precision}"
    return [
        Comparison(name, "plain fp32 `nn.LSTM` loop", *plain_rates, unit="characters"),
        Comparison(name, "24-character windows, one label each", *scheme_rates, unit="characters"),
    ]
