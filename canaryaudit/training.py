"""The training loop: windows of text, AdamW, one cycle of the learning rate, checkpoints, resumption.

A step depends on nothing but the configuration, the text, the weights and the optimiser's moments: the
order of windows is drawn from (seed, epoch) and the learning rate is a function of the step. A resumed
training therefore ends with the very weights of an undisturbed one.
"""

import copy
import hashlib
import json
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from canaryaudit.checkpoint import CheckpointFile
from canaryaudit.ensemble import Ensemble
from canaryaudit.errors import Damaged, ModelError
from canaryaudit.model import LOG2_E, CharLSTM
from canaryaudit.narration import Narrator, Silent
from canaryaudit.recordfiles import validated
from canaryaudit.records import Architecture, EpochRecord, Evaluation, TrainingRecord
from canaryaudit.schedule import one_cycle, window_starts
from canaryaudit.trainingstate import TrainingConfig as TrainingConfig
from canaryaudit.trainingstate import TrainingState

SIZES = {"small": (32, 512, 1), "paper": (64, 512, 2)}
"""Embedding, hidden units and layers; ``paper`` is the model of Warnecke et al. 2023."""

EPOCHS = {"small": 24, "paper": 40}
"""Enough to predict the training text well: about 0.9 and 0.95 of it on a novel of 150,000 characters."""

_CHECKPOINT_SECONDS = 30.0
_PROGRESS_SECONDS = 0.5


@dataclass(frozen=True)
class TrainingData:
    """Encoded text, on the training device.

    Attributes:
        train: Symbol ids of the audited text, shape (N,), int64.
        secret: Whether a character belongs to an inserted secret, shape (N,), bool.
        heldout: Symbol ids of the held-out text, shape (M,); may be empty.
    """

    train: Tensor
    secret: Tensor
    heldout: Tensor


def autocast(device: torch.device | str, precision: str) -> AbstractContextManager[object]:
    """Return the context in which matrix products run in ``precision``."""
    kind = torch.device(device).type
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=precision == "bf16")


