"""Verify a run on images: its rows, canaries and networks."""

from canaryaudit.records.images import ImageModelRecord, ImagesRecord, RelabelingRecord
from canaryaudit.runs.findings import State
from canaryaudit.runs.image_directory import ImageDirectory
from canaryaudit.runs.rows_verification import RowsVerifier, Shapes


class ImageVerifier(RowsVerifier):
    """Checks a run on images."""

    directory = ImageDirectory
    strange = "these are not the images whose labels were flipped"

    def note_record(self, record: ImagesRecord) -> None:
        """A network's shapes are in its own record."""

    def shapes(
        self,
        model: ImageModelRecord,
        unlearning: RelabelingRecord | None = None,  # noqa: ARG002
    ) -> Shapes | None:
        """Return the shapes of a network's weights."""
        return self.checks.shapes(model) if self.checks.shapes else None

    def unlearning_fault(self, record: RelabelingRecord) -> tuple[State, str]:
        """Compare what an update was judged by with the training."""
        if self.trained and record.training_seconds != self.trained.seconds:
            return "damaged", "the training that it is compared with is not the run's"
        return "sound", ""

    def check_work(self) -> None:
        """Nothing else is kept."""
