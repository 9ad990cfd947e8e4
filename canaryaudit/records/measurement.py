"""measurements/NAME.json: the exposure of every canary under one model."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import Field, field_serializer, field_validator

from canaryaudit.errors import MeasurementError
from canaryaudit.records.base import (
    SCHEMA_VERSION,
    EstimatorName,
    FiniteRecord,
    Many,
    ModelId,
    ProbeEffort,
    ProbeFamily,
    Record,
)
from canaryaudit.records.privacy import Privacy

if TYPE_CHECKING:
    import pandas


class Estimate(FiniteRecord):
    """One estimator's exposure for one canary.

    Examples:
        >>> Estimate(bits=12.5, low=11.9, high=13.2, trusted=True).model_dump(exclude_defaults=True)
        {'bits': 12.5, 'low': 11.9, 'high': 13.2, 'trusted': True}
    """

    bits: float
    """Exposure, between 0 and space_bits."""
    low: float
    high: float
    """The 95 % interval: ``bits`` if the rank is exact, 0 to space_bits if nothing is known."""
    trusted: bool
    """Whether the estimate passed the estimator's diagnostics."""
    note: str = ""
    """Why the estimate is not trusted, or the kind of bound; may be empty."""
    extrapolated: bool = False
    """Whether the estimate lies beyond the observed range."""


def only_bounds(name: EstimatorName, *, trusted: bool) -> bool:
    """Return whether an estimate consists of bounds only: an exact search that ran out of budget certifies bounds."""
    return name == "exact" and not trusted


class Headline(FiniteRecord):
    """The exposure used for the verdict, selected by ``exposure.headline``."""

    bits: float
    low: float
    high: float
    method: EstimatorName


class SamplingOdds(Record):
    """Probability that a secret is among completions sampled from the model at temperature 1."""

    samples: int
    """Number of sampled completions."""
    log2_probability: float
    """log2 of the probability that at least one of them is the secret: 1 - (1 - 2^-Px)^samples."""


class Extraction(Record):
    """What an attacker extracts by prompting the model with the prefix."""

    greedy: bool
    """Whether the greedy completion is the secret."""
    greedy_text: str
    """The greedy completion; the secret's characters are hidden for a masked canary."""
    guesses_log2: float = Field(allow_inf_nan=False)
    """log2 of the number of guesses, in order of likelihood, needed to find the secret: log2 of its rank."""
    guesses_low_log2: float
    """Lower end of its 95 % interval, derived from the upper end of the exposure's."""
    guesses_high_log2: float
    guesses_exact: bool
    """Whether the rank is exact, not estimated."""
    sampling: Many[SamplingOdds]
    """Success probabilities of an attacker who samples."""
    even_chance_log2: float
    """log2 of the number of samples that contain the secret with probability 1/2; 0 if one is enough."""
    beam_rank: int | None = None
    """Rank of the secret among the completions of a beam search, from 1; None if it is not among them."""


class PromptRecord(Record):
    """A prompt of a probe, for the secrets of one template."""

    template: str
    """The template's text."""
    id: str
    """Name among the template's prompts; ``template`` is the template's prefix."""
    family: ProbeFamily
    about: str
    """Description of the prompt."""
    text: str | None
    """None if it contains running text of the corpus, which only the audited data contain."""
    unread: str = ""
    """Why the model could not read it, so that nothing was asked by it; empty if it could."""


class ProbeName(FiniteRecord):
    """A probe: a way to prompt for a secret."""

    family: ProbeFamily
    """``partial`` if part of the secret is given, else the family of the prompt."""
    prompt: str
    """Id of the prompt among those of the canary's template."""
    known: int
    """Number of given characters at the start of the secret; each reference gets as many of its characters."""


class ProbeExposure(ProbeName):
    """A canary's exposure under one probe, relative to references probed in the same way."""

    bits: float
    """Exposure relative to references probed in the same way: at most log2 of twice their number."""
    greedy: bool
    """Whether the greedy completion is the rest of the secret."""


class WorstCase(FiniteRecord):
    """The exposure under the probe that exposes a secret most, and its probability by chance."""

    bits: float
    """Exposure under that probe, for a partial one within the space that the given characters leave."""
    low: float
    high: float
    """Its 95 % interval."""
    method: EstimatorName
    p_value: float = Field(gt=0, le=1)
    """p-value of the hypothesis that the model never saw the secret: the rank of its worst case among those of
    references probed in the same ways. Below 1 / (1 + references) it is a union bound over the probes."""
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
        """-log2 of the p-value: comparable to an exposure under one probe, 1.44 on average for an unseen secret."""
        return -math.log2(self.p_value)


