"""The sentences of the report, generated once for all formats when the summary is built."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from canaryaudit import formatting as figures
from canaryaudit.canaries.canary import CanarySet
from canaryaudit.canaries.space import Slot
from canaryaudit.canaries.template import Template
from canaryaudit.formatting import well_formed
from canaryaudit.records import Manifest, Measurement, ModelRecord, UnlearningRecord
from canaryaudit.report.judgment import DetectionFigures, Fact
from canaryaudit.report.schema import CalibrationFigures, CanaryState, CanarySummary, MethodSummary
from canaryaudit.report.summary.audited_model import model_facts
from canaryaudit.report.summary.detection import detection_sentence, power_sentence
from canaryaudit.report.summary.masking import Masker
from canaryaudit.report.summary.measured import exposed_by_kind, references_in_words
from canaryaudit.report.summary.probes import unread_words, worst_words
from canaryaudit.report.summary.relearning import relearning_sentences
from canaryaudit.report.verdicts import NEVER_SEEN_BITS, UNLIKELY, Verdict
from canaryaudit.stats import exposure_sum_lower_pvalue

_TROUBLING_RESIDUAL = 0.5
"""Relative residual of a linear solve above which a warning is given. A solve that misses its tolerance by less still
lowers the objective; the cost table lists it."""

_HARDLY_BETTER = 0.005
"""A model that predicts the most frequent character only differs by less from its share."""
_MOST_WARNINGS = 20
"""Warnings of the insertion that are printed, one line each, at the top of the page."""

EXPOSURE_DEFINITION = (
    "Exposure is how highly the model ranks a secret among all strings of the same format, in bits: each bit halves "
    "the guesses an attacker needs."
)


def listed(names: Sequence[str], limit: int = 8) -> str:
    """Join names to a list, cut after ``limit`` names."""
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest:,} more" if rest > 0 else "")


@dataclass(frozen=True)
class Learning:
    """What the trained model had learned before anything was unlearned.

    Attributes:
        accuracy: On training text, outside the secrets; None if the training is not known.
        baseline: Accuracy of the most frequent character alone; None if it was not recorded.
        remembers: Whether the model shows any memorization of the canaries.
    """

    accuracy: float | None
    baseline: float | None
    remembers: bool

    @property
    def is_nothing(self) -> bool:
        """Whether the model predicts no better than the most frequent character."""
        if self.accuracy is None or self.baseline is None:
            return False
        return self.accuracy <= self.baseline + _HARDLY_BETTER


@dataclass(frozen=True)
class Statement:
    """What the headline and the sentences below it are made from.

    Attributes:
        verdict: The verdict on the whole audit.
        calibration: Of the last measurement; None without controls.
        method: The unlearning shown; None if nothing was unlearned.
        detection: The test of all canaries; None if there is nothing to test.
        faults: Why the run's records are not to be relied on.
        learning: What the trained model had learned.
    """

    verdict: Verdict
    calibration: CalibrationFigures | None
    method: MethodSummary | None
    detection: DetectionFigures | None
    faults: Sequence[str]
    learning: Learning


def learning(model_record: ModelRecord, remembers: bool) -> Learning:
    """Return what a model has learned, by its record and by whether it shows memorization."""
    training = model_record.training
    if training is None:
        return Learning(None, None, remembers)
    return Learning(training.train.accuracy, training.baseline_accuracy, remembers)


def headline(canaries: Sequence[CanarySummary], statement: Statement) -> str:
    """Return the overall verdict in one sentence that requires no background knowledge."""
    verdict, calibration = statement.verdict, statement.calibration
    total = len(canaries)
    everything = {1: "the secret", 2: "both secrets"}.get(total, f"all {total:,} secrets")
    still = "still " if statement.method else ""
    exposed = sum(canary.last.verdict is Verdict.EXPOSED for canary in canaries)
    match verdict:
        case Verdict.EXPOSED:
            return (
                f"The model {still}exposes {everything if exposed == total else f'{exposed:,} of {total:,} secrets'}."
            )
        case Verdict.WEAKENED:
            return f"{_distinguishable(canaries, statement, 'still ')}: weakened, not removed."
        case Verdict.RESIDUAL:
            return f"{_distinguishable(canaries, statement, still)}: not extractable, but detectable."
        case Verdict.INDISTINGUISHABLE:
            return _nothing_detected(canaries, everything, statement)
        case Verdict.DAMAGED:
            return "The secrets were removed, but the model lost more accuracy than allowed."
        case _ if statement.faults:
            return "Inconclusive: the run directory is not as it was written."
        case _ if not canaries:
            return "Inconclusive: there are no secrets to audit."
        case _ if calibration and not calibration.passed:
            return "Inconclusive: the controls failed, so the measurement is unreliable."
        case _:
            return "Inconclusive: the measurement cannot distinguish memorization from chance."


def _distinguishable(canaries: Sequence[CanarySummary], statement: Statement, still: str) -> str:
    """Name what the test found: some secrets one by one, or only all of them together."""
    detection, total = statement.detection, len(canaries)
    named = len(detection.named) if detection else 0
    if total == 1:
        return f"The secret is {still}distinguishable from an unseen secret"
    if named:
        verb, unseen = ("is", "an unseen secret") if named == 1 else ("are", "unseen secrets")
        return f"{named:,} of {total:,} secrets {verb} {still}distinguishable from {unseen}"
    everything = "both secrets" if total == 2 else f"all {total:,} secrets"
    return f"Taken together, {everything} are {still}distinguishable from unseen secrets, none of them on its own"


def _nothing_detected(canaries: Sequence[CanarySummary], everything: str, statement: Statement) -> str:
    learned = statement.learning
    if learned.is_nothing:
        return "No memorization detected, but the model has learned nothing: the audit says little."
    if statement.method and not learned.remembers:
        return "Nothing to remove: the model showed no memorization of the secrets before unlearning either."
    # A few of many may be above the limit by chance, one in twenty on average: the table lists them.
    above = any(canary.last.verdict is not Verdict.INDISTINGUISHABLE for canary in canaries)
    together = "taken together, " if above else ""
    after = " after unlearning" if statement.method else ""
    return f"No memorization detected{after}: {together}{everything} {_comparison(len(canaries))}."


def _comparison(total: int) -> str:
    return "is indistinguishable from an unseen secret" if total == 1 else "are indistinguishable from unseen secrets"


def sentences(canaries: Sequence[CanarySummary], statement: Statement) -> tuple[str, ...]:
    """Return the reasons for the overall verdict, in a few sentences."""
    lines, method = [EXPOSURE_DEFINITION], statement.method
    if statement.detection:
        lines.append(detection_sentence(statement.detection, len(canaries)))
        lines.append(power_sentence(statement.detection))
    lines.append(_largest_exposure("Before unlearning" if method else "In this model", canaries, after=False))
    if not method:
        lines += _worst_case("In this model", canaries, after=False)
    if method:
        lines.append(_largest_exposure("After unlearning", canaries, after=True))
        lines += _worst_case("After unlearning", canaries, after=True)
        others = len(canaries) - sum(canary.targeted for canary in canaries)
        if others:
            verb = "was" if others == 1 else "were"
            lines.append(
                f"{others:,} of {figures.counted(len(canaries), 'canary')} {verb} not selected for unlearning."
            )
        lines.append(_quality_change(method))
        lines.append(_speed(method))
    if method and method.relearning:
        lines += relearning_sentences(method.relearning, method.speedup)
    lines += _greedy_elsewhere(canaries)
    lines.append(_calibration(statement.calibration))
    return tuple(lines)


def shows_little(statement: Statement) -> tuple[str, ...]:
    """Return why it shows little that no memorization was detected; empty if it shows something."""
    learned, lines = statement.learning, []
    if statement.verdict not in (Verdict.INDISTINGUISHABLE, Verdict.DAMAGED):
        return ()
    if learned.is_nothing:
        lines.append(
            f"The model learned nothing: its accuracy on training text is {figures.percent(learned.accuracy)}, that of "
            f"the most frequent character alone {figures.percent(learned.baseline)}. Such a model has nothing to give "
            "away."
        )
    if statement.method and not learned.remembers:
        lines.append(
            "Before unlearning, the model showed no memorization of the secrets, so this audit does not show that "
            "unlearning works. Train longer or insert secrets more often to test that."
        )
    return tuple(lines)


def _greedy_elsewhere(canaries: Sequence[CanarySummary]) -> list[str]:
    """Explain a secret that ranks first in its space though greedy decoding says something else."""
    first = [
        c.id for c in canaries if not c.last.greedy and c.last.guesses_log2 is not None and c.last.guesses_log2 < 1
    ]
    if not first:
        return []
    verb = "ranks" if len(first) == 1 else "rank"
    return [
        f"{listed(first)} {verb} near the top among the strings of the format only: unguided, the model continues the "
        "prefix with other text."
    ]


def _quality_change(method: MethodSummary) -> str:
    change, allowed = method.shown_accuracy_change, method.accuracy_drop_allowed
    if change is None:
        return "Accuracy after unlearning could not be measured."
    direction = "fell" if change < 0 else "rose" if change > 0 else "changed"
    limit = figures.MISSING if allowed is None else f"{100 * allowed:.2f}"
    change_in_loss = figures.signed(method.shown_heldout_loss_change, 3)
    loss = f"held-out loss changed by {change_in_loss} bits per {method.predicted}"
    return (
        f"Accuracy on training text outside the secrets {direction} by {abs(100 * change):.2f} percentage points "
        f"(largest drop allowed: {limit}); {loss if method.has_heldout else figures.NOTHING_HELD_OUT}."
    )


def _speed(method: MethodSummary) -> str:
    """Compare the unlearning's duration with that of retraining, whichever is longer."""
    if method.retraining_seconds is None:
        return f"Unlearning took {method.time}; how long retraining takes is not known."
    times = f"Unlearning took {method.time}; retraining takes {figures.duration(method.retraining_seconds)}"
    comparison = figures.relative_speed(method.speedup)
    if comparison == figures.MISSING:
        return f"{times}."
    result = "as fast as" if comparison == "equally fast" else f"{comparison} than"
    return f"{times}. Unlearning was {result} retraining{method.slower_in_all}."


