"""images.json: what corrected labels did to a network, beside other ways to the same labels."""

from canaryaudit.formatting import percent
from canaryaudit.report.judgment import Figure, GateStatus, Number, Part
from canaryaudit.report.tables.schema import CoinFigures

IMAGES_VERSION = 1
LARGEST_ERROR = 0.25
"""Standard error of a restored share up to which the headline tells it: above, so little was lost that it is noise."""


class ImageResultLine(Part):
    """One model with corrected labels."""

    name: str
    origin: str
    """Model that it started from."""
    method: str
    words: str
    """What was done."""
    corrected: int
    """Labels corrected by the request and all before it."""
    comparable: bool
    """Whether its labels are those of the result that the report is about."""
    accuracy: Number
    """On the images held out, or else the training images."""
    f1: Number
    restored: Figure
    """Share of the accuracy lost to wrong labels that came back: 0 before, 1 in the retrained network. None without a
    retrained network with the same labels, or if it is no better than before."""
    restored_error: Figure
    """Its standard error, at most, from the number of images."""
    flipped_right: Figure
    """Share of rows with a flipped label that get their own label."""
    flipped_wrong: Figure
    kept_right: Number
    residual: Figure
    """Norm of the gradient that the exact output layer left, for each image."""
    seconds: Number
    """Processor time of the request and all before it."""
    cost: Number
    """The same as a share of the training's time."""


class ImageGate(Part):
    """Whether a pipeline passes."""

    fail_auc: Number
    """Largest AUC allowed of flipped labels against controls, in either direction."""
    status: GateStatus
    """``passed`` only if all records are verified and the AUC is small enough."""
    reasons: tuple[str, ...]
    doubts: tuple[str, ...]

    @property
    def remarks(self) -> tuple[str, ...]:
        """Why it did not pass."""
        return self.reasons + self.doubts


class ImagesSummary(Part):
    """images.json."""

    schema_version: int = IMAGES_VERSION
    images: str
    """Name of the file or folder."""
    run: str
    """Name of the run directory."""
    target: str
    classes: int
    rows: int
    """Training images."""
    evaluated_on: str
    """``images held out`` or ``training images``."""
    parameters: int
    training_seconds: Number
    accuracy_before: Number
    f1_before: Number
    majority_accuracy: Number
    """Of the constant classifier."""
    flipped_right_before: Figure
    flipped_wrong_before: Figure
    kept_right_before: Number
    result: str
    """The unlearning that the report is about."""
    results: tuple[ImageResultLine, ...]
    """All unlearnings, in order."""
    coins: CoinFigures | None
    """Whether the result tells which labels were flipped; None without flipped labels."""
    gate: ImageGate | None
    faults: tuple[str, ...]
    """Why the run's records are not to be relied on; empty if they are as they were written."""
    signed: bool
    """Whether a signature was checked."""
    versions: tuple[str, ...]
    limits: tuple[str, ...]

    @property
    def main(self) -> ImageResultLine:
        """The line of the result that the report is about."""
        return next(line for line in self.results if line.name == self.result)

    @property
    def retrained(self) -> ImageResultLine | None:
        """The retrained network with the same labels, if there is one."""
        return next((line for line in self.results if line.method == "retrain" and line.comparable), None)

    @property
    def cheaper_retraining(self) -> ImageResultLine | None:
        """The retrained network if it took no more time than the result; None if it took more, or there is none."""
        found, main = self.retrained, self.main
        return found if found and main.method != "retrain" and found.seconds <= main.seconds else None

    @property
    def is_better(self) -> bool:
        """Whether the result is better on the evaluated images than before."""
        return self.main.accuracy > self.accuracy_before

    @property
    def headline(self) -> str:
        """The result in one sentence."""
        main = self.main
        if main.restored is not None and (main.restored_error or 0.0) <= LARGEST_ERROR:
            return (
                f"{percent(main.restored, 0)} of the accuracy lost to wrong labels is back, for "
                f"{100 * main.cost:.1f} % of the training's time."
            )
        change = 100 * (main.accuracy - self.accuracy_before)
        return f"Accuracy changed by {change:+.2f} points, for {100 * main.cost:.1f} % of the training's time."