@torch.no_grad()
def evaluate(
    model: CharLSTM | Ensemble, symbols: Tensor, secret: Tensor | None, precision: str, streams: int = 32
) -> Evaluation:
    """Predict every character of a text from all that stands before it.

    The text is read in ``streams`` parallel parts, each from the zero state; the first character of a part
    is not predicted. Of a text shorter than two characters every figure is 0.

    Args:
        model: The model.
        symbols: Shape (N,).
        secret: Which characters belong to a secret, shape (N,); None for none.
        precision: ``fp32`` or ``bf16``.
        streams: Number of parts.
    """
    streams = max(1, min(streams, len(symbols) // 1000))
    length = math.ceil(len(symbols) / streams)
    mask = torch.zeros_like(symbols, dtype=torch.bool) if secret is None else secret
    padding = streams * length - len(symbols)
    text = nn.functional.pad(symbols, (0, padding)).view(streams, length)
    ordinary = nn.functional.pad(~mask, (0, padding)).view(streams, length)
    real = nn.functional.pad(torch.ones_like(mask), (0, padding)).view(streams, length)
    state: Any = None
    loss = torch.zeros((), dtype=torch.float64, device=symbols.device)
    right = torch.zeros(2, dtype=torch.int64, device=symbols.device)
    for start in range(0, length - 1, 256):
        end = min(start + 256, length - 1)
        with autocast(symbols.device, precision):
            hidden, state = model.features(text[:, start:end], state)
            logits = model.output(hidden).float()  # (streams, <= 256, V)
        target, here = text[:, start + 1 : end + 1], real[:, start + 1 : end + 1]
        losses = nn.functional.cross_entropy(logits.transpose(1, 2), target, reduction="none")
        loss += (losses * here).double().sum()
        hits = (logits.argmax(2) == target) & here
        right += torch.stack((hits.sum(), (hits & ordinary[:, start + 1 : end + 1]).sum()))
    counted = int(real[:, 1:].sum())
    counted_ordinary = int(ordinary[:, 1:].sum())
    return Evaluation(
        accuracy=int(right[1]) / max(1, counted_ordinary),
        accuracy_all=int(right[0]) / max(1, counted),
        loss_bits=float(loss) * LOG2_E / max(1, counted),
    )


def seconds_per_step(vocabulary_size: int, config: TrainingConfig, steps: int = 5) -> float:
    """Measure what one training step takes here, on random text; after two steps to warm up; the fastest counts."""
    text = torch.randint(vocabulary_size, (config.batch_size * config.window * 2,), device=config.device)
    data = TrainingData(train=text, secret=torch.zeros_like(text, dtype=torch.bool), heldout=text[:0])
    # Any symbols do: only their number matters here.
    model = new_model("".join(map(chr, range(0x4E00, 0x4E00 + vocabulary_size))), config, text.device)
    loop = _Loop(model, config, data, Silent())
    index = torch.arange(config.batch_size, device=config.device)[:, None] * config.window
    windows = text[index + torch.arange(config.window + 1, device=config.device)]
    taken = []
    for _ in range(steps + 2):
        started = time.perf_counter()
        loop._step(windows, torch.zeros_like(windows, dtype=torch.bool))
        if windows.is_cuda:
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    return min(taken[2:])


def new_model(vocabulary: str, config: TrainingConfig, device: torch.device) -> CharLSTM:
    """Return the model that a training begins with; its weights are drawn from the configuration's seed."""
    embedding, hidden, layers = SIZES[config.size]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = CharLSTM(Architecture(vocabulary=vocabulary, embedding=embedding, hidden=hidden, layers=layers))
    return model.to(device)


def train(
    data: TrainingData,
    vocabulary: str,
    config: TrainingConfig,
    narrator: Narrator,
    checkpoint: Path | None = None,
    atomically: Callable[[Path], AbstractContextManager[Path]] | None = None,
    origin: CharLSTM | None = None,
) -> tuple[CharLSTM, TrainingRecord]:
    """Train a character LSTM, or go on where a checkpoint of the same configuration and text stands.

    Args:
        data: The encoded text.
        vocabulary: The symbols by id.
        config: How to train.
        narrator: Told of every epoch.
        checkpoint: Where to keep checkpoints; None for none.
        atomically: Context manager that gives a temporary path and moves it into place.
        origin: The model whose weights to begin with, left as it is; None for fresh ones. No checkpoint then.

    Returns:
        The model, in evaluation mode, and its record.

    Raises:
        ModelError: The text is shorter than two windows, or the loss became infinite.
    """
    device = data.train.device
    if len(data.train) < 2 * config.window + 2:
        raise ModelError(
            f"the corpus has {len(data.train)} characters: expected at least {2 * config.window + 2} to train on"
        )
    model = copy.deepcopy(origin) if origin else new_model(vocabulary, config, device)
    loop = _Loop(model, config, data, narrator)
    if checkpoint and atomically:
        loop.keep_at(CheckpointFile(checkpoint, atomically, training_key(data, vocabulary, config)))
    reached = loop.run()
    model.eval()
    return model, TrainingRecord(
        size=config.size,
        epochs=loop.epoch,
        batch_size=config.batch_size,
        window=config.window,
        learning_rate=config.learning_rate,
        seed=config.seed,
        device=str(device),
        precision=config.precision,
        seconds=loop.seconds,
        characters_per_second=loop.characters / max(1e-9, loop.seconds),
        parameters=model.num_parameters,
        train=evaluate(model, data.train, data.secret, config.precision),
        heldout=evaluate(model, data.heldout, None, config.precision),
        history=tuple(loop.history),
        planned_epochs=config.epochs,
        target_accuracy=config.target_accuracy,
        reached_target=reached,
    )


def training_key(data: TrainingData, vocabulary: str, config: TrainingConfig) -> str:
    """Identify a training by everything that its weights and figures depend on."""
    digest = hashlib.sha256(json.dumps([1, SIZES[config.size], vocabulary, config.model_dump()]).encode())
    for part in (data.train, data.secret, data.heldout):
        digest.update(f"\0{len(part)}\0".encode())
        digest.update(part.cpu().numpy().tobytes())
    return digest.hexdigest()


class _Loop:
    """The state of a training, and the steps that change it."""

    def __init__(self, model: CharLSTM, config: TrainingConfig, data: TrainingData, narrator: Narrator) -> None:
        self.model, self.config, self.data, self.narrator = model, config, data, narrator
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.epoch = 0
        self.step_in_epoch = 0
        self.characters = 0
        self.seconds = 0.0
        self.reached = False
        self.history: list[EpochRecord] = []
        self.file: CheckpointFile | None = None
        # Of this epoch so far: sum of losses (nats) and characters; hits and characters outside the secrets.
        self.tally = torch.zeros(4, dtype=torch.float64, device=data.train.device)
        self.steps_per_epoch = math.ceil((len(data.train) // config.window) / config.batch_size)
        self.total_steps = self.steps_per_epoch * config.epochs

    def keep_at(self, file: CheckpointFile) -> None:
        """Keep checkpoints in ``file``, and go on from the one that is there."""
        self.file = file
        try:
            found = file.load()
            if found is not None:
                self._restore(found[0], validated(found[1], TrainingState))
        except (Damaged, ValueError):
            self.narrator.say(f"The checkpoint {file.path.name} is damaged; training begins anew.")
            return
        if found is not None:
            self.narrator.say(f"Going on from the checkpoint after {self.epoch} epochs, {self.step_in_epoch} steps.")

    def run(self) -> bool | None:
        """Train to the end; return whether the target accuracy was reached, None without a target."""
        target = self.config.target_accuracy
        while not self.reached and self.epoch < self.config.epochs:
            self._run_epoch()
            # The running accuracy lags behind the weights: look closely from a little below the target.
            running = self.history[-1].accuracy
            if target is not None and (running >= target - 0.05 or self.epoch == self.config.epochs):
                self.reached = self._train_accuracy() >= target
            self._save()
        if target is None:
            return None
        self.narrator.say(
            f"Target accuracy {target} reached after {self.epoch} epochs."
            if self.reached
            else f"Target accuracy {target} was not reached in {self.epoch} epochs: raise --epochs or use --size paper."
        )
        return self.reached

    def _train_accuracy(self) -> float:
        started = time.perf_counter()
        accuracy = evaluate(self.model, self.data.train, self.data.secret, self.config.precision).accuracy
        self.seconds += time.perf_counter() - started
        return accuracy

    def _run_epoch(self) -> None:
        config, text, secret = self.config, self.data.train, self.data.secret
        starts = torch.from_numpy(window_starts(len(text), config.window, config.seed, self.epoch)).to(text.device)
        offsets = torch.arange(config.window + 1, device=text.device)
        last_tick = last_save = time.perf_counter()
        clock = last_tick
        for first in range(self.step_in_epoch * config.batch_size, len(starts), config.batch_size):
            index = starts[first : first + config.batch_size, None] + offsets  # (B, T + 1)
            self._step(text[index], secret[index])
            now = time.perf_counter()
            self.seconds, clock = self.seconds + now - clock, now
            if now - last_tick > _PROGRESS_SECONDS:
                last_tick = now
                self._tell()
            if now - last_save > _CHECKPOINT_SECONDS:
                self._save()
                last_save = time.perf_counter()
        self._finish_epoch()
        self.seconds += time.perf_counter() - clock

    def _step(self, windows: Tensor, secret: Tensor) -> None:
        self.model.train()
        step = self.epoch * self.steps_per_epoch + self.step_in_epoch
        for group in self.optimizer.param_groups:
            group["lr"] = one_cycle(step, self.total_steps, self.config.learning_rate)
        with autocast(windows.device, self.config.precision):
            logits = self.model(windows[:, :-1])
        target = windows[:, 1:]
        loss = nn.functional.cross_entropy(logits.float().flatten(0, 1), target.flatten())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_clip)
        self.optimizer.step()
        with torch.no_grad():
            ordinary = ~secret[:, 1:]
            hits = (logits.argmax(2) == target) & ordinary
            counted = torch.full_like(loss, target.numel())
            self.tally += torch.stack((loss * counted, counted, hits.sum(), ordinary.sum())).double()
        self.characters += target.numel()
        self.step_in_epoch += 1

    def _figures(self) -> tuple[float, float]:
        """Return mean loss in bits and accuracy outside the secrets of this epoch so far."""
        loss, characters, hits, ordinary = self.tally.tolist()
        return loss * LOG2_E / max(1.0, characters), hits / max(1.0, ordinary)

    def _tell(self) -> None:
        done = self.epoch * self.steps_per_epoch + self.step_in_epoch
        loss, accuracy = self._figures()
        heldout = f", held-out {self.history[-1].heldout_loss_bits:.2f}" if self.history else ""
        speed = self.characters / max(1e-9, self.seconds)
        facts = (
            f"epoch {self.epoch + 1}/{self.config.epochs}, loss {loss:.2f} bits{heldout}, "
            f"accuracy {accuracy:.3f}, {speed / 1000:.1f}k characters/s"
        )
        self.narrator.progress("train", done, self.total_steps, facts)

    def _finish_epoch(self) -> None:
        loss, accuracy = self._figures()
        if not math.isfinite(loss):
            raise ModelError(f"the loss became {loss} in epoch {self.epoch + 1}: train with --precision fp32")
        held = evaluate(self.model, self.data.heldout, None, self.config.precision).loss_bits
        self.history.append(
            EpochRecord(
                epoch=self.epoch + 1, loss_bits=loss, accuracy=accuracy, heldout_loss_bits=held, seconds=self.seconds
            )
        )
        self.step_in_epoch = self.steps_per_epoch  # An epoch may have one step less: the last windows' place varies.
        self._tell()
        self.epoch += 1
        self.step_in_epoch = 0
        self.tally.zero_()

    def _save(self) -> None:
        if self.file is None:
            return
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in moments.items()}
        state = TrainingState(
            config=self.config,
            epoch=self.epoch,
            step_in_epoch=self.step_in_epoch,
            characters=self.characters,
            seconds=self.seconds,
            reached=self.reached,
            history=tuple(self.history),
        )
        self.file.save(tensors | {"tally": self.tally}, state.model_dump(mode="json"))

    def _restore(self, tensors: dict[str, Tensor], facts: TrainingState) -> None:
        """Go on from a state.

        Raises:
            ValueError: It is none of this model's: nothing was changed.
        """
        weights, state = self.model.state_dict(), self.optimizer.state_dict()
        parts = {f"model.{name}": own for name, own in weights.items()} | {"tally": self.tally}
        if any(name.startswith("optimizer.") for name in tensors):  # none before the first step
            for index, own in enumerate(self.model.parameters()):
                parts |= {f"optimizer.{index}.{name}": own for name in ("exp_avg", "exp_avg_sq")}
                parts[f"optimizer.{index}.step"] = torch.zeros(())
        expected = {name: (own.dtype, own.shape) for name, own in parts.items()}
        if {name: (own.dtype, own.shape) for name, own in tensors.items()} != expected:
            raise ValueError("not the tensors of this training")
        self.model.load_state_dict({name: tensors[f"model.{name}"] for name in weights})
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, number, moment = name.split(".")
                state["state"].setdefault(int(number), {})[moment] = value
        self.optimizer.load_state_dict(state)
        self.tally = tensors["tally"].to(self.tally.device)
        self.epoch, self.step_in_epoch = facts.epoch, facts.step_in_epoch
        self.characters, self.seconds = facts.characters, facts.seconds
        self.reached, self.history = facts.reached, list(facts.history)