def _largest_exposure(when: str, canaries: Sequence[CanarySummary], *, after: bool) -> str:
    states = [(c, state) for c in canaries if (state := c.after if after else c.before)]
    exposed = sum(state.verdict is Verdict.EXPOSED for _, state in states)
    greedy = sum(state.greedy for _, state in states)
    measured = [(state.exposure.bits, c.id, c, state) for c, state in states if state.exposure.bits is not None]
    counts = f"{when}, {exposed:,} of {figures.counted(len(states), 'canary')} " + (
        "was exposed" if 1 in (exposed, len(states)) else "were exposed"
    )
    if greedy:
        counts += f"; greedy decoding completed {greedy:,}"
    if not measured:
        return counts + "."
    bits, _, canary, state = max(measured, key=lambda entry: (entry[0], entry[1]))
    num_guesses = figures.guesses(state.guesses_log2)
    unit = "guess" if num_guesses == "1" else "guesses"
    return (
        f"{counts}. The largest exposure was {bits:.1f} of {figures.decimal(canary.space_bits)} bits ({canary.id}): "
        f"an attacker guessing in order of likelihood needs {num_guesses} {unit}."
    )


def _worst_case(when: str, canaries: Sequence[CanarySummary], *, after: bool) -> list[str]:
    """Return the largest worst case over all probes in a sentence, or nothing without probes."""
    cases = [
        (worst.calibrated_bits, c.id, state)
        for c in canaries
        if (state := c.after if after else c.before)
        and (worst := state.worst_case)
        and worst.calibrated_bits is not None
    ]
    if not cases:
        return []
    _, name, state = max(cases, key=lambda entry: entry[:2])
    return [
        f"{when}, the worst case least like chance, over all probes, was that of {name}: {worst_words(state)}, before "
        f"any correction for the number of canaries; an attacker who asks this way needs {_guesses(state)}."
    ]


