"""An open run: loads its models and texts, and records its stages."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from canaryaudit import distributed, environment
from canaryaudit.canaries.insertion import run_vocabulary, secret_mask
from canaryaudit.canaries.masking import mask_arguments
from canaryaudit.exposure.probes import RunText
from canaryaudit.models.char_lstm import CharLSTM
from canaryaudit.models.ensemble import Ensemble, load_model
from canaryaudit.pipeline.stages import recorded_stage
from canaryaudit.progress import ProgressReporter
from canaryaudit.records import TRAINED_MODEL, ModelId, Stage, StageRun, UnlearningRecord
from canaryaudit.runs.run_directory import RunDirectory
from canaryaudit.training.data import TrainingData


class RunSession:
    """The open run that every stage works on.

    Attributes:
        run: The run directory, whose lock the caller holds.
        argv: The command line, for the manifest.
        progress: Receives progress.
        processes: The processes that share the work.
    """

    def __init__(self, run: RunDirectory, argv: Sequence[str], progress: ProgressReporter) -> None:
        self.run, self.argv, self.progress = run, tuple(argv), progress
        self.processes = distributed.process_group()

    def model(self, model: ModelId, device: torch.device) -> CharLSTM | Ensemble:
        """Load a model, after checking its weights against its record."""
        return load_model(self.run.model_record(model), self.run.verify_weights(model), device)

    def models(self) -> list[ModelId]:
        """Return all models that can be measured."""
        return [TRAINED_MODEL, *(ModelId(record.name) for record in self.unlearnings())]

    def unlearnings(self) -> list[UnlearningRecord]:
        """Return the unlearnings in the order in which they ran."""
        return self.run.unlearnings_in_order()

    def data(self, device: torch.device) -> tuple[TrainingData, str]:
        """Return the run's encoded text, memory-mapped on the CPU, and its vocabulary."""
        canary_set = self.run.canary_set()
        vocabulary = run_vocabulary(canary_set)
        text, heldout = self.run.text().ids(vocabulary), self.run.heldout().ids(vocabulary)
        data = TrainingData(
            train=torch.from_numpy(text).to(device),
            secret=torch.from_numpy(secret_mask(len(text), canary_set.canaries)).to(device),
            heldout=torch.from_numpy(heldout).to(device),
            sha256=(self.run.text().sha256, self.run.heldout().sha256),
        )
        return data, vocabulary.symbols

    def run_text(self) -> RunText:
        """Return the training text, from which prompts are taken."""
        canary_set = self.run.canary_set()
        vocabulary = run_vocabulary(canary_set)
        text = self.run.text().ids(vocabulary)
        return RunText(text, secret_mask(len(text), canary_set.canaries), vocabulary)

    @contextmanager
    def stage(
        self, stage: Stage, name: str = "", *, seed: int | None = None, device: str = "", precision: str = ""
    ) -> Iterator[None]:
        """Record a stage in the manifest when its work is done, before its record is written.

        Raises:
            RunDirectoryError: The run is read-only; only a report can be made of it, which is then not recorded.
        """
        with recorded_stage(
            self.run,
            self.progress,
            StageRun(
                stage=stage,
                name=name,
                argv=() if self.run.is_read_only else mask_arguments(self.argv, self.run.canary_set()),
                started=environment.utc_now(),
                seconds=0,
                seed=seed,
                device=device,
                precision=precision,
                processes=self.processes.size,
            ),
        ):
            yield
