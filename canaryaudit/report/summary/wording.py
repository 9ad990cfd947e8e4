"""What the figures mean, in sentences: written once, when the summary is made."""

import math
from collections import Counter
from collections.abc import Sequence

from canaryaudit import formatting as figures
from canaryaudit.canaries.canary import CanarySet
from canaryaudit.canaries.space import Slot
from canaryaudit.canaries.template import Template
from canaryaudit.formatting import well_formed
from canaryaudit.records import Manifest, Measurement, ModelRecord, UnlearningRecord
from canaryaudit.report.schema import CalibrationFigures, CanaryState, CanarySummary, Fact, MethodSummary
from canaryaudit.report.summary.masking import Masker
from canaryaudit.report.summary.probes import worst_words
from canaryaudit.report.summary.relearning import relearning_sentences
from canaryaudit.report.verdicts import NEVER_SEEN_BITS, UNLIKELY, Verdict
from canaryaudit.stats import exposure_sum_lower_pvalue

_TROUBLING_RESIDUAL = 0.5
"""A linear solve that leaves more than half of its right-hand side undone is worth a warning; one that misses its
tolerance by less still lowers the objective, and the ledger says so."""

_MOST_WARNINGS = 20
"""Of an insertion, each a line at the top of the page."""


def listed(names: Sequence[str], limit: int = 8) -> str:
    """Write names as a list, cut where it would fill the page."""
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest:,} more" if rest > 0 else "")


def headline(
    verdict: Verdict,
    canaries: Sequence[CanarySummary],
    calibration: CalibrationFigures | None,
    method: MethodSummary | None,
) -> str:
    """Say the overall verdict in one sentence that needs no training."""
    total = len(canaries)
    of_all = {1: "the secret", 2: "both secrets"}.get(total, f"all {total:,} secrets")
    counts = Counter(canary.last.verdict for canary in canaries)
    unclear = total - counts[Verdict.INDISTINGUISHABLE]
    # Where none stands out alone, all of them may do so together.
    subject = f"{unclear:,} of {total:,} secrets" if unclear else f"Taken together, {of_all}"
    subject = "The secret" if total == 1 else subject
    match verdict:
        case Verdict.EXPOSED:
            still = "still " if method else ""
            gone = of_all if counts[verdict] == total else f"{counts[verdict]:,} of {total:,} secrets"
            return f"The model {still}gives {gone} away."
        case Verdict.WEAKENED:
            return f"{subject} can be told from secrets never seen: weakened, not gone."
        case Verdict.TRACES:
            return f"{subject} can be told from secrets never seen: nothing is given away at once, traces are there."
        case Verdict.INDISTINGUISHABLE:
            # A few may lie above the border where chance puts one in twenty: the rows say which.
            together = "taken together, " if unclear else ""
            look = "looks" if total == 1 else "look"
            return f"No trace found: {together}{of_all} {look} like secrets that the model never saw."
        case Verdict.DAMAGED:
            return "The secrets are gone, and the model lost more quality than was allowed."
        case _ if calibration and not calibration.passed:
            return "No verdict: the controls failed, so that the measurement cannot be relied on."
        case _:
            return "No verdict: the measurement cannot tell memory from chance."


