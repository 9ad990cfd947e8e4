"""Build the summary from the records: masking and verdicts happen here only."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from canaryaudit.canaries.canary import Canary, CanarySet
from canaryaudit.canaries.template import Template
from canaryaudit.errors import RunDirectoryError
from canaryaudit.formatting import well_formed
from canaryaudit.records import (
    CanaryMeasurement,
    Manifest,
    Measurement,
    ModelRecord,
    ReferenceDistribution,
    UnlearningRecord,
    main_result,
)
from canaryaudit.report.judgment import Fact, Overall
from canaryaudit.report.schema import (
    CanaryState,
    CanarySummary,
    ControlPoint,
    Distribution,
    EpochFigures,
    EstimateFigure,
    ExposureFigure,
    FitFigures,
    MethodSummary,
    StepFigures,
    Summary,
    TemplateSummary,
)
from canaryaudit.report.summary import provenance
from canaryaudit.report.summary import provenance as lineage
from canaryaudit.report.summary import wording as words
from canaryaudit.report.summary.audited_model import checkpoint_figures
from canaryaudit.report.summary.detection import calibration_figures, detect_canaries, detection_figures
from canaryaudit.report.summary.fidelity import fidelity_lines, with_kept_canaries
from canaryaudit.report.summary.gate import Audited, EarlierReport, judge_gate
from canaryaudit.report.summary.masking import Masker
from canaryaudit.report.summary.measured import token_figures
from canaryaudit.report.summary.memorization import attack, coarse_curves, memorization
from canaryaudit.report.summary.probes import probe_figures, prompt_figures, worst_figure
from canaryaudit.report.summary.relearning import headline_addition, masked_relearning
from canaryaudit.report.verdicts import RULE, SEVERITY, Evidence, Verdict, judge_canary, judge_together

Unlearnings = Sequence[tuple[UnlearningRecord, Measurement | None]]


@dataclass(frozen=True)
class SummaryOptions:
    """What a report shows, and what its gate judges by.

    Attributes:
        reveal_secrets: Show the secrets that their owner gave.
        fail_above: Gate: largest exposure allowed for an inserted canary, in bits; an exposed canary never passes.
        shown: Name of the unlearning shown as "after". The default is the last measured one that is not a baseline, or
            else the last baseline.
        baseline: Gate: an earlier report; the new one must not be worse.
        faults: Why the run's records are not to be relied on; empty if they were verified.
        signed: Whether the run has a valid signature.
        has_signature: Whether it has any, valid or not.
        prompt_texts: Texts of the prompts that the records omit, by template and id, to be shown.
    """

    reveal_secrets: bool = False
    fail_above: float | None = None
    shown: str | None = None
    baseline: EarlierReport | None = None
    faults: Sequence[str] = ()
    signed: bool = False
    has_signature: bool = False
    prompt_texts: Mapping[tuple[str, str], str] = field(default_factory=dict)


DEFAULT_OPTIONS = SummaryOptions()


@dataclass(frozen=True)
class _Run:
    """What every method of a run is described with.

    Attributes:
        canary_set: Canaries and controls.
        masker: Hides their secrets.
        before_states: What each canary was before, by id.
        records: All unlearnings, by name.
        has_heldout: Whether text was held out.
    """

    canary_set: CanarySet
    masker: Masker
    before_states: dict[str, CanaryState]
    records: Mapping[str, UnlearningRecord]
    has_heldout: bool


def build_summary(
    manifest: Manifest,
    canary_set: CanarySet,
    model_record: ModelRecord,
    before: Measurement,
    unlearnings: Unlearnings,
    run_name: str,
    options: SummaryOptions = DEFAULT_OPTIONS,
) -> Summary:
    """Build the summary from which all output formats are rendered.

    Args:
        manifest: Origin of the run.
        canary_set: Canaries and controls with their secrets.
        model_record: The audited model.
        before: Measurement of the audited model.
        unlearnings: Each unlearning with its measurement, in order of execution; the measurement is None if it is
            missing.
        run_name: Name of the run.
        options: What to show, and the gate.

    Raises:
        UsageError: The baseline is of different canaries.
        RunDirectoryError: The measurement before unlearning lacks a canary, or the unlearning to show was not measured.
    """
    masker = Masker(canary_set, options.reveal_secrets)
    chosen = _chosen(unlearnings, options.shown)
    after = chosen[1] if chosen else None
    records = {record.name: record for record, _ in unlearnings}
    targeted = lineage.targeted(chosen[0], records) if chosen else set()
    before_states = _states(canary_set, before, masker, None)
    if missing := [canary.id for canary in canary_set.inserted if canary.id not in before_states]:
        raise RunDirectoryError(
            f"measurement '{before.model}' lacks {words.listed(missing)}: measure again with `canaryaudit measure`"
        )
    after_states = _states(canary_set, after, masker, before_states) if after else {}
    reference = _retrained(unlearnings, chosen[0], targeted) if chosen else None
    retrained_states = _states(canary_set, reference[1], masker, before_states) if reference else {}
    templates = _templates(canary_set, before, after, masker)
    places = {text: place for place, text in enumerate(canary_set.by_template())}
    canaries = [
        CanarySummary(
            id=canary.id,
            template=places[canary.template],
            secret=masker.secret(canary),
            masked=canary.masked and not options.reveal_secrets,
            located=canary.origin == "located",
            repetitions=canary.repetitions,
            space_bits=templates[places[canary.template]].space_bits,
            targeted=canary.id in targeted,
            # With the offset, whoever has the text has the secret.
            places=() if canary.masked and not options.reveal_secrets else canary.places,
            before=before_states[canary.id],
            after=after_states.get(canary.id),
            retrained=retrained_states.get(canary.id),
        )
        for canary in canary_set.inserted
    ]
    canaries.sort(key=_worst_first)
    run = _Run(canary_set, masker, before_states, records, has_heldout=manifest.corpus.heldout_characters > 0)
    methods = tuple(
        _method(run, record, measurement, is_shown=chosen is not None and record is chosen[0])
        for record, measurement in unlearnings
    )
    method = next((m for m in methods if m.shown), None)
    calibration = calibration_figures(after or before, masker)
    verdict = (method.verdict if method else _overall(before_states, before)) or Verdict.INCONCLUSIVE
    curves = memorization(before, after, list(places))
    baseline = options.baseline and options.baseline.model_copy(
        update={"run": masker.text(well_formed(options.baseline.run))}
    )
    faults = tuple(masker.text(fault) for fault in options.faults)
    unproven = words.unproven(() if options.signed else [masker.text(well_formed(own)) for own in manifest.unproven])
    calibrations = (calibration_figures(before, masker), *((calibration_figures(after, masker),) if after else ()))
    audited = Audited(canaries, [t.text for t in templates], verdict, calibrations, method, (*faults, *unproven))
    gate = judge_gate(options.fail_above, baseline, audited)
    if faults and verdict is not Verdict.EXPOSED:
        verdict = Verdict.INCONCLUSIVE
    states = before_states | after_states
    detection = detection_figures(detect_canaries(states, after or before), states, after or before, masker)
    statement = words.Statement(
        verdict, calibration, method, detection, faults, words.learning(model_record, _remembers(before_states, before))
    )
    canaries = [coarse(canary) if canary.masked else canary for canary in canaries]
    return Summary(
        run=masker.text(well_formed(run_name)),
        unlearned=after is not None,
        masked=sum(canary.masked for canary in canaries),
        revealed=sum(canary.masked for canary in canary_set.inserted) if options.reveal_secrets else 0,
        reveal_secrets=options.reveal_secrets,
        overall=Overall(
            verdict=verdict,
            headline=words.headline(canaries, statement) + headline_addition(method),
            sentences=words.sentences(canaries, statement),
            rule=tuple(Fact(name=name, value=value) for name, value in RULE.items()),
            detection=detection,
            shows_little=words.shows_little(statement),
            faults=faults,
        ),
        warnings=(
            *(f"The run directory is not as it was written: {fault}." for fault in faults),
            *(f"The run directory was mended: {fault}." for fault in unproven),
            *words.shows_little(statement),
            *words.warnings(canary_set, model_record, before, after, chosen[0] if chosen else None, methods, canaries),
            *words.insertion_warnings(manifest, masker),
        ),
        audited=words.audited(manifest, canary_set, model_record, before, masker),
        templates=templates,
        canaries=tuple(canaries),
        prompts=prompt_figures(after if after and after.prompts else before, places, masker, options.prompt_texts),
        memorization=curves if curves is None or not masker.hides else coarse_curves(curves),
        privacy_before=before.privacy,
        privacy_after=after.privacy if after else None,
        calibration_before=calibrations[0],
        calibration_after=calibrations[1] if after else None,
        methods=tuple(with_kept_canaries(own, canaries) if own.shown else own for own in methods),
        retrained=masker.text(reference[0].name) if reference else None,
        training=_training(model_record, has_heldout=run.has_heldout),
        checkpoints=checkpoint_figures(before),
        gate=gate,
        limits=words.limits(canary_set, before, method, hidden=masker.hides),
        provenance=provenance.provenance(
            manifest, model_record, before, chosen, masker, _signature_words(options, is_faulty=bool(faults))
        ),
    )


def _signature_words(options: SummaryOptions, *, is_faulty: bool) -> str:
    if options.signed:
        return "checked with the key that was given; see the faults" if is_faulty else "valid"
    if options.has_signature:
        return "not checked, since no key was given (report --key)"
    return "none: who recomputes the checksums can change the records (verify --sign)"


def _chosen(unlearnings: Unlearnings, shown: str | None) -> tuple[UnlearningRecord, Measurement] | None:
    """Return the unlearning that the report shows as "after"."""
    measured = [(record, measurement) for record, measurement in unlearnings if measurement is not None]
    if shown is None:
        about = main_result([record for record, _ in measured])
        return next((pair for pair in measured if pair[0] is about), None)
    for record, measurement in measured:
        if record.name == shown:
            return record, measurement
    known = words.listed([record.name for record, _ in measured]) if measured else "none"
    raise RunDirectoryError(f"no measured unlearning named {shown!r}: expected one of {known}")


def _retrained(
    unlearnings: Unlearnings, shown: UnlearningRecord, targeted: set[str]
) -> tuple[UnlearningRecord, Measurement] | None:
    """Return the last measured model that was retrained without these canaries, unless it is the one shown."""
    fitting = [
        (record, measurement)
        for record, measurement in unlearnings
        if record.method == "retrain" and measurement is not None and targeted <= set(record.canaries)
    ]
    return None if shown.method == "retrain" or not fitting else fitting[-1]


def _training(model_record: ModelRecord, *, has_heldout: bool) -> tuple[EpochFigures, ...]:
    history = model_record.training.history if model_record.training else ()
    return tuple(
        EpochFigures(
            epoch=epoch.epoch,
            loss_bits=epoch.loss_bits,
            heldout_loss_bits=epoch.heldout_loss_bits if has_heldout else None,
            accuracy=epoch.accuracy,
        )
        for epoch in history
    )


def _worst_first(canary: CanarySummary) -> tuple[int, float, float, float, str]:
    now, then = canary.last.exposure.bits, canary.before.exposure.bits
    worst = canary.last.worst_case.calibrated_bits if canary.last.worst_case else None
    return (
        SEVERITY[canary.last.verdict],
        -math.inf if worst is None else -worst,
        -math.inf if now is None else -now,
        -math.inf if then is None else -then,
        canary.id,
    )


def _states(
    canary_set: CanarySet, measurement: Measurement, masker: Masker, earlier: dict[str, CanaryState] | None
) -> dict[str, CanaryState]:
    """Return the state of each measured inserted canary, by id."""
    inserted = {canary.id: canary for canary in canary_set.inserted}
    calibrated = measurement.calibration is None or measurement.calibration.passed
    return {
        measured.id: _state(
            inserted[measured.id], measured, masker, (earlier or {}).get(measured.id), calibrated=calibrated
        )
        for measured in measurement.canaries
        if measured.id in inserted
    }


def _state(
    canary: Canary, measured: CanaryMeasurement, masker: Masker, earlier: CanaryState | None, *, calibrated: bool
) -> CanaryState:
    exposure = ExposureFigure.model_validate(measured.exposure.model_dump())
    drop = None
    if earlier and earlier.exposure.bits is not None and exposure.bits is not None:
        drop = round(earlier.exposure.bits - exposure.bits, 5)  # Rounding must not turn a fall by one bit into less.
    unrounded, known = measured.exposure, exposure.low is not None and exposure.high is not None
    estimate = measured.estimates.get(measured.exposure.method)
    worst = worst_figure(measured, masker)
    if earlier and earlier.worst_case and worst and worst.calibrated_bits is not None:
        drop = round((earlier.worst_case.calibrated_bits or 0.0) - worst.calibrated_bits, 5)
    verdict, reason = judge_canary(
        Evidence(
            # Unrounded: in a small space, rank 2 lies exactly on the limit.
            low=unrounded.low if known else None,
            high=unrounded.high if known else None,
            space_bits=measured.space_bits,
            greedy=measured.extraction.greedy,
            trusted=estimate is None or estimate.trusted,
            calibrated=calibrated,
            drop_bits=drop,
            worst_bits=measured.worst_case.calibrated_bits if measured.worst_case else None,
            asked=worst.asked if worst else "",
            closing_pvalue=measured.closing.p_value if measured.closing else None,
        )
    )
    return CanaryState(
        log_perplexity_bits=measured.log_perplexity_bits,
        exposure=exposure,
        estimates={
            name: EstimateFigure.model_validate(line.model_dump() | {"note": masker.text(line.note)})
            for name, line in measured.estimates.items()
        },
        greedy=measured.extraction.greedy,
        completion=masker.greedy_completion(canary, measured.extraction.greedy_text),
        guesses_log2=measured.extraction.guesses_log2,
        attack=attack(measured.extraction),
        beam_rank=measured.extraction.beam_rank,
        character_bits=None if canary.masked else measured.character_bits,
        tokens=None if canary.masked else token_figures(canary, measured),
        worst_case=worst,
        closing=measured.closing,
        probes=probe_figures(measured, masker),
        verdict=verdict,
        reason=reason,
    )


def _overall(
    states: dict[str, CanaryState], measurement: Measurement, unlearning: UnlearningRecord | None = None
) -> Verdict:
    """Judge all canaries of one model and its accuracy together."""
    verdict = judge_together([state.verdict for state in states.values()], detect_canaries(states, measurement))
    if unlearning and verdict is Verdict.INDISTINGUISHABLE:
        drop = unlearning.fidelity.train_accuracy_before - unlearning.fidelity.train_accuracy_after
        if not math.isfinite(drop):
            return Verdict.INCONCLUSIVE
        if drop > unlearning.fidelity_limit:
            return Verdict.DAMAGED
    return verdict


def _remembers(states: dict[str, CanaryState], before: Measurement) -> bool:
    """Return whether the trained model shows any memorization of the canaries."""
    detection = detect_canaries(states, before)
    exposed = any(state.verdict is Verdict.EXPOSED for state in states.values())
    return exposed or detection is None or detection.is_detected


def _method(run: _Run, record: UnlearningRecord, measurement: Measurement | None, *, is_shown: bool) -> MethodSummary:
    masker, records = run.masker, run.records
    after_states = _states(run.canary_set, measurement, masker, run.before_states) if measurement else {}
    # A canary that was not measured again keeps its earlier state: a missing figure proves nothing.
    states = run.before_states | after_states
    bits = [state.exposure.bits for state in states.values()]
    known = [masker.rounded(figure) for figure in bits if figure is not None]
    cases = [state.worst_case.bits for state in states.values() if state.worst_case]
    worst = [masker.rounded(figure) for figure in cases if figure is not None]
    fidelity, cost = record.fidelity, record.cost
    accuracy_change = fidelity.train_accuracy_after - fidelity.train_accuracy_before
    loss_change = fidelity.heldout_loss_after - fidelity.heldout_loss_before
    return MethodSummary(
        name=masker.text(record.name),
        method=record.method,
        scope=record.scope,
        replacement=masker.text(record.replacement),
        shown=is_shown,
        lineage=tuple(masker.text(link.name) for link in lineage.earlier(record, records)),
        targeted=len(lineage.targeted(record, records)),
        measured=measurement is not None,
        verdict=_overall(states, measurement, record) if measurement else None,
        exposed=sum(state.verdict is Verdict.EXPOSED for state in states.values()) if measurement else None,
        max_exposure_bits=max(known, default=None) if measurement else None,
        mean_exposure_bits=sum(known) / len(known) if measurement and known else None,
        max_worst_case_bits=max(worst, default=None) if measurement else None,
        joint_pvalue=measurement.worst_cases.joint_pvalue if measurement and measurement.worst_cases else None,
        accuracy_change=accuracy_change,
        accuracy_drop_allowed=record.fidelity_limit,
        heldout_loss_change_bits=loss_change if run.has_heldout else None,
        predicted=fidelity.unit,
        fidelity=fidelity_lines(record, has_heldout=run.has_heldout),
        seconds=cost.seconds,
        retraining_seconds=cost.retraining_seconds or None,
        speedup=cost.speedup or None,
        gradients=cost.gradients,
        curvature_products=cost.curvature_products,
        preparation_seconds=cost.preparation_seconds,
        affected_windows=record.affected_windows,
        retention_windows=record.retention_windows,
        steps=tuple(
            StepFigures.model_validate({name: getattr(step, name) for name in StepFigures.model_fields})
            for step in record.updates
        ),
        notes=tuple(masker.text(note) for note in record.notes),
        relearning=masked_relearning(record.relearning, masker),
    )


def _templates(
    canary_set: CanarySet, before: Measurement, after: Measurement | None, masker: Masker
) -> tuple[TemplateSummary, ...]:
    return tuple(
        TemplateSummary(
            text=masker.template(text),
            prefix=masker.text(Template.parse(text).prefix),
            space_bits=canary_set.space(Template.parse(text)).bits,
            canaries=sum(not canary.control for canary in group),
            controls=sum(canary.control for canary in group),
            before=_distribution(text, before, masker),
            after=_distribution(text, after, masker) if after else None,
        )
        for text, group in canary_set.by_template().items()
    )


def _distribution(template: str, measurement: Measurement, masker: Masker) -> Distribution | None:
    """Return a template's reference distribution, or None if there is none to draw."""
    references: ReferenceDistribution | None = next((r for r in measurement.references if r.template == template), None)
    if references is None or not references.counts or not all(map(math.isfinite, references.edges_bits)):
        return None
    fit = references.skew_normal
    return Distribution(
        num_references=references.num_references,
        edges_bits=references.edges_bits,
        counts=references.counts,
        mean_bits=references.mean_bits,
        standard_deviation_bits=references.standard_deviation_bits,
        skew_normal=FitFigures.model_validate(fit.model_dump() | {"note": masker.text(fit.note)}) if fit else None,
        controls=tuple(
            ControlPoint(
                log_perplexity_bits=canary.log_perplexity_bits,
                exposure_bits=canary.exposure.bits,
                method=canary.exposure.method,
            )
            for canary in measurement.canaries
            if canary.control and canary.template == template and math.isfinite(canary.log_perplexity_bits)
        ),
    )


def coarse(canary: CanarySummary) -> CanarySummary:
    """Round a canary's figures to tenths of a bit, for a hidden secret.

    With access to the model, anyone can list the strings in order of likelihood. An exact rank, or a log-perplexity
    with all digits, would then identify the secret.
    """
    return canary.model_copy(
        update={
            name: CanaryState.model_validate(_in_tenths(state.model_dump()))
            for name, state in (("before", canary.before), ("after", canary.after), ("retrained", canary.retrained))
            if state is not None
        }
    )


def _in_tenths(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 1)
    if isinstance(value, dict):
        # A rounded number of guesses is not the exact rank; a rank in the beam search would be.
        hidden: dict[str, Any] = {"guesses_exact": False, "beam_rank": None, "closing": None}
        if value.get("p_value") is not None:
            hidden["p_value"] = float(f"{value['p_value']:.1g}")
        return {key: hidden[key] if key in hidden else _in_tenths(item) for key, item in value.items()}
    return [_in_tenths(item) for item in value] if isinstance(value, list | tuple) else value
