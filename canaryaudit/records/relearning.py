"""The ``relearning`` of unlearning.json: whether secrets come back when the model is trained further."""

from typing import Literal

from canaryaudit.records.base import Many, Record
from canaryaudit.records.measurement import Headline, ProbeName

RelearningAttack = Literal["other-text", "canary-window"]
"""Training further on text without any secret, or with one window of the canary's own text in every batch."""


class RelearningPoint(Record):
    """One canary's exposure after so many steps of an attack."""

    step: int
    """Optimizer steps taken; 0 is the model as it was handed over."""
    log_perplexity_bits: float
    exposure: Headline
    """Against references drawn afresh from the model as it is at this step."""


class RelearningCurve(Record):
    """One attack on one canary, beside the same attack on the model retrained on corrected text."""

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
    """The retrained model's, at the same steps and after the very same batches."""
    excess_bits: float
    """Largest excess over the retrained model at any step: of exposure (canary-window), or of exposure gained since
    step 0 (other-text)."""
    excess_step: int
    """The step of that largest excess."""
    comes_back_at: int | None
    """First step at which the excess is over the margin and the intervals exclude chance; None where there is none."""

    @property
    def comes_back(self) -> bool:
        """Whether the secret comes back sooner than in the retrained model."""
        return self.comes_back_at is not None


class Relearning(Record):
    """Relearning attacks on an unlearned model."""

    retrained_name: str
    """The unlearning by retraining that the attacks are compared with."""
    retrained_sha256: str
    """SHA-256 of that model's weights."""
    optimizer: str
    learning_rate: float
    batch_size: int
    """Windows a step."""
    window: int
    """Characters that one window predicts."""
    steps: Many[int]
    seed: int
    batches_sha256: str
    """SHA-256 of all batches, by attack and canary: both models were trained on these."""
    other_text_margin_bits: float
    """Exposure that other text may bring back beyond what it does in the retrained model."""
    canary_window_margin_bits: float
    """Exposure by which the model may lie above the retrained one under the attack with the canary's window."""
    curves: Many[RelearningCurve]
    seconds: float

    @property
    def comes_back(self) -> bool:
        """Whether any attack brings any secret back sooner than in the retrained model."""
        return any(curve.comes_back for curve in self.curves)