class WorstCases(FiniteRecord):
    """The worst cases of all canaries together."""

    effort: ProbeEffort
    references: int
    """References per template that every probe is applied to, including controls; fewer in a small space."""
    joint_pvalue: float | None
    """p-value of the hypothesis that the model never saw any of the canaries, by the sum of their calibrated bits."""


class Closing(FiniteRecord):
    """How much more surely the template's closing text is predicted after a secret than after others of its space."""

    bits: float
    """Mean cost after the references, less the cost after the secret."""
    p_value: float = Field(gt=0, le=1)
    """p-value of the hypothesis that the model never saw the secret: the rank of its cost among the references'."""
    references: int = Field(gt=0)
    """Random members of the space, including controls; a control is judged by all the others."""


class TokenBits(Record):
    """A token of a completion and its cost."""

    end: int
    """Characters of the completion up to its end; 0 for a token that ends within the prompt."""
    bits: float


class CanaryMeasurement(Record):
    """All figures of one canary or control."""

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
    """Log-perplexity of each character of the completion, in bits; None for controls and masked secrets, and where the
    model reads tokens."""
    token_bits: Many[TokenBits] | None = None
    """The same by tokens; None where the model reads characters."""
    probes: Many[ProbeExposure] = ()
    """Exposure under every probe; empty for controls, and without probes."""
    worst_case: WorstCase | None = None
    """None without probes, or if the space has too few members to compare with."""
    closing: Closing | None = None
    """None if the template has no text after its last slot, the space has too few members to compare with, the model
    cannot read that text, or it answers with scores only."""
    kind: str | None = None
    """What it is, if it was detected: email, phone, iban, card, ssn or key."""

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
    """Monte Carlo goodness of fit with refitting; the fit is rejected below 0.05."""
    converged: bool
    note: str = ""


class ReferenceDistribution(Record):
    """Log-perplexity of uniform draws from one template's space, under the measured model."""

    template: str
    space_bits: float
    num_references: int
    edges_bits: Many[float]
    """Bin edges of the histogram, in bits: one more than counts."""
    counts: Many[int]
    mean_bits: float
    standard_deviation_bits: float
    min_bits: float
    max_bits: float
    skew_normal: SkewNormalFit | None
    rescored: int = 0
    """Number of references that were rescored by the full model, if a faster draft scored most of them."""
    draft_error_bits: float = 0.0
    """Root mean square error of the draft's log-perplexities on the rescored references; 0 without a draft."""


class Confirmation(FiniteRecord):
    """A second test of the calibration, on fresh controls only, after the first one failed."""

    controls: int
    seed: Many[int]
    """Seed of the draws: with the canaries, it determines the controls."""
    exposures_bits: Many[float]
    space_bits: Many[float]
    """log2 of the size of each control's space."""
    mean_bits: float
    ks_pvalue: float
    passed: bool
    """Whether the p-value is at least 0.05. The measurement fails if both tests do: 1 in 2,000 sound ones."""


class Calibration(FiniteRecord):
    """Test of the controls' exposures against the distribution without memorization: Exp with mean 1/ln 2 bits."""

    controls: int
    mean_bits: float
    expected_mean_bits: float
    ks_pvalue: float
    """p-value of the Kolmogorov-Smirnov test against the exponential distribution."""
    passed: bool
    """Whether this test passed, or the one that confirms it."""
    note: str = ""
    confirmation: Confirmation | None = None
    """None if the first test passed, or no fresh control could be drawn."""


class MemorizationPoint(FiniteRecord):
    """Canaries with the same number of repetitions; controls have 0."""

    repetitions: int
    canaries: int
    mean_bits: float
    """Mean exposure."""
    low: float
    """95 % interval of the mean over canaries, including the uncertainty of the measurement."""
    high: float
    single: bool
    """Whether there is one canary only: the interval then only covers its measurement, not other canaries."""
    ceiling_bits: float
    """The mean if every canary were the most likely member of its space."""
    unseen_bits: float
    """The mean of equally many unseen secrets exceeds this value with a probability of 5 %."""
    greedy: int
    """Number of canaries that greedy decoding completes."""
    greedy_low: float
    """Lower end of the 95 % Clopper-Pearson interval of the share completed by greedy decoding."""
    greedy_high: float
    pvalue: float | None
    """p-value of the hypothesis that the model never saw the canaries; None for controls."""
    holm_pvalue: float | None
    """The p-value with Holm's correction for the number of points."""
    detected: bool
    """Whether the canaries are distinguishable from unseen secrets: the corrected p-value is at most 5 %."""


class MemorizationCurve(Record):
    """Exposure by number of repetitions."""

    template: str
    """Empty for all templates together, whose spaces may differ in size."""
    points: Many[MemorizationPoint]
    """By repetitions, fewest first."""
    detected_from: int | None
    """Smallest number of repetitions at which canaries are distinguishable from unseen secrets; None if at none."""


