"""What an update method gets, and what it gives back."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from canaryaudit.models.char_lstm import CharLSTM
from canaryaudit.progress import ProgressReporter
from canaryaudit.records import UpdateStep
from canaryaudit.training.data import TrainingData
from canaryaudit.unlearning.config import UnlearningConfig
from canaryaudit.unlearning.correction import Correction
from canaryaudit.unlearning.curvature.kronecker import KroneckerCurvature
from canaryaudit.unlearning.occurrences import Occurrence


@dataclass(frozen=True)
class MethodInput:
    """A copy of the model that a method changes in place, and all that it may use.

    Attributes:
        model: The model to start from; it is left as it is.
        updated: Its copy.
        data: The text that the model was trained on.
        places: Where the secrets occur in it.
        correction: Windows of the text as it was, and with replacements.
        retained: Windows that no secret touches, shape (W, T + 1): of the corpus, or sampled from the model.
        config: How to unlearn.
        rng: The request's random numbers.
        progress: Told of progress.
        kept: Where the canaries stand that are to stay.
        curvature: The stored one of the trained model, which the solver ``kronecker`` needs.
        retraining_seconds: What training took; 0 where that is not known.
        caution: How many times as much the stored curvature counts beside its damping.
    """

    model: CharLSTM
    updated: CharLSTM
    data: TrainingData
    places: list[Occurrence]
    correction: Correction
    retained: Tensor
    config: UnlearningConfig
    rng: np.random.Generator
    progress: ProgressReporter
    curvature: KroneckerCurvature | None = None
    kept: tuple[Occurrence, ...] = ()
    retraining_seconds: float = 0.0
    caution: float = 1.0


@dataclass(frozen=True)
class MethodResult:
    """What a method did to the copy, how long it took, and which canaries it left alone, as not remembered."""

    steps: list[UpdateStep]
    gradients: float
    products: int
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    left_alone: tuple[str, ...] = ()

    def then(self, other: "MethodResult") -> "MethodResult":
        """Return what both did, one after the other."""
        return MethodResult(
            self.steps + other.steps,
            self.gradients + other.gradients,
            self.products + other.products,
            self.notes + other.notes,
            self.seconds + other.seconds,
            tuple(name for name in self.left_alone if name in other.left_alone),
        )
