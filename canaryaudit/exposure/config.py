"""How to measure exposure."""

from pydantic import Field, field_validator

from canaryaudit.errors import UsageError
from canaryaudit.plan import MeasurementSettings
from canaryaudit.records import EstimatorName, ProbeEffort

MIN_REFERENCES = 50
"""Random completions that must be left when those of inserted canaries are taken out."""


class MeasurementConfig(MeasurementSettings):
    """How to measure; checked when made.

    Examples:
        >>> MeasurementConfig(num_references=1_000, estimators=("exact", "sampled")).enumerate_up_to
        1000000
    """

    enumerate_up_to: int = Field(default=1_000_000, ge=0)
    """Spaces of at most this size are scored whole; larger ones are searched."""
    draws_per_temperature: int = Field(default=2_000, ge=2)
    """Importance draws from each proposal in the first round: enough for a tenth of a bit in most cases."""
    probes: ProbeEffort = "none"
    """In how many ways besides the template's own prefix to ask."""

    @field_validator("estimators")
    @classmethod
    def _has_a_headline(cls, estimators: tuple[EstimatorName, ...]) -> tuple[EstimatorName, ...]:
        if set(estimators) <= {"skew-normal"}:
            raise UsageError("the skew-normal fit gives no headline: add exact, importance or sampled")
        return estimators
