"""The training loop: windows of text, AdamW, a one-cycle learning rate, checkpoints and resumption.

A step depends only on the configuration, the text, the weights and the optimizer's moments. The order of windows is
drawn from (seed, epoch), and the learning rate is a function of the step. A resumed training therefore ends with
exactly the weights of an uninterrupted one, on the same machine with the same number of threads and processes.
Elsewhere, sums are computed in another order and round differently.
"""

import copy
import hashlib
import json
import math
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from canaryaudit import environment
from canaryaudit.distributed import SINGLE_PROCESS, ProcessGroup, Task
from canaryaudit.errors import Damaged, Interrupted, ModelError
from canaryaudit.formatting import counted
from canaryaudit.models.char_lstm import CharLSTM
from canaryaudit.models.device import autocast
from canaryaudit.models.language_model import LOG2_E
from canaryaudit.progress import NullReporter, ProgressReporter, check_signals
from canaryaudit.records import Architecture, EpochRecord, Evaluation, TrainingRecord
from canaryaudit.storage.checkpoint import CheckpointFile
from canaryaudit.storage.json_records import validated
from canaryaudit.training.config import SIZES, TrainingConfig, TrainingState
from canaryaudit.training.data import TrainingData, majority_share
from canaryaudit.training.evaluation import evaluate
from canaryaudit.training.schedule import one_cycle, window_starts

_CHECKPOINT_SECONDS = 30.0
_PROGRESS_SECONDS = 0.5


def seconds_per_step(vocabulary_size: int, config: TrainingConfig, steps: int = 5) -> float:
    """Measure the time of one training step on random text: the fastest step after two warm-up steps."""
    text = torch.randint(vocabulary_size, (config.batch_size * config.window * 2,), device=config.device)
    data = TrainingData(train=text, secret=torch.zeros_like(text, dtype=torch.bool), heldout=text[:0])
    # The symbols are arbitrary: only their number matters.
    model = new_model("".join(map(chr, range(0x4E00, 0x4E00 + vocabulary_size))), config, text.device)
    loop = _Loop(model, config, data, NullReporter())
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
    """Return an untrained model, with weights drawn from the configuration's seed."""
    embedding, hidden, layers = SIZES[config.size]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = CharLSTM(Architecture(vocabulary=vocabulary, embedding=embedding, hidden=hidden, layers=layers))
    return model.to(device)


def train(
    data: TrainingData,
    vocabulary: str,
    config: TrainingConfig,
    progress: ProgressReporter,
    checkpoint: Path | None = None,
    origin: CharLSTM | None = None,
    processes: ProcessGroup = SINGLE_PROCESS,
) -> tuple[CharLSTM, TrainingRecord]:
    """Train a character LSTM, or resume from a checkpoint of the same configuration and text.

    Args:
        data: The encoded text.
        vocabulary: The symbols by id.
        config: How to train.
        progress: Receives progress.
        checkpoint: The checkpoint file; None for no checkpoints.
        origin: A model to copy the initial weights from, without checkpoints; None to draw new weights.
        processes: The processes that train; rank 0 calls this, the others ``train_worker``.

    Returns:
        The model, in evaluation mode, and its record.

    Raises:
        ModelError: The text is shorter than two windows, or the loss became infinite or NaN.
        PeerLost: Another process of the job ended.
    """
    device = data.train.device
    if len(data.train) < 2 * config.window + 2:
        raise ModelError(
            f"the corpus has {len(data.train)} training characters: expected at least {2 * config.window + 2}; use a "
            "longer text"
        )
    model = copy.deepcopy(origin) if origin else new_model(vocabulary, config, device)
    loop = _Loop(model, config, data, progress, processes)
    if checkpoint:
        loop.keep_at(CheckpointFile(checkpoint, training_key(data, vocabulary, config)))
    tensors, facts = loop.state()
    sizes = {"vocabulary": vocabulary, "characters": len(data.train), "heldout": len(data.heldout)}
    processes.share("train", tensors, sizes | {"state": facts.model_dump(mode="json")})
    with processes.together():
        return model, loop.finish()


def train_worker(task: Task, processes: ProcessGroup) -> None:
    """Run this process's part of a training; rank 0 sends the text, window by window."""
    facts, state = task.facts, TrainingState.model_validate_json(json.dumps(task.facts["state"]))
    config = state.config
    device = processes.device(config.device)
    # An empty view as long as rank 0's text, without memory of its size.
    text = torch.zeros(1, dtype=torch.int64, device=device).expand(facts["characters"])
    data = TrainingData(train=text, secret=text[:1].bool().expand(len(text)), heldout=text[:1].expand(facts["heldout"]))
    loop = _Loop(new_model(facts["vocabulary"], config, device), config, data, NullReporter(), processes)
    loop.restore(task.tensors, state)
    loop.finish()