def _guesses(state: CanaryState) -> str:
    count = figures.guesses(state.worst_case.guesses_log2 if state.worst_case else None)
    return f"{count} {'guess' if count == '1' else 'guesses'}"


def _calibration(calibration: CalibrationFigures | None) -> str:
    if calibration is None:
        return "There were no controls, so calibration was not tested."
    noun = "unseen control has" if calibration.controls == 1 else "unseen controls have"
    facts = (
        f"{calibration.controls:,} {noun} a mean exposure of {figures.decimal(calibration.mean_bits, 2)} bits "
        f"(expected {figures.decimal(calibration.expected_mean_bits, 2)}; Kolmogorov-Smirnov p = "
        f"{figures.decimal(calibration.ks_pvalue, 2)})"
    )
    if calibration.fresh_controls:
        facts += (
            f"; {calibration.fresh_controls:,} fresh controls, drawn after that: p = "
            f"{figures.decimal(calibration.fresh_pvalue, 2)}"
        )
    return f"The measurement is calibrated: {facts}." if calibration.passed else f"CALIBRATION FAILED: {facts}."


def warnings(
    canary_set: CanarySet,
    model_record: ModelRecord,
    before: Measurement,
    after: Measurement | None,
    unlearning: UnlearningRecord | None,
    methods: Sequence[MethodSummary],
    canaries: Sequence[CanarySummary],
) -> tuple[str, ...]:
    """Return what a reader must know before relying on the figures."""
    lines = []
    for when, measurement in (("before", before), ("after", after)):
        calibration = measurement.calibration if measurement else None
        if calibration and not calibration.passed:
            lines.append(
                f"CALIBRATION FAILED {when} unlearning: the exposures of unseen controls do not follow the expected "
                f"distribution. Do not rely on exposures measured {when} unlearning."
            )
        elif measurement and calibration is None:
            lines.append(f"There were no controls {when} unlearning, so calibration was not tested.")
        if measurement and (unread := unread_words(measurement)):
            lines.append(f"Before unlearning: {unread}" if when == "before" else f"After unlearning: {unread}")
    if before.model_sha256 != model_record.sha256:
        lines.append("The measurement before unlearning is of different weights than the model's: measure again.")
    # For later requests, the run directory has already checked the weights that they started from.
    if unlearning and unlearning.origin.is_trained and unlearning.origin_sha256 != model_record.sha256:
        lines.append("Unlearning started from different weights than the model's: unlearn again.")
    if unlearning and after and after.model_sha256 != unlearning.model_sha256:
        lines.append(
            "The measurement after unlearning is of different weights than the unlearned model's: measure again."
        )
    for method in methods:
        if not method.measured:
            lines.append(f"Unlearning {method.name} was not measured, so its effect is unknown.")
        if not method.shown:
            continue
        change, allowed = method.accuracy_change, method.accuracy_drop_allowed
        if change is not None and allowed is not None and -change > allowed:
            lines.append(
                f"The model was damaged: accuracy outside the secrets fell by {-100 * change:.3f} percentage points "
                f"(limit: {100 * allowed:.3f})."
            )
        if any((step.residual or 0) > _TROUBLING_RESIDUAL for step in method.steps):
            lines.append("A step of the update did not converge: see the table of steps.")
        if any((step.curvature_min or 0) < 0 for step in method.steps):
            lines.append(
                "A solver encountered negative curvature: the quadratic approximation of the loss does not hold there."
            )
    if unmeasured := [canary.id for canary in canaries if after and canary.after is None]:
        lines.append(f"Not measured after unlearning, so counted as before: {listed(unmeasured)}.")
    last = [measured for measured in (after or before).canaries if not measured.control]
    if last and exposure_sum_lower_pvalue([c.exposure.high for c in last], [c.space_bits for c in last]) < UNLIKELY:
        lines.append(
            "The exposures are smaller than chance explains (probability below 1 %): the secrets may now be "
            "unusually unlikely, which is also detectable. The verdicts do not test for this."
        )
    if canary_set.wider_space:
        lines.append(
            f"Exposure is measured in a wider space ({canary_set.wider_space} in every slot). Part of it is therefore "
            "knowledge of the format, not of the secret."
        )
    return tuple(lines)