def sentences(
    canaries: Sequence[CanarySummary], calibration: CalibrationFigures | None, method: MethodSummary | None
) -> tuple[str, ...]:
    """Say, in a few sentences, what the overall verdict rests on."""
    said = [_worst_words("Before unlearning" if method else "In this model", canaries, after=False)]
    if not method:
        said += _worst_case_words("In this model", canaries, after=False)
    if method:
        said.append(_worst_words("Afterwards", canaries, after=True))
        said += _worst_case_words("Afterwards", canaries, after=True)
        others = len(canaries) - sum(canary.targeted for canary in canaries)
        if others:
            said.append(
                f"{figures.counted(others, 'canary')} of {len(canaries):,} was not chosen for unlearning."
                if others == 1
                else f"{others:,} of {len(canaries):,} canaries were not chosen for unlearning."
            )
        change, allowed = method.shown_accuracy_change, method.accuracy_drop_allowed
        if change is None:
            said.append("The model's accuracy after unlearning could not be measured.")
        else:
            moved = "fell by" if change < 0 else "rose by" if change > 0 else "changed by"
            limit = figures.MISSING if allowed is None else f"{100 * allowed:.2f}"
            loss = figures.signed(method.shown_heldout_loss_change, 3)
            heldout = f"loss on held-out text changed by {loss} bits per character"
            said.append(
                f"Accuracy on training text outside the secrets {moved} {abs(100 * change):.2f} points (a drop of "
                f"{limit} was allowed); {heldout if method.has_heldout else figures.NOTHING_HELD_OUT}."
            )
        said.append(
            f"Unlearning took {figures.duration(method.seconds)}; training again takes "
            f"{figures.duration(method.retraining_seconds)}, {figures.times(method.speedup)} as long."
        )
    if method and method.relearning:
        said += relearning_sentences(method.relearning, method.speedup)
    said.append(_calibration_words(calibration))
    return tuple(said)


def _worst_words(when: str, canaries: Sequence[CanarySummary], *, after: bool) -> str:
    states = [(c, state) for c in canaries if (state := c.after if after else c.before)]
    exposed = sum(state.verdict is Verdict.EXPOSED for _, state in states)
    greedy = sum(state.greedy for _, state in states)
    measured = [(state.exposure.bits, c.id, c, state) for c, state in states if state.exposure.bits is not None]
    start = f"{when}, {exposed:,} of {figures.counted(len(states), 'canary')} " + (
        "was exposed" if 1 in (exposed, len(states)) else "were exposed"
    )
    if greedy:
        start += f", {greedy:,} word for word to whoever types the text before it"
    if not measured:
        return start + "."
    bits, _, canary, state = max(measured, key=lambda entry: (entry[0], entry[1]))
    count = figures.guesses(state.guesses_log2)
    unit = "guess" if count == "1" else "guesses"
    return (
        f"{start}. The largest exposure: {bits:.1f} of {figures.decimal(canary.space_bits)} bits ({canary.id}); "
        f"an attacker who guesses in order of likelihood needs {count} {unit}."
    )


def _worst_case_words(when: str, canaries: Sequence[CanarySummary], *, after: bool) -> list[str]:
    """Say which canary stands out most however it is asked; nothing where only the prefixes were asked."""
    found = [
        (worst.calibrated_bits, c.id, state)
        for c in canaries
        if (state := c.after if after else c.before)
        and (worst := state.worst_case)
        and worst.calibrated_bits is not None
    ]
    if not found:
        return []
    above = sum(bits > NEVER_SEEN_BITS for bits, _, _ in found)
    _, name, state = max(found, key=lambda entry: entry[:2])
    return [
        f"{when}, asked in other ways too, {above:,} of {figures.counted(len(found), 'canary')} "
        f"{'stands' if above == 1 else 'stand'} out more than chance explains, one by one. The worst case: {name}, "
        f"{worst_words(state)}; an attacker who asks so needs {_guesses(state)}."
    ]


def _guesses(state: CanaryState) -> str:
    count = figures.guesses(state.worst_case.guesses_log2 if state.worst_case else None)
    return f"{count} {'guess' if count == '1' else 'guesses'}"


def _calibration_words(calibration: CalibrationFigures | None) -> str:
    if calibration is None:
        return "There were no controls: nothing shows that the measurement is calibrated."
    facts = (
        f"{figures.counted(calibration.controls, 'control')} that the model never saw: mean exposure "
        f"{figures.decimal(calibration.mean_bits, 2)} bits where {figures.decimal(calibration.expected_mean_bits, 2)} "
        f"are expected, Kolmogorov-Smirnov p = {figures.decimal(calibration.ks_pvalue, 2)}"
    )
    return f"The measurement is calibrated ({facts})." if calibration.passed else f"CALIBRATION FAILED ({facts})."


