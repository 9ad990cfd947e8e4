"""Exposure of a run's canaries while a model is trained: in the trainer of ``transformers``, and in other loops."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from canaryaudit.errors import ModelError
from canaryaudit.exposure import MeasurementConfig, measure
from canaryaudit.models.huggingface import HuggingFaceModel
from canaryaudit.records import Measurement
from canaryaudit.runs.run_directory import RunDirectory

if TYPE_CHECKING:
    TrainerCallback = Any
else:
    try:
        from transformers import TrainerCallback
    except ImportError:
        raise ModelError("transformers is not installed: install it with pip install 'canaryaudit[hf]'") from None

QUICK = MeasurementConfig(
    estimators=("exact", "sampled"), num_references=500, enumerate_up_to=2_000, search_budget=500, time_limit=0
)
"""Seconds for a small model: a memorized secret's rank is exact, any other's is sampled."""


def training_exposure(
    run: str | Path, model: Any, tokenizer: Any, config: MeasurementConfig = QUICK
) -> dict[str, float]:
    r"""Return the exposure of a run's canaries under a model in training, for a training log.

    The model is left in the mode that it was in, and no random numbers of torch are drawn: training goes on as if it
    had not been asked.

    Args:
        run: Run directory made by ``canaryaudit insert``.
        model: A causal model of ``transformers``, or one with a PEFT adapter.
        tokenizer: Its fast tokenizer.
        config: How to measure.

    Returns:
        Bits by name: the mean and the largest exposure of all canaries, the mean by repetitions, and that of controls,
        which is 1.44 if the measurement is right.

    Raises:
        RunDirectoryError: There is no such run.
        ModelError: The model cannot read a template's prompt.

    Examples:
        >>> import tempfile
        >>> from canaryaudit.pipeline.insert import make_run
        >>> from canaryaudit.plan import InsertOptions
        >>> folder = tempfile.TemporaryDirectory()
        >>> notes = Path(folder.name, "notes.txt")
        >>> _ = notes.write_text("the tide turns at noon\n\n" * 60)
        >>> options = InsertOptions(corpus=str(notes), template=("code {digits:2}.",), canaries=1, repetitions=(2,))
        >>> run, _ = make_run(Path(folder.name, "run"), options, [])
        >>> from tokenizers import Tokenizer, models
        >>> from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
        >>> symbols = {symbol: index for index, symbol in enumerate("0123456789 .abcdefghijklmnopqrstuvwxyz\n")}
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(symbols, [])))
        >>> sizes = {"n_embd": 8, "n_layer": 1, "n_head": 1, "bos_token_id": 0, "eos_token_id": 0}
        >>> model = GPT2LMHeadModel(GPT2Config(vocab_size=len(symbols), **sizes))
        >>> sorted(training_exposure(run.path, model, tokenizer))
        ['exposure/controls', 'exposure/max', 'exposure/mean', 'exposure/repetitions-2']
        >>> folder.cleanup()
    """
    directory, training = RunDirectory.open(Path(run)), model.training
    model.eval()
    try:
        measured = measure(HuggingFaceModel(model, tokenizer), directory.canary_set(), config)
    finally:
        model.train(training)
    return _figures(measured)


def _figures(measured: Measurement) -> dict[str, float]:
    inserted = [own for own in measured.canaries if not own.control]
    bits = [own.exposure.bits for own in inserted]
    found = {"exposure/mean": sum(bits) / len(bits), "exposure/max": max(bits)}
    for count in sorted({own.repetitions for own in inserted}):
        alike = [own.exposure.bits for own in inserted if own.repetitions == count]
        found[f"exposure/repetitions-{count}"] = sum(alike) / len(alike)
    if measured.calibration:
        found["exposure/controls"] = measured.calibration.mean_bits
    return found


class ExposureCallback(TrainerCallback):  # type: ignore[misc]
    r"""Logs the exposure of a run's canaries every so many steps, and at the end of the training.

    Attach it to the trainer: ``ExposureCallback("runs/chats", every=100).attach(trainer)``. The figures then go
    wherever the trainer reports to (TensorBoard, Weights & Biases, MLflow and so on).

    Args:
        run: Run directory made by ``canaryaudit insert``.
        every: Steps between measurements.
        tokenizer: The fast tokenizer; the trainer's ``processing_class`` if not given.
        config: How to measure.

    Examples:
        >>> import tempfile
        >>> from canaryaudit.pipeline.insert import make_run
        >>> from canaryaudit.plan import InsertOptions
        >>> folder = tempfile.TemporaryDirectory()
        >>> notes = Path(folder.name, "notes.txt")
        >>> _ = notes.write_text("the tide turns at noon\n\n" * 60)
        >>> options = InsertOptions(corpus=str(notes), template=("code {digits:2}.",), canaries=1, repetitions=(2,))
        >>> run, _ = make_run(Path(folder.name, "run"), options, [])
        >>> ExposureCallback(run.path, every=100).history  # filled while the trainer runs
        []
        >>> folder.cleanup()
    """

    def __init__(
        self, run: str | Path, every: int = 500, tokenizer: Any = None, config: MeasurementConfig = QUICK
    ) -> None:
        if every < 1:
            raise ModelError(f"expected at least 1 step between measurements, got {every}")
        RunDirectory.open(Path(run))  # A wrong path is told before the training.
        self.run, self.every, self.tokenizer, self.config = run, every, tokenizer, config
        self.history: list[dict[str, float]] = []
        self._trainer: Any = None

    def attach(self, trainer: Any) -> "ExposureCallback":
        """Add this to a trainer, and log through it."""
        self._trainer = trainer
        trainer.add_callback(self)
        return self

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:  # noqa: ARG002 -- its interface
        """Measure after every so many steps."""
        if state.global_step % self.every == 0:
            self._measure(state, others)

    def on_train_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:  # noqa: ARG002
        """Measure the trained model, unless that was done after its last step."""
        if not self.history or self.history[-1]["step"] != state.global_step:
            self._measure(state, others)

    def _measure(self, state: Any, others: dict[str, Any]) -> None:
        if not state.is_world_process_zero:
            return
        tokenizer = self.tokenizer or others.get("processing_class") or others.get("tokenizer")
        if tokenizer is None:
            raise ModelError("the trainer has no tokenizer: give ExposureCallback its own, tokenizer=...")
        figures = training_exposure(self.run, others["model"], tokenizer, self.config)
        self.history.append({"step": state.global_step, **figures})
        if self._trainer is not None:
            self._trainer.log(dict(figures))
        else:
            state.log_history.append({**figures, "step": state.global_step})
