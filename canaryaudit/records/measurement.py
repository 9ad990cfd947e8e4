"""measurements/NAME.json: the exposure of every canary under one model."""

import math
from collections.abc import Mapping

from pydantic import field_serializer, field_validator

from canaryaudit.records.base import SCHEMA_VERSION, EstimatorName, Many, ProbeEffort, ProbeFamily, Record


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


class PromptRecord(Record):
    """What was read before secrets of one template were asked for."""

    template: str
    """The template's text, as the canaries have it."""
    id: str
    """Name among the template's prompts; ``template`` is the template's own prefix."""
    family: ProbeFamily
    about: str
    """What it is, in words."""
    text: str | None
    """None where it holds running text of the corpus, which only the audited data hold."""


class ProbeName(Record):
    """A way in which a secret was asked for."""

    family: ProbeFamily
    """``partial`` where part of the secret is known, else the prompt's own."""
    prompt: str
    """Id of the prompt, among those of the canary's template."""
    known: int
    """How many of the secret's first characters are known; every control is asked with as many of its own."""


class ProbeExposure(ProbeName):
    """A canary's exposure under one probe, by references that were asked the same."""

    bits: float
    """By references that were asked the same, each with its own beginning: at most log2 of twice their number."""
    greedy: bool
    """Whether the model's greedy completion is what was not known of the secret."""


class WorstCase(Record):
    """The exposure under the probe that shows most of a secret, and how likely chance alone shows as much."""

    bits: float
    """Exposure under that probe; of a partial one, over the space that the known characters leave."""
    low: float
    high: float
    """Its 95 % interval."""
    method: EstimatorName
    p_value: float
    """Of the hypothesis that the model never saw the secret: the rank of its worst case among those of references
    that were never inserted and asked the very same; below 1 / (1 + references) by the union bound over probes."""
    probe: ProbeName
    space_bits: float
    """log2 of the number of strings that the secret is one of, given what is known of it."""
    greedy: bool
    """Whether the model's greedy completion is what was not known of the secret."""

    @property
    def guesses_log2(self) -> float:
        """log2 of the number of guesses, in order of likelihood, until the secret falls."""
        return self.space_bits - self.bits

    @property
    def calibrated_bits(self) -> float:
        """-log2 of the p-value: what the exposure under a single probe would be, 1.44 on average for one never seen."""
        return -math.log2(self.p_value)


class WorstCases(Record):
    """The worst cases of all canaries together."""

    effort: ProbeEffort
    references: int
    """References put to every probe, controls among them: as many for each template, where its space has them."""
    joint_pvalue: float | None
    """Of the hypothesis that the model never saw any of the canaries, by the sum of their calibrated bits."""


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
    probes: Many[ProbeExposure] = ()
    """Every probe; empty for controls, and where only the template's own prefix was asked."""
    worst_case: WorstCase | None = None
    """None where only the template's own prefix was asked, or the space has too few members to compare with."""

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
    prompts: Many[PromptRecord] = ()
    """What was read before the secrets were asked for, template by template; empty without probes."""
    worst_cases: WorstCases | None = None
    """None where only the templates' own prefixes were asked."""
    memorization: Many[MemorizationCurve] = ()
    """First over all templates, then of each where there are several; empty in a file of an earlier version."""
    cost: MeasurementCost
