"""The summary from which every format is rendered: masked, judged and free of infinities.

A field's docstring is its documentation. Text is unescaped; each format escapes it. A missing figure is None.
"""

from datetime import datetime
from typing import Literal

from canaryaudit import formatting as figures
from canaryaudit.records import Closing, EstimatorName, MemorizationPoint, Privacy, ProbeFamily, Relearning
from canaryaudit.report.judgment import Fact, Figure, Gate, Number, Overall, Part, Thousandths
from canaryaudit.report.verdicts import Verdict

SUMMARY_VERSION = 1


class EstimateFigure(Part):
    """One estimator's exposure for a canary, in bits."""

    bits: Figure
    low: Figure
    high: Figure
    trusted: bool
    note: str
    extrapolated: bool


class ExposureFigure(Part):
    """The exposure used for the verdict, in bits, with its 95 % interval and its estimator."""

    bits: Figure
    low: Figure
    high: Figure
    method: EstimatorName


class OddsFigure(Part):
    """Probability that a secret is among completions sampled from the model."""

    samples: int
    log2_probability: Figure


class AttackFigures(Part):
    """Cost of an attack by guessing in order of likelihood, and by sampling."""

    guesses_low_log2: Figure
    """Ends of the 95 % interval of ``guesses_log2``."""
    guesses_high_log2: Figure
    guesses_exact: bool
    """Whether the number of guesses is exact, not estimated."""
    sampling: tuple[OddsFigure, ...]
    even_chance_log2: Figure
    """log2 of the number of samples that contain the secret with probability 1/2."""


class WorstFigure(Part):
    """The exposure under the probe that exposes a secret most."""

    bits: Figure
    low: Figure
    high: Figure
    """Its 95 % interval."""
    method: EstimatorName
    p_value: Figure
    """p-value of the hypothesis that the model never saw the secret, from references probed in the same ways."""
    calibrated_bits: Figure
    """-log2 of the p-value: the exposure under a single probe that is equally unlikely."""
    family: ProbeFamily
    prompt: str
    """Id of the prompt, among ``prompts``."""
    known: int
    """Number of given characters at the start of the secret."""
    guesses_log2: Figure
    """log2 of the number of guesses, in order of likelihood, until the unknown part is found."""
    greedy: bool
    """Whether the model's greedy completion is the unknown part."""
    asked: str
    """Description of the probe."""


class ProbeFigure(Part):
    """A canary's exposure under one probe."""

    family: ProbeFamily
    prompt: str
    known: int
    bits: Thousandths
    greedy: bool
    """Whether the greedy completion is the rest of the secret."""


class PromptFigure(Part):
    """A prompt of a probe, for the secrets of one template."""

    template: int
    """Index into ``templates``."""
    id: str
    family: ProbeFamily
    about: str
    """Description of the prompt."""
    text: str | None
    """None if it contains running text of the corpus, unless ``--reveal-secrets`` was used."""


class TokenFigure(Part):
    """A token of a secret and its cost."""

    text: str
    """The secret's characters that it ends with; empty for a token that ends within the prompt."""
    bits: Number


class CanaryState(Part):
    """Figures of one canary under one model."""

    log_perplexity_bits: Figure
    exposure: ExposureFigure
    estimates: dict[EstimatorName, EstimateFigure]
    greedy: bool
    """Whether the greedy completion is the secret."""
    completion: str
    """The greedy completion."""
    guesses_log2: Figure
    attack: AttackFigures | None = None
    """None if sampling was not measured."""
    beam_rank: int | None
    """Rank among the completions of a beam search; None if it is not among them, or the secret is hidden."""
    character_bits: tuple[Number, ...] | None = None
    """Log-perplexity of each character of the secret, in bits. Below 1 bit, the character has a probability above 1/2.
    None if the secret is hidden."""
    tokens: tuple[TokenFigure, ...] | None = None
    """The secret by tokens; None if it is hidden, or the model reads characters."""
    worst_case: WorstFigure | None = None
    """None without probes."""
    closing: Closing | None = None
    """None if the secret is hidden, or it was not measured."""
    probes: tuple[ProbeFigure, ...] | None = None
    """None without probes, or if the secret is hidden: together these figures would identify it."""
    verdict: Verdict
    reason: str


class CanarySummary(Part):
    """One canary that occurs in the training text."""

    id: str
    template: int
    """Index into ``templates``."""
    secret: str
    """The text from the start of the first slot to the end of the last one; masked characters are bullets."""
    masked: bool
    """Whether the secret is hidden in this report."""
    located: bool = False
    """Whether it was located in the text, not inserted."""
    repetitions: int
    space_bits: Figure
    targeted: bool
    """Whether the unlearning shown was to remove it; false without unlearning."""
    places: tuple[int, ...] = ()
    """Character offsets in the run's corpus.txt; empty if the secret is hidden."""
    before: CanaryState
    after: CanaryState | None
    retrained: CanaryState | None = None
    """The same canary in the model retrained without the secrets; None if there is none, or it is the one shown."""

    @property
    def last(self) -> CanaryState:
        """The latest state: after unlearning, if it was measured."""
        return self.after or self.before