def warnings(
    canary_set: CanarySet,
    model_record: ModelRecord,
    before: Measurement,
    after: Measurement | None,
    unlearning: UnlearningRecord | None,
    methods: Sequence[MethodSummary],
    canaries: Sequence[CanarySummary],
) -> tuple[str, ...]:
    """Say what must be known before a figure on the page is believed."""
    said = []
    for when, measurement in (("before", before), ("after", after)):
        calibration = measurement.calibration if measurement else None
        if calibration and not calibration.passed:
            said.append(
                f"CALIBRATION FAILED {when} unlearning: canaries that the model never saw do not score as such "
                f"canaries must. Do not rely on the exposures {when}."
            )
        elif measurement and calibration is None:
            said.append(f"No controls {when}: nothing shows that the exposures {when} are calibrated.")
    if before.model_sha256 != model_record.sha256:
        said.append("The measurement before belongs to other weights than the model's: measure again.")
    # Of a later request the run directory has checked what it started from.
    if unlearning and unlearning.origin == "before" and unlearning.origin_sha256 != model_record.sha256:
        said.append("The unlearning started from other weights than the model's: unlearn again.")
    if unlearning and after and after.model_sha256 != unlearning.model_sha256:
        said.append("The measurement after belongs to other weights than the unlearned model's: measure again.")
    for method in methods:
        if not method.measured:
            said.append(f"Unlearning {method.name} has not been measured: its effect is unknown.")
        if not method.shown:
            continue
        change, allowed = method.accuracy_change, method.accuracy_drop_allowed
        if change is not None and allowed is not None and -change > allowed:
            said.append(
                f"The model was damaged: accuracy outside the secrets fell by {-100 * change:.3f} points, "
                f"{100 * allowed:.3f} were allowed."
            )
        if any((step.residual or 0) > _TROUBLING_RESIDUAL for step in method.steps):
            said.append("A step of the update did not converge: see the ledger.")
        if any((step.curvature_min or 0) < 0 for step in method.steps):
            said.append("A solver met negative curvature: the quadratic model of the loss does not hold there.")
    if unmeasured := [canary.id for canary in canaries if after and canary.after is None]:
        said.append(f"Not measured after unlearning, and counted as before: {listed(unmeasured)}.")
    last = [measured for measured in (after or before).canaries if not measured.control]
    if last and exposure_sum_lower_pvalue([c.exposure.high for c in last], [c.space_bits for c in last]) < UNLIKELY:
        said.append(
            "The exposures are smaller than chance explains (probability below 1 %): the secrets may have become "
            "conspicuously unlikely, which is a trace too. No verdict here looks for it."
        )
    if canary_set.wider_space:
        said.append(
            f"Exposure is measured in a wider space ({canary_set.wider_space} in every slot): part of it is knowledge "
            "of the format, not of the secret."
        )
    return tuple(said)


def insertion_warnings(manifest: Manifest, masker: Masker) -> tuple[str, ...]:
    """Say what the insertion warned of, which its own command said to whoever ran it, and to nobody else."""
    told = [f"On insertion: {masker.text(well_formed(own))}." for own in manifest.warnings[:_MOST_WARNINGS]]
    if (rest := len(manifest.warnings) - _MOST_WARNINGS) > 0:
        told.append(f"On insertion: {figures.counted(rest, 'more warning')}, in the run's manifest.")
    return tuple(told)