class MeasurementCost(Record):
    """Cost of a measurement."""

    seconds: float
    references: int
    search_nodes: int
    characters_scored: int


class TemplateEffort(Record):
    """How much was done for one template within the time limit."""

    template: str
    num_references: int
    """Uniform draws from its space."""
    search_budget: int
    """Maximum number of prefixes that the search may expand; 0 if all members were scored."""
    max_draws: int
    """Maximum number of importance draws; 0 if all members were scored."""
    num_prompts: int
    """Prompts of the probes; 0 without probes."""
    probe_references: int
    """References of the probes."""


class Checkpoint(FiniteRecord):
    """An earlier checkpoint of the measured model's training."""

    name: str
    """What tells its path from those of the other checkpoints: mostly the name of its folder."""
    sha256: str
    exposures_bits: dict[str, float]
    """Exposure of each canary, by id."""
    controls_mean_bits: float | None
    """Mean exposure of the controls; None without any."""


class OtherSpellings(FiniteRecord):
    """By how many bits texts of a template are cheaper when all tokenizations count, not the tokenizer's alone."""

    template: str
    secrets_bits: dict[str, float]
    """Of inserted canaries, by id."""
    references: int
    """Random members of the template's space."""
    references_mean_bits: float
    references_max_bits: float
    uncertain_bits: float
    """The most that tokenizations too unlikely to be read could add to any of them."""


class Measurement(Record):
    """measurements/NAME.json: exposure of every canary under one model."""

    schema_version: int = SCHEMA_VERSION
    model: ModelId
    """``before`` or ``after-NAME``."""
    model_sha256: str
    seed: int
    device: str
    precision: str
    num_references: int
    search_budget: int
    """Maximum number of prefixes that a search may expand."""
    precision_bits: float
    """Half-width of the interval at which importance sampling stops."""
    max_draws: int
    """Maximum number of importance draws per template."""
    time_limit: float
    """Nominal seconds on two cores, from which the efforts follow; 0 without a limit."""
    efforts: Many[TemplateEffort]
    """What was done for each template; less than asked for where the time limit says so."""
    canaries: Many[CanaryMeasurement]
    references: Many[ReferenceDistribution]
    calibration: Calibration | None
    """None without controls."""
    prompts: Many[PromptRecord] = ()
    """The prompts of the probes, by template; empty without probes."""
    worst_cases: WorstCases | None = None
    """None without probes."""
    memorization: Many[MemorizationCurve]
    """The curve over all templates first, then one per template if there are several."""
    checkpoints: Many[Checkpoint] = ()
    """Earlier checkpoints of its training, in order; empty unless a series was measured."""
    spellings: Many[OtherSpellings] = ()
    """By template; empty for models that read characters."""
    privacy: Privacy | None = None
    """Membership and a bound on epsilon; None unless canaries were inserted by coins."""
    cost: MeasurementCost

    def to_frame(self) -> "pandas.DataFrame":
        """Return the measurement as a pandas DataFrame, with one row per canary and control, and no secret.

        Its columns are the canary's id, template, kind (if it was detected), repetitions and ``control``;
        ``space_bits`` and ``log_perplexity_bits``; the exposure that the verdict goes by, with its interval and
        estimator; whether greedy decoding completes the secret, and log2 of the guesses it takes; the worst case over
        all probes, with its p-value (NaN without probes); and how much more surely the closing text is predicted after
        the secret than after others, with its p-value (NaN where it was not measured).

        Raises:
            MeasurementError: pandas is not installed.
        """
        try:
            import pandas  # optional
        except ImportError:
            raise MeasurementError("pandas is not installed: install it with pip install pandas") from None
        return pandas.DataFrame([_frame_row(canary) for canary in self.canaries])


def _frame_row(canary: CanaryMeasurement) -> dict[str, object]:
    worst = canary.worst_case
    return {
        "id": canary.id,
        "template": canary.template,
        "kind": canary.kind,
        "repetitions": canary.repetitions,
        "control": canary.control,
        "space_bits": canary.space_bits,
        "log_perplexity_bits": canary.log_perplexity_bits,
        "exposure_bits": canary.exposure.bits,
        "exposure_low": canary.exposure.low,
        "exposure_high": canary.exposure.high,
        "estimator": canary.exposure.method,
        "greedy": canary.extraction.greedy,
        "guesses_log2": canary.extraction.guesses_log2,
        "worst_case_bits": worst.bits if worst else math.nan,
        "worst_case_pvalue": worst.p_value if worst else math.nan,
        "worst_case_probe": worst.probe.family if worst else "",
        "closing_bits": canary.closing.bits if canary.closing else math.nan,
        "closing_pvalue": canary.closing.p_value if canary.closing else math.nan,
    }