class FitFigures(Part):
    """A fitted skew-normal curve with its goodness of fit."""

    shape: Figure
    location: Figure
    scale: Figure
    pvalue: Figure
    converged: bool
    note: str


class ControlPoint(Part):
    """A control's log-perplexity and its measured exposure."""

    log_perplexity_bits: Number
    exposure_bits: Number
    method: EstimatorName


class Distribution(Part):
    """Log-perplexity of random members of one space, under one model."""

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
    """The attacker's prompt."""
    space_bits: Figure
    canaries: int
    controls: int
    before: Distribution | None
    after: Distribution | None


class CurveSummary(Part):
    """Exposure by number of repetitions; controls have 0."""

    template: int | None
    """Index into ``templates``; None for all templates."""
    before: tuple[MemorizationPoint, ...]
    after: tuple[MemorizationPoint, ...]
    """Empty without unlearning."""
    detected_from_before: int | None
    """Smallest number of repetitions at which canaries are distinguishable from unseen secrets; None if at none."""
    detected_from_after: int | None


class MemorizationSummary(Part):
    """How many repetitions make a secret detectable."""

    answer: str
    curves: tuple[CurveSummary, ...]
    """The curve over all templates first, then one per template if there are several."""


class CalibrationFigures(Part):
    """Calibration of a measurement, tested with controls."""

    controls: int
    mean_bits: Figure
    expected_mean_bits: Figure
    ks_pvalue: Figure
    passed: bool
    note: str
    low_bits: Figure = None
    """5 % of the controls have a lower exposure."""
    high_bits: Figure = None
    """5 % of the controls have a higher exposure."""
    fresh_controls: int = 0
    """Number of fresh controls drawn for a second test, after the first one failed; 0 without one."""
    fresh_pvalue: Figure = None
    """p-value of the second test."""


class FidelityLine(Part):
    """One quality figure of the model."""

    key: Literal[
        "train_accuracy",
        "train_accuracy_all",
        "heldout_accuracy",
        "train_loss",
        "heldout_loss",
        "kept_exposure",
        "kept_elsewhere",
    ]
    name: str
    unit: Literal["share", "bits"]
    before: Figure
    after: Figure
    change: Figure
    better: Literal["higher", "lower", "unchanged"]

    @property
    def shown_change(self) -> float | None:
        """The change between the printed figures: in percent with two digits, or in bits with three."""
        if self.unit == "share":
            return figures.share_change(self.before, self.after)
        return figures.shown_change(self.before, self.after, 3)


class StepFigures(Part):
    """One step of an update, with solver diagnostics."""

    step_norm: Figure
    objective_before: Figure
    objective_after: Figure
    damping: Figure
    residual: Figure
    curvature_min: Figure
    solver_iterations: int | None
    converged: bool | None


class MethodSummary(Part):
    """One unlearning: its settings, effect, fidelity and cost."""

    name: str
    method: str
    scope: str
    replacement: str
    shown: bool
    """Whether the report shows this unlearning as "after"."""
    lineage: tuple[str, ...]
    """The earlier unlearnings that it builds on, the first one first; empty if it started from the trained model."""
    targeted: int
    """Number of canaries to be unlearned, including those of its lineage."""
    measured: bool
    verdict: Verdict | None
    """The verdict on all inserted canaries together; None if it was not measured."""
    exposed: int | None
    max_exposure_bits: Figure
    mean_exposure_bits: Figure
    max_worst_case_bits: Figure = None
    """Largest worst case of all canaries, in bits; None without probes."""
    joint_pvalue: Figure = None
    """p-value of the hypothesis that the model never saw any of the canaries, from their worst cases."""
    accuracy_change: Figure
    """Change in accuracy on training text outside the secrets; negative for a loss."""
    accuracy_drop_allowed: Figure
    heldout_loss_change_bits: Figure
    """None also if no text was held out."""
    fidelity: tuple[FidelityLine, ...]
    """Held-out figures are absent if no text was held out."""
    predicted: Literal["character", "token"] = "character"
    """What losses are per, and accuracies shares of."""
    seconds: Figure
    retraining_seconds: Figure
    speedup: Figure
    gradients: Figure
    curvature_products: int
    affected_windows: int
    retention_windows: int
    preparation_seconds: Figure = 0.0
    """One-time cost before the first request."""
    steps: tuple[StepFigures, ...]
    notes: tuple[str, ...]
    relearning: Relearning | None = None
    """How fast secrets come back under further training; None if that was not measured."""

    @property
    def has_heldout(self) -> bool:
        """Whether there are figures of held-out text."""
        return any(line.key == "heldout_loss" for line in self.fidelity)

    @property
    def time(self) -> str:
        """How long unlearning took, with the one-time cost before it."""
        once = f", after {self.preparation} of preparation, once" if self.preparation else ""
        return f"{figures.duration(self.seconds)}{once}"

    @property
    def preparation(self) -> str:
        """The one-time cost before the first request; empty if there is none worth printing."""
        seconds = figures.duration(self.preparation_seconds)
        return "" if seconds in (figures.MISSING, figures.duration(0)) else seconds

    @property
    def slower_in_all(self) -> str:
        """Says if unlearning and its one-time cost took longer than retraining, though unlearning did not."""
        if self.seconds is None or self.retraining_seconds is None:
            return ""
        is_slower = self.seconds < self.retraining_seconds < self.seconds + (self.preparation_seconds or 0.0)
        return ", but slower with its preparation" if is_slower else ""

    @property
    def shown_accuracy_change(self) -> float | None:
        """``accuracy_change`` rounded like in the fidelity table."""
        return self._shown_change("train_accuracy")

    @property
    def shown_heldout_loss_change(self) -> float | None:
        """``heldout_loss_change_bits`` rounded like in the fidelity table."""
        return self._shown_change("heldout_loss")

    def _shown_change(self, key: str) -> float | None:
        return next((line.shown_change for line in self.fidelity if line.key == key), None)