def audited(
    manifest: Manifest, canary_set: CanarySet, model_record: ModelRecord, before: Measurement, masker: Masker
) -> tuple[Fact, ...]:
    """Say what was audited."""
    corpus, shape, training = manifest.corpus, model_record.architecture, model_record.training
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
    origins = [f"{drawn:,} drawn at random by this tool"] if drawn else []
    origins += [f"{given:,} given by {owners}"] if given else []
    origins += [f"{located:,} found in the corpus, where nothing was inserted for them"] if located else []
    facts = [
        ("Corpus", masker.text(corpus.name)),
        (
            "Text",
            f"{corpus.characters:,} characters in {figures.counted(corpus.paragraphs, 'paragraph')}, "
            f"{figures.counted(corpus.documents, 'document')}; {held}" + "".join(f"; {cut}" for cut in cuts),
        ),
        (
            "Model",
            f"character LSTM, {figures.counted(shape.layers, 'layer')} of {shape.hidden:,} units, vocabulary of "
            f"{len(shape.vocabulary):,} symbols" + (f", {training.parameters:,} parameters" if training else ""),
        ),
        *(
            [
                (
                    "Training",
                    f"{figures.counted(training.epochs, 'epoch')} in {figures.duration(training.seconds)} on "
                    f"{training.device} ({training.precision}); accuracy {figures.percent(training.train.accuracy)} on "
                    "training text"
                    + (f", {figures.percent(training.heldout.accuracy)} on held-out text" if size else ""),
                )
            ]
            if training
            else []
        ),
        (
            "Canaries",
            f"{figures.counted(len(inserted), 'secret')} from "
            f"{figures.counted(len(canary_set.by_template()), 'template')}, each {often} {unit} in the text; "
            + ", ".join(origins),
        ),
        ("Controls", f"{len(controls):,}, drawn alike and in no text"),
        ("Reference", f"{before.num_references:,} random members of each space, scored under the model being measured"),
    ]
    return tuple(Fact(name=name, value=well_formed(value)) for name, value in facts)


def _other_ways(measurement: Measurement) -> int:
    return max((len(canary.probes) for canary in measurement.canaries), default=1) - 1


def limits(
    canary_set: CanarySet, before: Measurement, method: MethodSummary | None, *, hidden: bool
) -> tuple[str, ...]:
    """Say what this report cannot tell."""
    said = [
        "Canaries stand for secrets of the same form, repeated as often, in the same text. A real secret may be "
        "repeated more often, or stand in words that were not tried.",
        "The attacker of this report types the words before the secret"
        + (f", or asks in {_other_ways(before)} other ways" if before.worst_cases else "")
        + (", or trains the model further" if method and method.relearning else "")
        + f". Other ways in, such as {'more' if before.worst_cases else 'other'} prompts or the model's inner states, "
        "were not tried.",
        "Exposure is a rank within one space. It says nothing about the template's own words, nor about anything "
        "else in the corpus. It is no proof of differential privacy.",
        f"About one secret in twenty that the model never saw lies above {NEVER_SEEN_BITS:.2f} bits by chance.",
        "The verdicts look for secrets that are too likely only. A secret that was made conspicuously unlikely leaves "
        "a trace too: exposures that are all near 0 bits show it.",
        "One model, trained once from one seed, was measured: another seed gives other figures.",
    ]
    used = {name for canary in before.canaries for name in canary.estimates}
    if "sampled" in used and before.num_references > 0:
        said.append(
            f"The sampled estimate cannot see beyond log2 of its references, "
            f"{math.log2(before.num_references):.1f} bits for {before.num_references:,}: above, it is a lower bound."
        )
    if "skew-normal" in used:
        said.append(
            "The skew-normal estimate extrapolates a fitted curve far beyond what was observed; it can be wrong by 20 "
            "bits and more for a memorized secret. It is shown for comparison with published figures."
        )
    if hidden:
        said.append(
            "Figures of hidden secrets are given in tenths of a bit: exact ones would tell whoever has the model which "
            "string the secret is. Of a secret near the top of its space, the model itself tells."
        )
    templates = [Template.parse(text) for text in canary_set.by_template()]
    if any(isinstance(part, Slot) and part.kind == "choice" for template in templates for part in template.body):
        said.append("A choice among few words has a small space: a right guess may be luck.")
    if method is None:
        said.append("Nothing has been unlearned yet: this page has no after.")
        return tuple(said)
    if method.scope == "final-layer":
        said.append(
            "Only the final layer was changed. What the layers below keep of the secrets is untouched: a model updated "
            "like this may relearn a secret from few examples, faster than a model that never saw it."
        )
    if method.relearning is None:
        said.append("How fast the model relearns a secret was not measured here: canaryaudit attack does.")
    said += [
        "The secrets were removed from the model, not from the corpus, its copies, or earlier checkpoints.",
        f"The speed-up compares with training this model on this machine "
        f"({figures.duration(method.retraining_seconds)}), not with a faster one.",
    ]
    return tuple(said)
