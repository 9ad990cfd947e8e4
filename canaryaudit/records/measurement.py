"""measurements/NAME.json: the exposure of every canary under one model."""

from collections.abc import Mapping

from pydantic import field_serializer, field_validator

from canaryaudit.records.base import SCHEMA_VERSION, EstimatorName, Record


class Estimate(Record):
    """One estimator's answer for one canary."""

    bits: float
    """Exposure, between 0 and space_bits."""
    low: float
    high: float
    """The 95 % interval; equal to ``bits`` where the rank is exact. Absent certainty: 0 and space_bits."""
    trusted: bool
    """Whether the estimator's own diagnostics allow the figure to be relied on."""
    note: str = ""
    """Why it is not trusted, or what kind of bound it is; empty when there is nothing to say."""
    extrapolated: bool = False
    """Whether the figure lies beyond everything that was observed."""


class Headline(Record):
    """The one figure for a canary, chosen by the rule of ``exposure.headline``."""

    bits: float
    low: float
    high: float
    method: EstimatorName


class Extraction(Record):
    """What an attacker who types the prefix gets."""

    greedy: bool
    """Whether the greedy completion is the secret."""
    greedy_text: str
    """The greedy completion; for a masked canary the secret's own characters are hidden."""
    guesses_log2: float
    """log2 of the number of guesses, in order of likelihood, until the secret falls: log2 of the rank."""
    beam_rank: int | None = None
    """Place of the secret among a beam search's completions, from 1; none if it is not among them."""


class CanaryMeasurement(Record):
    """Everything measured about one canary or control."""

    id: str
    template: str
    repetitions: int
    control: bool
    masked: bool
    space_bits: float
    log_perplexity_bits: float
    exposure: Headline
    estimates: dict[EstimatorName, Estimate]
    """By estimator; as a key in the file, skew-normal is written ``skew_normal``."""
    extraction: Extraction
    character_bits: tuple[float, ...] | None = None
    """Cost of each character of the completion, in bits; none for controls, nor where the secret is masked."""

    @field_serializer("estimates")
    def _with_underscores(self, estimates: Mapping[EstimatorName, Estimate]) -> dict[str, Estimate]:
        return {name.replace("-", "_"): estimate for name, estimate in estimates.items()}

    @field_validator("estimates", mode="before")
    @classmethod
    def _with_hyphens(cls, estimates: object) -> object:
        if not isinstance(estimates, Mapping):
            return estimates
        return {"skew-normal" if name == "skew_normal" else name: value for name, value in estimates.items()}


class SkewNormalFit(Record):
    """A skew-normal distribution fitted to reference log-perplexities."""

    shape: float
    location: float
    scale: float
    pvalue: float
    """Monte-Carlo goodness of fit with refitting; below 0.05 the fit is refuted."""
    converged: bool
    note: str = ""


class ReferenceDistribution(Record):
    """Log-perplexity of uniform draws from one template's space, under the measured model."""

    template: str
    space_bits: float
    num_references: int
    edges_bits: tuple[float, ...]
    """Edges of the histogram's bins, in bits; one more than counts."""
    counts: tuple[int, ...]
    mean_bits: float
    standard_deviation_bits: float
    min_bits: float
    max_bits: float
    skew_normal: SkewNormalFit | None


class Calibration(Record):
    """Controls' exposures against the law that holds where nothing was memorised: Exp with mean 1/ln 2 bits."""

    controls: int
    mean_bits: float
    expected_mean_bits: float
    ks_pvalue: float
    """Kolmogorov-Smirnov test against the exponential law."""
    passed: bool
    note: str = ""


class MeasurementCost(Record):
    """What a measurement took."""

    seconds: float
    references: int
    search_nodes: int
    characters_scored: int


class Measurement(Record):
    """measurements/NAME.json: exposure of every canary under one model."""

    schema_version: int = SCHEMA_VERSION
    model: str
    """``before`` or ``after-NAME``."""
    model_sha256: str
    seed: int
    device: str
    precision: str
    num_references: int
    canaries: tuple[CanaryMeasurement, ...]
    references: tuple[ReferenceDistribution, ...]
    calibration: Calibration | None
    """None where there are no controls."""
    cost: MeasurementCost
