"""The one model from which every format is made: masked, judged and free of infinities.

A field's docstring is its documentation. Text is as it was written; each format makes it safe in its
own way. A figure that could not be had is None.
"""

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict

from canaryaudit import formatting as figures
from canaryaudit.records import EstimatorName, MemorizationPoint, ProbeFamily, Relearning
from canaryaudit.report.verdicts import Verdict

SUMMARY_VERSION = 1


def _readable(value: Any) -> Any:
    """Return a number with seven digits, more than any measurement here is worth, or None where it is no number."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.7g}") if math.isfinite(value) else None


Figure = Annotated[float | None, BeforeValidator(_readable)]
"""A number, or None where it is missing, infinite or undefined."""
Number = Annotated[float, BeforeValidator(_readable)]
"""A number that is always there."""


class Part(BaseModel):
    """Base of all parts: immutable, unknown fields are errors, and JSON can hold every number."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class EstimateFigure(Part):
    """One estimator's answer, in bits of exposure."""

    bits: Figure
    low: Figure
    high: Figure
    trusted: bool
    note: str
    extrapolated: bool


class ExposureFigure(Part):
    """The headline exposure in bits, its 95 % interval and the estimator that gave it."""

    bits: Figure
    low: Figure
    high: Figure
    method: EstimatorName


class OddsFigure(Part):
    """The chance that a secret is among completions sampled from the model."""

    samples: int
    log2_probability: Figure


class AttackFigures(Part):
    """What guessing in order of likelihood, and sampling, cost an attacker."""

    guesses_low_log2: Figure
    """Ends of the 95 % interval of ``guesses_log2``."""
    guesses_high_log2: Figure
    guesses_exact: bool
    """Whether the number of guesses is known, not estimated."""
    sampling: tuple[OddsFigure, ...]
    even_chance_log2: Figure
    """log2 of the number of samples that hold the secret with probability 1/2."""


class WorstFigure(Part):
    """The exposure under the probe that shows most of a secret."""

    bits: Figure
    low: Figure
    high: Figure
    """Its 95 % interval."""
    method: EstimatorName
    p_value: Figure
    """Of the hypothesis that the model never saw the secret, by references that were asked the same."""
    calibrated_bits: Figure
    """-log2 of the p-value: the exposure under a single probe that would be as unlikely."""
    family: ProbeFamily
    prompt: str
    """Id of the prompt, among ``prompts``."""
    known: int
    """How many of the secret's first characters are known."""
    guesses_log2: Figure
    """log2 of the number of guesses, in order of likelihood, until what is not known falls."""
    greedy: bool
    """Whether the model's greedy completion is what is not known."""
    asked: str
    """How it was asked, in words."""


class ProbeFigure(Part):
    """A canary's exposure under one probe."""

    family: ProbeFamily
    prompt: str
    known: int
    bits: Figure
    greedy: bool
    """Whether the model's greedy completion is what was not known of the secret."""


class PromptFigure(Part):
    """What was read before the secrets of one template were asked for."""

    template: int
    """Index into ``templates``."""
    id: str
    family: ProbeFamily
    about: str
    """What it is, in words."""
    text: str | None
    """None where it holds running text of the corpus, unless ``--reveal-secrets`` shows it."""


class CanaryState(Part):
    """What was found about one canary under one model."""

    log_perplexity_bits: Figure
    exposure: ExposureFigure
    estimates: dict[EstimatorName, EstimateFigure]
    greedy: bool
    """Whether the greedy completion is the secret."""
    completion: str
    """The greedy completion."""
    guesses_log2: Figure
    attack: AttackFigures | None = None
    """None where the measurement is too old to say."""
    beam_rank: int | None
    """Place among the completions that a beam search finds; None where it is in none, or the secret is hidden."""
    character_bits: tuple[Number, ...] | None = None
    """Cost of each character of the secret, in bits: below 1, the model finds it likelier than all others together.
    None where the secret is hidden."""
    worst_case: WorstFigure | None = None
    """None where only the template's own prefix was asked."""
    probes: tuple[ProbeFigure, ...] | None = None
    """None where only the template's own prefix was asked, or the secret is hidden: together they would tell it."""
    verdict: Verdict
    reason: str


