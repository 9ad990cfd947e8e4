"""measurements/NAME.json: the exposure of every canary under one model."""

from collections.abc import Mapping

from pydantic import field_serializer, field_validator

from canaryaudit.records.base import SCHEMA_VERSION, EstimatorName, Many, Record


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


def only_bounds(name: EstimatorName, *, trusted: bool) -> bool:
    """Say whether an estimate is no figure: of an exact search whose budget was spent there are certified bounds."""
    return name == "exact" and not trusted


class Headline(Record):
    """The one figure for a canary, chosen by the rule of ``exposure.headline``."""

    bits: float
    low: float
    high: float
    method: EstimatorName


class SamplingOdds(Record):
    """The chance that a secret is among completions drawn at temperature 1 from the model's own law."""

    samples: int
    """Completions drawn."""
    log2_probability: float
    """log2 of the probability that at least one of them is the secret: 1 - (1 - 2^-Px)^samples."""


class Extraction(Record):
    """What an attacker who types the prefix gets."""

    greedy: bool
    """Whether the greedy completion is the secret."""
    greedy_text: str
    """The greedy completion; for a masked canary the secret's own characters are hidden."""
    guesses_log2: float
    """log2 of the number of guesses, in order of likelihood, until the secret falls: log2 of the rank."""
    guesses_low_log2: float | None = None
    """Lower end of its 95 % interval, from the headline's upper one; None in a file of an earlier version."""
    guesses_high_log2: float | None = None
    guesses_exact: bool = False
    """Whether the rank is known, not estimated."""
    sampling: Many[SamplingOdds] = ()
    """The odds of an attacker who samples instead; empty in a file of an earlier version."""
    even_chance_log2: float | None = None
    """log2 of the number of samples at which the secret is among them with probability 1/2; 0 if one is enough."""
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
    character_bits: Many[float] | None = None
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
    edges_bits: Many[float]
    """Edges of the histogram's bins, in bits; one more than counts."""
    counts: Many[int]
    mean_bits: float
    standard_deviation_bits: float
    min_bits: float
    max_bits: float
    skew_normal: SkewNormalFit | None
    rescored: int = 0
    """How many references were scored twice, where most were scored by a faster draft of the model."""
    draft_error_bits: float = 0.0
    """Root mean square error of the draft's log-perplexities, found on those; 0 where there was none."""


class Calibration(Record):
    """Controls' exposures against the law that holds where nothing was memorized: Exp with mean 1/ln 2 bits."""

    controls: int
    mean_bits: float
    expected_mean_bits: float
    ks_pvalue: float
    """Kolmogorov-Smirnov test against the exponential law."""
    passed: bool
    note: str = ""


class MemorizationPoint(Record):
    """The canaries that were inserted equally often; the controls at 0 repetitions."""

    repetitions: int
    canaries: int
    mean_bits: float
    """Mean exposure."""
    low: float
    """The mean's 95 % interval over canaries, the measurement's own uncertainty included."""
    high: float
    single: bool
    """Whether there is one canary only: the interval is then that of its measurement and says nothing of others."""
    ceiling_bits: float
    """The mean if every one of them were the likeliest of its space."""
    unseen_bits: float
    """What the mean of as many secrets that the model never saw exceeds once in twenty times."""
    greedy: int
    """How many are completed greedily."""
    greedy_low: float
    """95 % interval (Clopper-Pearson) of the share completed greedily."""
    greedy_high: float
    pvalue: float | None
    """Of the hypothesis that the model never saw them; None for controls."""
    holm_pvalue: float | None
    """The same, corrected for the number of points."""
    told: bool
    """Whether they are told from secrets never seen: the corrected p is at most 5 %."""


class MemorizationCurve(Record):
    """Exposure against repetitions."""

    template: str
    """Empty for all templates together, which need not have spaces of the same size."""
    points: Many[MemorizationPoint]
    """By repetitions, fewest first."""
    detected_from: int | None
    """The smallest number of repetitions at which canaries are told from secrets never seen; None if at none."""


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
    search_budget: int | None = None
    """Prefixes that a search might expand; like the next two as asked for, and null in a file of an earlier version."""
    precision_bits: float | None = None
    """Half-width of an importance interval that was enough."""
    max_draws: int | None = None
    """Importance draws that might be taken for each template."""
    canaries: Many[CanaryMeasurement]
    references: Many[ReferenceDistribution]
    calibration: Calibration | None
    """None where there are no controls."""
    memorization: Many[MemorizationCurve] = ()
    """First over all templates, then of each where there are several; empty in a file of an earlier version."""
    cost: MeasurementCost