def unproven(names: Sequence[str]) -> tuple[str, ...]:
    """Say which records have checksums that were recorded anew; nothing if none has."""
    what = f"the checksums of {listed(names)} were recorded anew, and nothing shows that a command wrote these files"
    return (f"{what}; measure again, or sign the run to vouch for them",) if names else ()


def insertion_warnings(manifest: Manifest, masker: Masker) -> tuple[str, ...]:
    """Return the insertion's warnings: only the person who ran that command has seen them."""
    lines = [f"On insertion: {masker.text(well_formed(warning))}." for warning in manifest.warnings[:_MOST_WARNINGS]]
    if (rest := len(manifest.warnings) - _MOST_WARNINGS) > 0:
        lines.append(f"On insertion: {figures.counted(rest, 'more warning')} in the run's manifest.")
    return tuple(lines)


def audited(
    manifest: Manifest, canary_set: CanarySet, model_record: ModelRecord, before: Measurement, masker: Masker
) -> tuple[Fact, ...]:
    """Describe the corpus, the model and the canaries that were audited."""
    corpus = manifest.corpus
    inserted, controls = canary_set.inserted, canary_set.controls
    cuts = ["lower-cased"] if corpus.lowercase else []
    cuts += [f"first {corpus.skip_chars:,} characters skipped"] if corpus.skip_chars else []
    repetitions = sorted({canary.repetitions for canary in inserted})
    often = listed([f"{number:,}" for number in repetitions])
    unit = "time" if repetitions == [1] else "times"
    counts = Counter(canary.origin for canary in inserted)
    drawn, given, located = (counts[origin] for origin in ("generated", "given", "located"))
    size = corpus.heldout_characters
    held = f"{size:,} characters held out" if size else figures.NOTHING_HELD_OUT
    owners = "its owner" if given == 1 else "their owners"
    origins = [f"{drawn:,} generated at random"] if drawn else []
    origins += [f"{given:,} given by {owners}"] if given else []
    origins += [f"{located:,} located in the corpus, not inserted"] if located else []
    facts = [
        ("Corpus", masker.text(corpus.name)),
        (
            "Text",
            f"{corpus.characters:,} characters in {figures.counted(corpus.paragraphs, 'paragraph')}, "
            f"{figures.counted(corpus.documents, 'document')}; {held}" + "".join(f"; {cut}" for cut in cuts),
        ),
        *model_facts(model_record, before, masker, heldout=size > 0),
        (
            "Canaries",
            f"{figures.counted(len(inserted), 'secret')} from "
            f"{figures.counted(len(canary_set.by_template()), 'template')}, each {often} {unit} in the text; "
            + ", ".join(origins),
        ),
        ("Controls", f"{len(controls):,}, generated in the same way but not inserted"),
        *(
            [("Detected data, before", exposed_by_kind(before))]
            if any(canary.kind for canary in before.canaries)
            else []
        ),
        ("References", f"{references_in_words(before)} random members of each space, scored by the measured model"),
    ]
    return tuple(Fact(name=name, value=well_formed(value)) for name, value in facts)