class CanarySummary(Part):
    """One canary that stands in the training text."""

    id: str
    template: int
    """Index into ``templates``."""
    secret: str
    """What stands from the first slot's start to the last slot's end; masked characters are bullets."""
    masked: bool
    """Whether the secret is hidden on this page."""
    located: bool = False
    """Whether it was found in the text, where nothing was inserted for it."""
    repetitions: int
    space_bits: Figure
    targeted: bool
    """Whether the unlearning shown was meant for it; false without one."""
    before: CanaryState
    after: CanaryState | None

    @property
    def last(self) -> CanaryState:
        """The state that counts: after unlearning, if it was measured."""
        return self.after or self.before


class FitFigures(Part):
    """A skew-normal curve and whether it fits."""

    shape: Figure
    location: Figure
    scale: Figure
    pvalue: Figure
    converged: bool
    note: str


class ControlPoint(Part):
    """A control's log-perplexity and the exposure that was found for it: a point of the true distribution."""

    log_perplexity_bits: Number
    exposure_bits: Number
    method: EstimatorName


class Distribution(Part):
    """Log-perplexity of members drawn at random from one space, under one model."""

    num_references: int
    edges_bits: tuple[Number, ...]
    counts: tuple[int, ...]
    mean_bits: Figure
    standard_deviation_bits: Figure
    skew_normal: FitFigures | None
    controls: tuple[ControlPoint, ...] = ()


class TemplateSummary(Part):
    """One template, its space and its reference distributions."""

    text: str
    prefix: str
    """What an attacker types."""
    space_bits: Figure
    canaries: int
    controls: int
    before: Distribution | None
    after: Distribution | None


class CurveSummary(Part):
    """Exposure against repetitions; the controls at 0."""

    template: int | None
    """Index into ``templates``; None for all together."""
    before: tuple[MemorizationPoint, ...]
    after: tuple[MemorizationPoint, ...]
    """Empty without an unlearning."""
    detected_from_before: int | None
    """The smallest number of repetitions at which canaries are told from secrets never seen; None if at none."""
    detected_from_after: int | None


class MemorizationSummary(Part):
    """How often a secret must occur to be remembered."""

    answer: str
    curves: tuple[CurveSummary, ...]
    """First that over all templates, then one of each where there are several."""


class CalibrationFigures(Part):
    """The controls' verdict on a measurement."""

    controls: int
    mean_bits: Figure
    expected_mean_bits: Figure
    ks_pvalue: Figure
    passed: bool
    note: str
    low_bits: Figure = None
    """Exposure that 5 in 100 of the controls lie below."""
    high_bits: Figure = None
    """Exposure that 5 in 100 of the controls lie above."""


class FidelityLine(Part):
    """One figure of the model's quality."""

    key: Literal["train_accuracy", "train_accuracy_all", "heldout_accuracy", "train_loss", "heldout_loss"]
    name: str
    unit: Literal["share", "bits"]
    before: Figure
    after: Figure
    change: Figure
    better: Literal["higher", "lower"]

    @property
    def shown_change(self) -> float | None:
        """The change between the figures as they are shown, in percent with two digits or in bits with three."""
        if self.unit == "share":
            return figures.share_change(self.before, self.after)
        return figures.shown_change(self.before, self.after, 3)


class StepFigures(Part):
    """One step of an update and its health."""

    step_norm: Figure
    objective_before: Figure
    objective_after: Figure
    damping: Figure
    residual: Figure
    curvature_min: Figure
    solver_iterations: int | None
    converged: bool | None


