"""An open run on images: its rows, labels and networks, and its stages."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from canaryaudit import environment
from canaryaudit.errors import RunDirectoryError
from canaryaudit.images.network import make_network
from canaryaudit.images.reading import as_codes
from canaryaudit.images.rows import ImageRows
from canaryaudit.models.weights import load_into
from canaryaudit.pipeline.stages import recorded_stage
from canaryaudit.progress import ProgressReporter
from canaryaudit.records import TRAINED_MODEL, ModelId, Stage, StageRun
from canaryaudit.records.images import CorrectionRecord, ImageModelRecord, ImagesRecord, RelabelingRecord
from canaryaudit.runs.image_directory import ImageDirectory


class ImageSession:
    """The open run that every stage works on.

    Attributes:
        run: The run directory, whose lock the caller holds.
        argv: The command line, for the manifest.
        progress: Receives progress.
    """

    def __init__(self, run: ImageDirectory, argv: Sequence[str], progress: ProgressReporter) -> None:
        self.run, self.argv, self.progress = run, tuple(argv), progress

    @cached_property
    def record(self) -> ImagesRecord:
        """What the rows and canaries are."""
        return self.run.record()

    @cached_property
    def rows(self) -> ImageRows:
        """All rows."""
        return ImageRows.of(self.run.rows(), self.record)

    def training_images(self) -> Tensor:
        """Return the bytes of the training images, shape (N, H, W, C)."""
        return torch.from_numpy(self.rows.pixels[self.rows.training])

    def labels(self, requests: Sequence[CorrectionRecord] = ()) -> Tensor:
        """Return the training labels after some requests, shape (N,)."""
        labels = self.rows.labels[self.rows.training].copy()
        for request in requests:
            if request.rows and max(request.rows) >= len(labels):
                raise RunDirectoryError(f"a request of {self.run.path} names rows that it has not: {self.run.see_how}")
            if not {*request.labels} <= {*self.record.classes}:
                raise RunDirectoryError(f"a request of {self.run.path} has unknown labels: {self.run.see_how}")
            labels[list(request.rows)] = as_codes(request.labels, self.record.classes)
        return torch.from_numpy(labels)

    def heldout(self) -> tuple[Tensor, Tensor]:
        """Return the bytes of the images held out, and their labels."""
        places = np.flatnonzero(self.rows.heldout)
        return torch.from_numpy(self.rows.pixels[places]), torch.from_numpy(self.rows.labels[places])

    # --- models

    def models(self) -> list[ModelId]:
        """Return all models that can be measured."""
        return [TRAINED_MODEL, *(ModelId(record.name) for record in self.run.unlearnings_in_order())]

    def model(self, model: ModelId, device: torch.device) -> nn.Sequential:
        """Load a network, after checking its weights against its record."""
        trained = self.run.trained_model()
        return load_into(lambda: make_network(trained.network), self.run.verify_weights(model), device)

    def lineage(self, model: ModelId) -> tuple[RelabelingRecord, ...]:
        """Return the unlearnings that led to a model, the latest last.

        Raises:
            RunDirectoryError: There is no such model.
        """
        if model.unlearning is None:
            return ()
        lineage = self.run.lineage(model.unlearning)
        if not lineage:
            raise RunDirectoryError(f"{self.run.path} has no model '{model}': {self.run.see_how}")
        return lineage

    def requests(self, model: ModelId) -> list[CorrectionRecord]:
        """Return the requests that led to a model."""
        return [record.request for record in self.lineage(model)]

    @contextmanager
    def stage(
        self, stage: Stage, name: str = "", *, seed: int | None = None, device: str = "cpu", precision: str = ""
    ) -> Iterator[None]:
        """Record a stage in the manifest when its work is done, before its record is written."""
        facts = StageRun(
            stage=stage,
            name=name,
            argv=self.argv,
            started=environment.utc_now(),
            seconds=0,
            seed=seed,
            device=device,
            precision=precision,
        )
        with recorded_stage(self.run, self.progress, facts):
            yield


def weight_shapes(record: ImageModelRecord) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of a network's weights, without making them."""
    with torch.device("meta"):
        network = make_network(record.network)
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}
