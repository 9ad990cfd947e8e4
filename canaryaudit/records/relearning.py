"""The ``relearning`` field of unlearning.json: whether secrets come back under further training."""

from typing import Literal

from canaryaudit.records.base import FiniteRecord, Many, Record
from canaryaudit.records.measurement import Headline, ProbeName

RelearningAttack = Literal["other-text", "canary-window"]
"""Further training on text without any secret, or with one window of the canary's text in every batch."""


class RelearningPoint(Record):
    """One canary's exposure after a number of attack steps."""

    step: int
    """Number of optimizer steps; 0 is the unchanged model."""
    log_perplexity_bits: float
    exposure: Headline
    """Measured against references redrawn for the model at this step."""


class RelearningCurve(FiniteRecord):
    """One attack on one canary, compared with the same attack on the model retrained on corrected text."""

    canary: str
    """Id of the attacked canary."""
    attack: RelearningAttack
    probe: ProbeName | None = None
    """How the attacked model was asked: by the probe that showed most of the canary before the attack; None for the
    template's own prefix."""
    retrained_probe: ProbeName | None = None
    """The same of the retrained model, which has a worst probe of its own: chance lifts both alike."""
    unlearned: Many[RelearningPoint]
    """The attacked model's points, by step, from 0."""
    retrained: Many[RelearningPoint]
    """The retrained model's points, at the same steps with the same batches."""
    excess_bits: float
    """Largest excess over the retrained model at any step, in bits: of exposure (canary-window), or of exposure gained
    since step 0 (other-text)."""
    excess_step: int
    """The step of the largest excess."""
    comes_back_at: int | None
    """First step at which the excess exceeds the margin and the intervals do not overlap; None if there is none."""

    @property
    def comes_back(self) -> bool:
        """Whether the secret comes back faster than in the retrained model."""
        return self.comes_back_at is not None


class Relearning(Record):
    """Relearning attacks on an unlearned model."""

    retrained_name: str
    """Name of the retraining that the attacks are compared with."""
    retrained_sha256: str
    """SHA-256 of the retrained model's weights."""
    optimizer: str
    learning_rate: float
    batch_size: int
    """Windows per step."""
    window: int
    """Number of characters or tokens predicted per window."""
    unit: Literal["character", "token"] = "character"
    """What is predicted."""
    steps: Many[int]
    seed: int
    batches_sha256: str
    """SHA-256 of all batches, by attack and canary: both models use the same batches."""
    other_text_margin_bits: float
    """Exposure, in bits, that other text may restore beyond its effect on the retrained model."""
    canary_window_margin_bits: float
    """Exposure, in bits, by which the model may exceed the retrained one under the canary-window attack."""
    curves: Many[RelearningCurve]
    seconds: float

    @property
    def comes_back(self) -> bool:
        """Whether any secret comes back faster than in the retrained model."""
        return any(curve.comes_back for curve in self.curves)