class MethodSummary(Part):
    """One unlearning: what it did, what it kept, what it cost."""

    name: str
    method: str
    scope: str
    replacement: str
    shown: bool
    """Whether this is the "after" of the page."""
    lineage: tuple[str, ...]
    """The earlier unlearnings whose result it started from, the first one first; empty: the model as trained."""
    targeted: int
    """Number of canaries it was meant for, those of its lineage included."""
    measured: bool
    verdict: Verdict | None
    """Of all inserted canaries together; None before a measurement."""
    exposed: int | None
    max_exposure_bits: Figure
    mean_exposure_bits: Figure
    max_worst_case_bits: Figure = None
    """The largest of the canaries' worst cases, by their own figures; None where none were taken."""
    joint_pvalue: Figure = None
    """Of the hypothesis that the model never saw any of the canaries, by their worst cases."""
    accuracy_change: Figure
    """Change of the accuracy on training text outside the secrets; a loss is negative."""
    accuracy_drop_allowed: Figure
    heldout_loss_change_bits: Figure
    """None also where no text was held out."""
    fidelity: tuple[FidelityLine, ...]
    """Without the lines of held-out text where none was held out."""
    seconds: Figure
    retraining_seconds: Figure
    speedup: Figure
    gradients: Figure
    curvature_products: int
    affected_windows: int
    retention_windows: int
    preparation_seconds: Figure = 0.0
    """Paid once, before any request."""
    steps: tuple[StepFigures, ...]
    notes: tuple[str, ...]
    relearning: Relearning | None = None
    """How fast secrets come back when the model is trained further; None where that was not tried."""

    @property
    def has_heldout(self) -> bool:
        """Whether any text was held out: where none was, nothing can be said of it."""
        return any(line.key == "heldout_loss" for line in self.fidelity)

    @property
    def shown_accuracy_change(self) -> float | None:
        """``accuracy_change`` as the table of fidelity has it."""
        return self._shown_change("train_accuracy")

    @property
    def shown_heldout_loss_change(self) -> float | None:
        """``heldout_loss_change_bits`` as the table of fidelity has it."""
        return self._shown_change("heldout_loss")

    def _shown_change(self, key: str) -> float | None:
        return next((line.shown_change for line in self.fidelity if line.key == key), None)


class Fact(Part):
    """A named fact, in words."""

    name: str
    value: str


class StageLine(Part):
    """One run of one stage."""

    stage: str
    name: str
    started: str
    seconds: Figure
    seed: int | None
    device: str
    precision: str


class Provenance(Part):
    """Where the figures come from, and what repeats them."""

    facts: tuple[Fact, ...]
    stages: tuple[StageLine, ...]
    commands: tuple[str, ...]


class Gate(Part):
    """Whether a pipeline may go on."""

    fail_above_bits: float | None
    """The largest exposure that an inserted canary may have, none being exposed; None without such a limit."""
    baseline: str | None = None
    """The run of the earlier report that this one must not be worse than; None without one."""
    passed: bool
    reasons: tuple[str, ...]
    """What is too exposed or worse; empty when passed."""

    @property
    def name(self) -> str:
        """What is asked for, in words."""
        limits = [] if self.fail_above_bits is None else [f"at most {self.fail_above_bits:g} bits, none exposed"]
        limits += [] if self.baseline is None else [f"no worse than the report of {self.baseline}"]
        return " and ".join(limits)


class Overall(Part):
    """The verdict on the whole audit, in words."""

    verdict: Verdict
    headline: str
    sentences: tuple[str, ...]
    rule: tuple[Fact, ...]


class Summary(Part):
    """report.json: everything that any format of the report says."""

    schema_version: int = SUMMARY_VERSION
    run: str
    unlearned: bool
    """Whether there is an "after" to show."""
    masked: int
    """Number of canaries whose secret is hidden."""
    revealed: int
    """Number of canaries whose secret is shown only because ``--reveal-secrets`` was used."""
    reveal_secrets: bool
    overall: Overall
    warnings: tuple[str, ...]
    """What must be known before a figure is believed."""
    audited: tuple[Fact, ...]
    templates: tuple[TemplateSummary, ...]
    canaries: tuple[CanarySummary, ...]
    """Worst first."""
    prompts: tuple[PromptFigure, ...] = ()
    """Template by template; empty where only the templates' own prefixes were asked."""
    memorization: MemorizationSummary | None = None
    """None where all canaries were inserted equally often."""
    calibration_before: CalibrationFigures | None
    calibration_after: CalibrationFigures | None
    methods: tuple[MethodSummary, ...]
    """In the order in which they were run."""
    gate: Gate | None
    limits: tuple[str, ...]
    """What this report cannot tell."""
    provenance: Provenance

    @property
    def method(self) -> MethodSummary | None:
        """The unlearning whose measurement is the "after" of the page."""
        return next((method for method in self.methods if method.shown), None)
