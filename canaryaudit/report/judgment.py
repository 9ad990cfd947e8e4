"""Parts of the summary that judge the audit as a whole, and what every part is made of."""

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict

from canaryaudit.report.verdicts import Verdict


def _readable(value: Any) -> Any:
    """Round a number to seven digits, more than any measurement has; None if it is not finite."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.7g}") if math.isfinite(value) else None


Figure = Annotated[float | None, BeforeValidator(_readable)]
"""A number, or None if it is missing, infinite or undefined."""
Number = Annotated[float, BeforeValidator(_readable)]
"""A number that is never missing."""


GateStatus = Literal["passed", "failed", "inconclusive"]


def _thousandths(value: Any) -> Any:
    return round(value, 3) if isinstance(value, float) and math.isfinite(value) else _readable(value)


Thousandths = Annotated[float | None, BeforeValidator(_thousandths)]
"""A figure that occurs so often that more digits would only make the files large."""


class Part(BaseModel):
    """Base of all parts: immutable, without unknown fields, and with numbers that JSON can represent."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class Fact(Part):
    """A named fact as text."""

    name: str
    value: str


class Gate(Part):
    """Whether a pipeline passes."""

    fail_above_bits: float | None
    """Largest exposure allowed for an inserted canary, in bits; no canary may be exposed. None without a limit."""
    baseline: str | None = None
    """Run of the baseline report: this one must not be worse. None without a baseline."""
    status: GateStatus
    """``passed`` only for a verified, complete and calibrated measurement."""
    reasons: tuple[str, ...]
    """Why the gate failed; empty if it did not."""
    doubts: tuple[str, ...] = ()
    """Why the figures do not allow the gate to pass; empty if they do."""

    @property
    def passed(self) -> bool:
        """Whether it passed."""
        return self.status == "passed"

    @property
    def remarks(self) -> tuple[str, ...]:
        """Why it did not pass."""
        return self.reasons + self.doubts

    @property
    def name(self) -> str:
        """The gate's conditions as text."""
        limits = [] if self.fail_above_bits is None else [f"at most {self.fail_above_bits:g} bits, none exposed"]
        limits += [] if self.baseline is None else [f"no worse than the report of {self.baseline}"]
        return " and ".join(limits)


class DetectionFigures(Part):
    """The test of all canaries of the last model, and what it could have detected."""

    pvalue: Figure
    """p-value of the hypothesis that the model saw none of the secrets, corrected for the number of tests. Memorization
    is detected if it is below 5 %."""
    joint_test: str
    """Name of the joint test."""
    joint_pvalue: Figure
    """p-value of the joint test of all canaries; with closing texts, of both joint tests."""
    closing_joint_pvalue: Figure = None
    """p-value of the joint test of the closing texts alone; None if they were not measured."""
    smallest_pvalue: Figure
    """Smallest p-value of one canary."""
    corrected_pvalue: Figure
    """The same with Holm's correction for the number of canaries."""
    named: tuple[str, ...]
    """Ids of the canaries that are distinguishable from unseen secrets on their own."""
    detected: bool
    """Whether the canaries are distinguishable from unseen secrets, together or one by one."""
    detectable_bits: Figure
    """Smallest exposure of one secret, with its template's prefix, that the test detects with a probability of 80 %;
    None if not even a secret that is the most likely member of the smallest space would be detected."""
    detectable_mean_bits: Figure
    """Mean exposure of all secrets that the test detects with a probability of 80 %; None for a single canary."""


class Overall(Part):
    """The verdict on the whole audit, with its reasons."""

    verdict: Verdict
    headline: str
    sentences: tuple[str, ...]
    rule: tuple[Fact, ...]
    detection: DetectionFigures | None
    """None if there is nothing to test."""
    shows_little: tuple[str, ...] = ()
    """Why it shows little that nothing was detected; empty if it shows something."""
    faults: tuple[str, ...] = ()
    """Why the run's records are not to be relied on; empty if they are as they were written."""
