"""Verify a run on images: its rows, canaries and networks; measurements are computed again from weights and rows."""

from collections.abc import Callable
from pathlib import Path

from canaryaudit.errors import CanaryAuditError
from canaryaudit.records import ImagesManifest, ModelId
from canaryaudit.records.images import ImageMeasurement, ImageModelRecord, RelabelingRecord
from canaryaudit.runs import layout
from canaryaudit.runs.findings import PROBLEMS, State, Verification, Verifier, run_verifier
from canaryaudit.runs.image_directory import ImageDirectory, ImageRepairs
from canaryaudit.storage.files import sha256_of

Shapes = dict[str, tuple[int, ...]]


class ImageChecks:
    """What the verifier cannot know, as it has no network.

    Args:
        shapes: Returns the shapes of the weights of a trained model's record.
        figures: Returns what is wrong with a measurement's figures, or an empty text.
    """

    def __init__(
        self,
        shapes: Callable[[ImageModelRecord], Shapes],
        figures: Callable[[ImageDirectory, ImageMeasurement], str],
    ) -> None:
        self.shapes, self.figures = shapes, figures


def verify_image_run(
    path: Path,
    *,
    checks: ImageChecks,
    key: bytes | None = None,
    sign: bool = False,
    reseal: bool = False,
    is_locked: bool = False,
) -> Verification:
    """Check every file of the run directory of images.

    Args:
        path: The run directory.
        checks: Computes a measurement's figures again.
        key: Of the signature, which must then be valid; None to leave it unchecked.
        sign: Sign the run with the key, if everything else is sound.
        reseal: Record the checksums of records that have none, if everything else is sound.
        is_locked: Whether the caller holds the run's lock.

    Raises:
        RunDirectoryError: It is not a run directory, or another command uses it.
    """
    verifier = _ImageVerifier(path, checks, None if sign else key, reseal=reseal)
    return run_verifier(verifier, key=key, sign=sign, is_locked=is_locked)


class _ImageVerifier(Verifier):
    """Checks a run on images."""

    run: ImageDirectory

    def __init__(self, path: Path, checks: ImageChecks, key: bytes | None, *, reseal: bool) -> None:
        super().__init__(ImageDirectory(path), ImageRepairs, key, reseal=reseal)
        self.checks = checks
        self.is_computable = False

    def check_inserted(self, manifest: ImagesManifest) -> None:
        """Check the rows, and the record of classes and canaries."""
        path, repair = self.path / layout.PIXELS, self.repairs.insert(layout.PIXELS)
        sound = self._is_there(path, repair)
        if sound:
            sound = sha256_of(path) == manifest.images.rows_sha256
            fault = "these are not the images whose labels were flipped"
            self._note(path, *(("sound", "", "") if sound else ("damaged", fault, repair)))
        path, repair = self.path / layout.IMAGES, self.repairs.insert(layout.IMAGES)
        if self._is_there(path, repair) and self._is_sealed(path, repair):
            self.is_computable = sound and self._read(path, self.run.images, repair) is not None

    def shapes(
        self,
        model: ImageModelRecord,
        unlearning: RelabelingRecord | None = None,  # noqa: ARG002
    ) -> Shapes | None:
        """Return the shapes of a network's weights."""
        return self.checks.shapes(model)

    def measurement_fault(self, model: ModelId, measurement: ImageMeasurement) -> tuple[State, str]:
        """Compute a measurement's figures again."""
        if not self.is_computable or model not in self.models:
            return "sound", ""
        try:
            fault = self.checks.figures(self.run, measurement)
        except CanaryAuditError as error:
            if any(finding.state in PROBLEMS for finding in self.findings):  # what it needs is damaged, and noted
                return "sound", ""
            return "damaged", f"its figures cannot be computed again: {str(error).partition(': verify')[0]}"
        return ("damaged", fault) if fault else ("sound", "")

    def unlearning_fault(self, record: RelabelingRecord) -> tuple[State, str]:
        """Compare what an update was judged by with the training."""
        if self.trained and record.training_seconds != self.trained.seconds:
            return "damaged", "the training that it is compared with is not the run's"
        return "sound", ""

    def check_attack(self, name: str, record: RelabelingRecord) -> None:
        """Networks on images are not attacked by relearning."""

    def check_work(self) -> None:
        """Nothing else is kept."""
