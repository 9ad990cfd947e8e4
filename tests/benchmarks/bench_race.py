"""Time to an accuracy on a text: our training against a plain fp32 `nn.LSTM` loop that takes the same steps."""

import time
from collections.abc import Iterator
from pathlib import Path

import torch

from canaryaudit.corpus.vocabulary import Vocabulary
from canaryaudit.models.device import resolve_precision
from canaryaudit.progress import NullReporter
from canaryaudit.training.config import EPOCHS, TrainingConfig
from canaryaudit.training.data import TrainingData
from canaryaudit.training.evaluation import evaluate
from canaryaudit.training.loop import new_model, train
from canaryaudit.training.schedule import one_cycle, window_starts
from tests.benchmarks.bench_training import plain_step


def run(corpus: Path, accuracy: float) -> Iterator[str]:
    """Yield a table's lines: each way's epochs, seconds and accuracy, and the share of the baseline's time.

    Both begin with the same weights, read the same windows in the same order at the same learning rates, and look
    at the accuracy on the whole text after every epoch whose running accuracy comes within 0.05 of the target.
    """
    text = corpus.read_text("utf-8")
    vocabulary = "".join(sorted(set(text)))
    symbols = torch.from_numpy(Vocabulary(vocabulary).encode(text)).long()
    precision = resolve_precision("auto", torch.device("cpu"))
    config = TrainingConfig(size="paper", epochs=EPOCHS["paper"], precision=precision, target_accuracy=accuracy)
    began = time.perf_counter()
    epochs, reached = _plain(symbols, vocabulary, config, accuracy)
    plain_seconds = time.perf_counter() - began
    yield f"| plain fp32 `nn.LSTM` loop | {epochs} | {plain_seconds:.0f} s | {reached:.4f} | |"
    data = TrainingData(symbols, torch.zeros_like(symbols, dtype=torch.bool), symbols[:0])
    began = time.perf_counter()
    model, record = train(data, vocabulary, config, NullReporter())
    seconds = time.perf_counter() - began
    rate = 6 * model.num_parameters * record.characters_per_second / 1e9
    yield (
        f"| ours, {precision} ({rate:.0f} GFLOP/s at 6 operations a weight and character) | {record.epochs} | "
        f"{seconds:.0f} s | {record.train.accuracy:.4f} | **{seconds / plain_seconds:.1%}** |"
    )


def _plain(symbols: torch.Tensor, vocabulary: str, config: TrainingConfig, target: float) -> tuple[int, float]:
    """Train as one writes it down first; return the epochs and the accuracy."""
    model = new_model(vocabulary, config, torch.device("cpu"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    per_epoch = -(-(len(symbols) // config.window) // config.batch_size)
    accuracy = 0.0
    for epoch in range(config.epochs):
        starts = torch.from_numpy(window_starts(len(symbols), config.window, config.seed, epoch))
        hits = seen = 0
        model.train()
        for step, own in enumerate(starts.split(config.batch_size)):
            for group in optimizer.param_groups:
                rate = one_cycle(epoch * per_epoch + step, per_epoch * config.epochs, config.learning_rate)
                group["lr"] = rate
            windows = symbols[own[:, None] + torch.arange(config.window + 1)]
            logits, following = plain_step(model, optimizer, windows, predicted=config.window), windows[:, 1:]
            hits += int((logits.argmax(2) == following).sum())
            seen += following.numel()
        if hits / seen >= target - 0.05 or epoch + 1 == config.epochs:
            model.eval()
            accuracy = evaluate(model, symbols, None, "fp32").accuracy
        if accuracy >= target:
            return epoch + 1, accuracy
    return config.epochs, accuracy