def training_key(data: TrainingData, vocabulary: str, config: TrainingConfig) -> str:
    """Return an identifier of everything that a training's weights and figures depend on."""
    digest = hashlib.sha256(json.dumps([2, SIZES[config.size], vocabulary, config.model_dump()]).encode())
    for part, known in zip((data.train, data.heldout), data.sha256, strict=True):
        digest.update(f"\0{len(part)}\0{known or ''}\0".encode())
        for block in () if known else torch.split(part, 2**22):
            digest.update(block.cpu().numpy().tobytes())
    digest.update(data.secret.nonzero().cpu().numpy().tobytes())
    return digest.hexdigest()


class _Loop:
    """The state of a training, and the steps that change it."""

    def __init__(
        self,
        model: CharLSTM,
        config: TrainingConfig,
        data: TrainingData,
        progress: ProgressReporter,
        processes: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        self.model, self.config, self.data, self.progress, self.processes = model, config, data, progress, processes
        self.parallel: nn.Module = model
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
        # Totals of this epoch: losses (nats) and characters; correct predictions and characters outside the secrets.
        self.tally = torch.zeros(4, dtype=torch.float64, device=data.train.device)
        self.steps_per_epoch = math.ceil((len(data.train) // config.window) / config.batch_size)
        self.total_steps = self.steps_per_epoch * config.epochs
        self.saved = 0  # steps that a checkpoint has

    def keep_at(self, file: CheckpointFile) -> None:
        """Keep checkpoints in ``file``, and resume from an existing one."""
        self.file = file
        try:
            contents = file.load()
            if contents is not None:
                self.restore(contents[0], validated(contents[1], TrainingState))
        except (Damaged, ValueError):
            self.progress.info(f"The checkpoint {file.path.name} is damaged; restarting training.")
            return
        if contents is not None:
            self.saved = self.epoch * self.steps_per_epoch + self.step_in_epoch
            self.progress.info(f"Resuming from a checkpoint after {self.epoch} epochs, {self.step_in_epoch} steps.")

    def finish(self) -> TrainingRecord:
        """Train to the end; return the record, with the final evaluation."""
        # Every step allocates the same large tensors: clearing their pages would take a fifth of the time.
        environment.keep_freed_memory()
        self._share_steps()
        try:
            reached = self._run()
        except Interrupted as error:
            error.kept = self._kept()
            raise
        self.model.eval()
        config = self.config
        return TrainingRecord(
            size=config.size,
            epochs=self.epoch,
            batch_size=config.batch_size,
            window=config.window,
            learning_rate=config.learning_rate,
            seed=config.seed,
            device=self.data.train.device.type,
            precision=config.precision,
            seconds=self.seconds,
            characters_per_second=self.characters / max(1e-9, self.seconds),
            parameters=self.model.num_parameters,
            train=self._evaluated(self.data.train, self.data.secret),
            heldout=self._evaluated(self.data.heldout, None),
            history=tuple(self.history),
            baseline_accuracy=majority_share(self.data),
            planned_epochs=config.epochs,
            target_accuracy=config.target_accuracy,
            reached_target=reached,
        )

    def _kept(self) -> str:
        """Return what is left of the training if it ends now, as a clause."""
        steps = self.epoch * self.steps_per_epoch + self.step_in_epoch - self.saved
        if not steps:
            return "finished work is kept"
        since = "since the last checkpoint" if self.saved else "before its first checkpoint"
        return f"{counted(steps, 'step')} of the training {since} will be repeated"

    def _share_steps(self) -> None:
        """Share every step among the ranks."""
        if self.processes.size == 1:
            return
        self.parallel = self.processes.data_parallel(self.model)
        # After the first step, PyTorch regroups the gradient buckets, which changes how the sums over ranks round. Two
        # dummy steps make sure that no step of an interrupted training is the first one.
        dummy = torch.zeros(1, self.config.window, dtype=torch.int64, device=self.data.train.device)
        for _ in range(2):
            with autocast(dummy.device, self.config.precision):
                logits = self.parallel(dummy)
            (0 * logits.float().sum()).backward()
        self.optimizer.zero_grad(set_to_none=True)

    def _evaluated(self, symbols: Tensor, secret: Tensor | None) -> Evaluation:
        return evaluate(self.model, symbols, secret, self.config.precision, processes=self.processes)

    def _run(self) -> bool | None:
        """Train to the end; return whether the target accuracy was reached, None without a target."""
        target = self.config.target_accuracy
        while not self.reached and self.epoch < self.config.epochs:
            self._run_epoch()
            # The running accuracy lags behind the weights, so evaluate exactly from slightly below the target.
            running = self.history[-1].accuracy
            if target is not None and (running >= target - 0.05 or self.epoch == self.config.epochs):
                self.reached = self._train_accuracy() >= target
            self._save()
        if target is None:
            return None
        self.progress.info(
            f"Target accuracy {target} reached after {self.epoch} epochs."
            if self.reached
            else f"Target accuracy {target} was not reached in {self.epoch} epochs: raise --epochs or use --size paper."
        )
        return self.reached

    def _train_accuracy(self) -> float:
        started = time.perf_counter()
        accuracy = self._evaluated(self.data.train, self.data.secret).accuracy
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
            windows, hidden = text[index].long(), secret[index]
            self.processes.broadcast(windows)
            self.processes.broadcast(hidden)
            self._step(windows, hidden)
            now = time.perf_counter()
            self.seconds, clock = self.seconds + now - clock, now
            if now - last_tick > _PROGRESS_SECONDS:
                last_tick = now
                self._report()
            if now - last_save > _CHECKPOINT_SECONDS:
                self._save()
                last_save = time.perf_counter()
        self._finish_epoch()
        self.seconds += time.perf_counter() - clock

    def _step(self, windows: Tensor, secret: Tensor) -> None:
        check_signals()
        self.model.train()
        step = self.epoch * self.steps_per_epoch + self.step_in_epoch
        for group in self.optimizer.param_groups:
            group["lr"] = one_cycle(step, self.total_steps, self.config.learning_rate)
        self.characters += windows[:, 1:].numel()
        local = self.processes.part(len(windows))
        # Each rank scales the mean over its windows by its share of the batch, and the mean over ranks is the mean over
        # the batch. A rank without a window of a short batch uses one window with weight 0.
        share = self.processes.size * (local.stop - local.start) / len(windows)
        if share == 0:
            local = slice(0, 1)
        windows, secret = windows[local], secret[local]
        with autocast(windows.device, self.config.precision):
            logits = self.parallel(windows[:, :-1])
        target = windows[:, 1:]
        loss = nn.functional.cross_entropy(logits.float().flatten(0, 1), target.flatten())
        self.optimizer.zero_grad(set_to_none=True)
        (share * loss).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_clip)
        self.optimizer.step()
        with torch.no_grad():
            ordinary = ~secret[:, 1:]
            hits = (logits.argmax(2) == target) & ordinary
            counted = torch.full_like(loss, target.numel())
            sums = torch.stack((loss * counted, counted, hits.sum(), ordinary.sum())).double() * (share > 0)
            self.processes.total(sums)
            self.tally += sums
        self.step_in_epoch += 1

    def _figures(self) -> tuple[float, float]:
        """Return this epoch's mean loss in bits, and its accuracy outside the secrets, so far."""
        loss, characters, hits, ordinary = self.tally.tolist()
        return loss * LOG2_E / max(1.0, characters), hits / max(1.0, ordinary)

    def _report(self) -> None:
        done = self.epoch * self.steps_per_epoch + self.step_in_epoch
        loss, accuracy = self._figures()
        known = self.history and len(self.data.heldout)
        heldout = f", held-out {self.history[-1].heldout_loss_bits:.2f}" if known else ""
        speed = self.characters / max(1e-9, self.seconds)
        facts = (
            f"epoch {self.epoch + 1}/{self.config.epochs}, loss {loss:.2f} bits{heldout}, "
            f"accuracy {accuracy:.3f}, {speed / 1000:.1f}k characters/s"
        )
        self.progress.update("train", done, self.total_steps, facts)

    def _finish_epoch(self) -> None:
        loss, accuracy = self._figures()
        if not math.isfinite(loss):
            raise ModelError(
                f"the loss became {loss} in epoch {self.epoch + 1}: expected a finite loss; train with --precision fp32"
            )
        held = self._evaluated(self.data.heldout, None).loss_bits
        self.history.append(
            EpochRecord(
                epoch=self.epoch + 1, loss_bits=loss, accuracy=accuracy, heldout_loss_bits=held, seconds=self.seconds
            )
        )
        self.step_in_epoch = self.steps_per_epoch  # An epoch may have one step less: the number of windows varies.
        self._report()
        self.epoch += 1
        self.step_in_epoch = 0
        self.tally.zero_()

    def _save(self) -> None:
        if self.file:
            tensors, facts = self.state()
            self.file.save(tensors, facts.model_dump(mode="json"))
            self.saved = self.epoch * self.steps_per_epoch + self.step_in_epoch

    def state(self) -> tuple[dict[str, Tensor], TrainingState]:
        """Return all that later steps depend on: tensors and the training state."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in moments.items()}
        facts = TrainingState(
            config=self.config,
            epoch=self.epoch,
            step_in_epoch=self.step_in_epoch,
            characters=self.characters,
            seconds=self.seconds,
            reached=self.reached,
            history=tuple(self.history),
        )
        return tensors | {"tally": self.tally}, facts

    def restore(self, tensors: dict[str, Tensor], facts: TrainingState) -> None:
        """Restore the result of ``state``.

        Raises:
            ValueError: It is not a state of this model; nothing was changed.
        """
        weights, state = self.model.state_dict(), self.optimizer.state_dict()
        parts = {f"model.{name}": weight for name, weight in weights.items()} | {"tally": self.tally}
        if any(name.startswith("optimizer.") for name in tensors):  # none before the first step
            for index, parameter in enumerate(self.model.parameters()):
                parts |= {f"optimizer.{index}.{name}": parameter for name in ("exp_avg", "exp_avg_sq")}
                parts[f"optimizer.{index}.step"] = torch.zeros(())
        expected = {name: (tensor.dtype, tensor.shape) for name, tensor in parts.items()}
        if {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()} != expected:
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