class CheckpointFigures(Part):
    """What one checkpoint of a model's training says of the secrets."""

    name: str
    mean_bits: float
    max_bits: float
    """The largest exposure of a canary."""
    controls_bits: Figure
    """Mean exposure of the controls; None without any."""


class EpochFigures(Part):
    """The model's quality after one epoch of its training."""

    epoch: int
    loss_bits: Figure
    """Loss on training text, in bits per character."""
    heldout_loss_bits: Figure
    """None if no text was held out."""
    accuracy: Figure
    """Accuracy on training text outside the secrets."""


def moment(text: str) -> datetime | None:
    """Return the time that a text in ISO 8601 with a time zone says; None if it says none."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo else None


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
    """Where the figures come from, and the commands that reproduce them."""

    facts: tuple[Fact, ...]
    stages: tuple[StageLine, ...]
    commands: tuple[str, ...]


class Summary(Part):
    """report.json: the content of all report formats."""

    schema_version: int = SUMMARY_VERSION
    run: str
    unlearned: bool
    """Whether the report has figures after unlearning."""
    masked: int
    """Number of canaries whose secret is hidden."""
    revealed: int
    """Number of canaries whose secret is shown only because ``--reveal-secrets`` was used."""
    reveal_secrets: bool
    overall: Overall
    warnings: tuple[str, ...]
    """What a reader must know before relying on the figures."""
    audited: tuple[Fact, ...]
    templates: tuple[TemplateSummary, ...]
    canaries: tuple[CanarySummary, ...]
    """Worst first."""
    prompts: tuple[PromptFigure, ...] = ()
    """The prompts of the probes, by template; empty without probes."""
    memorization: MemorizationSummary | None = None
    """None if all canaries have the same number of repetitions."""
    privacy_before: Privacy | None = None
    """Membership and a bound on epsilon; None unless canaries were inserted by coins."""
    privacy_after: Privacy | None = None
    calibration_before: CalibrationFigures | None
    calibration_after: CalibrationFigures | None
    methods: tuple[MethodSummary, ...]
    """In order of execution."""
    retrained: str | None = None
    """Name of the retrained model that the unlearning shown is compared with; None if there is none."""
    training: tuple[EpochFigures, ...] = ()
    """The training of the audited model; empty for a model that was trained elsewhere."""
    checkpoints: tuple[CheckpointFigures, ...] = ()
    """Checkpoints of the audited model's training, itself the last; empty unless a series was measured."""
    gate: Gate | None
    limits: tuple[str, ...]
    """Limitations of this report."""
    provenance: Provenance

    @property
    def method(self) -> MethodSummary | None:
        """The unlearning that the report shows as "after"."""
        return next((method for method in self.methods if method.shown), None)

    @property
    def measured(self) -> str:
        """When the last measurement began, in ISO 8601; empty where that is not known."""
        lines = [line for line in self.provenance.stages if line.stage == "measure"]
        return max(((time, line.started) for line in lines if (time := moment(line.started))), default=(None, ""))[1]

    @property
    def retrained_method(self) -> MethodSummary | None:
        """The retrained model that the unlearning shown is compared with."""
        return next((method for method in self.methods if method.name == self.retrained), None)

    def _repr_html_(self) -> str:
        """Return what a notebook shows; masked secrets stay masked."""
        from canaryaudit.report.formats.notebook import render_notebook  # It is made of this module's types.

        return render_notebook(self)