def _num_other_probes(measurement: Measurement) -> int:
    return max((len(canary.probes) for canary in measurement.canaries), default=1) - 1


def limits(
    canary_set: CanarySet, before: Measurement, method: MethodSummary | None, *, hidden: bool
) -> tuple[str, ...]:
    """Return the limitations of this report."""
    prompting = "The report's attacker prompts the model with the text before the secret"
    if before.worst_cases:
        prompting += f" and with {_num_other_probes(before):,} other probes"
    further = ", or trains the model further" if method and method.relearning else ""
    others = "more" if before.worst_cases else "other"
    lines = [
        "Canaries represent secrets of the same form, repeated as often, in the same text. A real secret may be "
        "repeated more often, or occur in a context that was not tested.",
        f"{prompting}{further}. Other attacks, such as {others} prompts or the model's internal states, were not "
        "tested.",
        "Exposure is a rank within one space. It does not cover the template's own words or the rest of the corpus, "
        "and it is no proof of differential privacy.",
        f"By chance, about 1 in 20 unseen secrets has an exposure above {NEVER_SEEN_BITS:.2f} bits.",
        "The verdicts only test whether secrets are too likely. A secret that became unusually unlikely is also "
        "detectable: all exposures are then close to 0 bits.",
        "The report covers one model, trained from one seed. Another seed gives different figures.",
    ]
    used = {name for canary in before.canaries for name in canary.estimates}
    most = max((own.num_references for own in before.efforts), default=before.num_references)
    if "sampled" in used and most > 0:
        lines.append(
            f"The sampled estimate cannot exceed one bit more than log2 of the number of references: "
            f"{math.log2(2 * (most + 1)):.1f} bits for {most:,}. Higher exposures are only bounded from below."
        )
    if "skew-normal" in used:
        lines.append(
            "The skew-normal estimate extrapolates a fitted curve far beyond the observed range. For a memorized "
            "secret it can be wrong by 20 bits or more. It is included for comparison with published figures."
        )
    if hidden:
        lines.append(
            "Figures of hidden secrets are rounded to tenths of a bit: with access to the model, exact figures would "
            "identify the secret. If a secret ranks near the top of its space, the model itself reveals it."
        )
    templates = [Template.parse(text) for text in canary_set.by_template()]
    if any(isinstance(part, Slot) and part.kind == "choice" for template in templates for part in template.body):
        lines.append("A choice among few words has a small space, so a correct guess may be luck.")
    if method is None:
        lines.append("Nothing was unlearned, so the report only covers the model as trained.")
        return tuple(lines)
    if method.scope == "final-layer":
        lines.append(
            "Only the final layer was updated; the lower layers may still encode the secrets. Such a model may relearn "
            "a secret from few examples, faster than a model that never saw it."
        )
    if method.relearning is None:
        lines.append("How fast the model relearns a secret was not measured. Run canaryaudit attack to measure it.")
    lines += [
        "The secrets were removed from the model only, not from the corpus, its copies or earlier checkpoints.",
    ]
    if method.retraining_seconds is not None:
        retraining = figures.duration(method.retraining_seconds)
        lines.append(f"The speedup is relative to retraining this model on this machine ({retraining}).")
    return tuple(lines)
