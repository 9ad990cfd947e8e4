"""Terminal views of plans, measurements, attacks and verifications, as renderables that the commands print."""

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from canaryaudit.canaries.insertion import InsertionPlan
from canaryaudit.formatting import counted, odds, pvalue, shorten, visible
from canaryaudit.records import (
    CanaryMeasurement,
    Estimate,
    EstimatorName,
    Measurement,
    MemorizationCurve,
    RelearningAttack,
    UnlearningRecord,
    only_bounds,
)
from canaryaudit.runs.findings import PROBLEMS, Verification

MOST_CANARIES, MOST_PLACES = 20, 6
"""Shown unless all are requested: what fits on a screen, and on a line."""

_ESTIMATORS: tuple[EstimatorName, ...] = ("exact", "importance", "sampled", "skew-normal")
_ATTACKS: dict[RelearningAttack, str] = {"other-text": "other text", "canary-window": "with its text"}
_KEY = (
    "\nAll estimators, with 95 % intervals; ? marks figures that are not reliable. An\n"
    "exact search that ran out of budget gives certified bounds instead of a figure."
)
_STANDS_OUT = 0.05
_OTHER_KIND = "not detected"
"""Canaries that were generated, given or located by a template."""
_ODDS = (
    "\nGuesses in order of likelihood (log2; = marks a known rank), the probability\n"
    "that the secret is among so many completions sampled from the model, and log2\n"
    "of the number of samples for an even chance."
)


def plan_view(made: InsertionPlan, expected_seconds: float | None, *, every: bool = False) -> RenderableType:
    """Return the terminal view of an insertion.

    Args:
        made: The plan.
        expected_seconds: Estimated training time if nothing was written; else None.
        every: Show all canaries and all their places.
    """
    table = _table(("template", "space, bits", "canaries", "controls"))
    for space in made.spaces:
        table.add_row(Text(shorten(space.template, 200)), f"{space.bits:.1f}", str(space.canaries), str(space.controls))
    detected = _table(("detected", "places", "values", "canaries"))
    for kind in made.detected:
        detected.add_row(kind.kind, *(f"{count:,}" for count in (kind.occurrences, kind.distinct, kind.canaries)))
    lines = []
    inserted = made.canary_set.inserted
    for canary in inserted if every else inserted[:MOST_CANARIES]:
        places = sorted(place for wording in canary.wordings for place in wording.places)
        shown = ", ".join(f"{place:,}" for place in (places if every else places[:MOST_PLACES]))
        more = "" if every or len(places) <= MOST_PLACES else ", …"
        times = "once" if canary.repetitions == 1 else f"{canary.repetitions} times"
        wordings = f" in {len(canary.wordings)} wordings" if canary.other_wordings else ""
        what = f" ({canary.kind})" if canary.kind else ""
        lines.append(f"{canary.id}{what}: {times}{wordings}, at {shown}{more}")
    lines += _and_more(len(inserted), every)
    lines.append("")
    located = [canary for canary in inserted if canary.origin == "located"]
    if located:
        found = counted(sum(canary.repetitions for canary in located), "place")
        lines.append(f"{len(located):,} located, at {found}; not inserted.")
    insertions = sum(canary.repetitions for canary in inserted if canary.origin != "located")
    room = f";\n{made.num_boundaries:,} places between paragraphs for {insertions:,} insertions" if insertions else ""
    lines.append(
        f"{made.assembly.characters:,} training characters, {made.assembly.heldout_characters:,} held out, "
        f"{len(made.vocabulary)} symbols{room}."
    )
    if expected_seconds is not None:
        lines.append(
            f"Training (small) would take about {_duration(expected_seconds)} on this machine. Nothing was written."
        )
    return Group(*((detected,) if made.detected else ()), table, Text("\n".join(lines)))


def measurement_view(measurement: Measurement, *, every: bool = False) -> RenderableType:
    """Return the terminal view of a measurement: the inserted canaries, and the controls in one line.

    Args:
        measurement: The measurement.
        every: Show all canaries, and all estimators in a second table.
    """
    inserted = sorted((c for c in measurement.canaries if not c.control), key=lambda c: -c.exposure.bits)
    shown = inserted if every else inserted[:MOST_CANARIES]
    worst = ("worst", "p") if measurement.worst_cases else ()
    # With worst cases the table would be wider than 80 columns; -v names the methods in a table of their own.
    method = () if worst else ("method",)
    table = _table(("canary", "times", "exposure, bits", "95 % interval", *method, "greedy", *worst))
    for canary in shown:
        named = (canary.exposure.method,) if method else ()
        greedy = "yes" if canary.extraction.greedy else "no"
        table.add_row(*_measured_row(canary), *named, greedy, *(_worst(canary) if worst else ()))
    lines = _and_more(len(inserted), every)
    if calibration := measurement.calibration:
        verdict = "calibrated" if calibration.passed else f"FAILED: {calibration.note}"
        lines.append(
            f"Controls: {calibration.controls}, mean {calibration.mean_bits:.2f} bits "
            f"(expected {calibration.expected_mean_bits:.2f}), p = {calibration.ks_pvalue:.2g}: {verdict}."
        )
    cases = measurement.worst_cases
    if cases and (found := [canary.worst_case for canary in inserted if canary.worst_case]):
        case = min(found, key=lambda worst_case: worst_case.p_value)
        known = f", {case.probe.known} known characters" if case.probe.known else ""
        lines += [
            f"Worst case: {case.bits:.1f} bits, p = {case.p_value:.2g}, probe {case.probe.prompt}{known}.",
            f"Probes: {len(inserted[0].probes)}, with {cases.references:,} references.",
        ]
    if measurement.privacy:
        from canaryaudit.report.summary.privacy import epsilon_words, membership_words

        lines += [
            f"Membership: {membership_words(measurement.privacy)}.",
            f"Privacy loss, epsilon: {epsilon_words(measurement.privacy)}.",
        ]
    parts: list[RenderableType] = [Text(f"Exposure, {measurement.model}"), table, Text("\n".join(lines))]
    curves = [curve for curve in measurement.memorization if sum(point.repetitions > 0 for point in curve.points) > 1]
    for curve in curves if every else curves[:1]:
        parts += _memorized(curve)
    if any(canary.kind for canary in inserted):
        parts.append(_by_kind(inserted))
    if every:
        estimates = _table(("canary", *_ESTIMATORS))
        for canary in shown:
            figures = (_estimate(name, canary.estimates.get(name), canary.space_bits) for name in _ESTIMATORS)
            estimates.add_row(Text(shorten(canary.id, 16)), *figures)
        parts += [Text(_KEY), estimates, Text(_disagreement(measurement.canaries))]
        parts += [Text(_ODDS), _attacks(shown)]
    return Group(*parts)


def _by_kind(canaries: Sequence[CanaryMeasurement]) -> RenderableType:
    """Return how exposed each kind of detected data is: by the worst case over all probes, where there are any."""
    table = _table(("kind", "canaries", "places", "mean, bits", "highest", "greedy", f"p < {_STANDS_OUT:g}"))
    for kind in sorted({canary.kind or _OTHER_KIND for canary in canaries}):
        own = [canary for canary in canaries if (canary.kind or _OTHER_KIND) == kind]
        bits = [(canary.worst_case or canary.exposure).bits for canary in own]
        judged = [canary.worst_case for canary in own if canary.worst_case]
        table.add_row(
            kind,
            f"{len(own):,}",
            f"{sum(canary.repetitions for canary in own):,}",
            f"{sum(bits) / len(bits):.1f}",
            f"{max(bits):.1f}",
            f"{sum(canary.extraction.greedy for canary in own):,}",
            f"{sum(case.p_value < _STANDS_OUT for case in judged):,}" if judged else "-",
        )
    return Group(Text("By kind, detected data"), table)


def relearning_view(record: UnlearningRecord) -> RenderableType:
    """Return the terminal view of an attack: exposure by step, next to the retrained model's."""
    relearning = record.relearning
    if relearning is None:
        return Text(f"{record.name} was not attacked.")
    parts: list[RenderableType] = []
    for canary in dict.fromkeys(curve.canary for curve in relearning.curves):
        curves = [curve for curve in relearning.curves if curve.canary == canary]
        heads = [
            head
            for curve in curves
            for head in (_ATTACKS[curve.attack] + (", worst" if curve.probe else ""), "retrained")
        ]
        table = _table(("steps", *heads))
        for index, step in enumerate((0, *relearning.steps)):
            points = [course[index] for curve in curves for course in (curve.unlearned, curve.retrained)]
            table.add_row(str(step), *(f"{point.exposure.bits:.1f}" for point in points))
        models = f"{shorten(record.name, 40)} vs. {shorten(relearning.retrained_name, 40)}"
        parts += [Text(f"Exposure of {shorten(canary, 40)} in bits under further training: {models}"), table]
    return Group(*parts)


def verification_view(verification: Verification, *, every: bool = False) -> RenderableType:
    """Return the terminal view of a verification: each file with a remark, and the commands that repair all.

    Args:
        verification: The findings.
        every: Also show sound files.
    """
    findings = verification.findings
    shown = [finding for finding in findings if every or finding.state != "sound" or finding.detail]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("file", "state", "what"):
        table.add_column(heading, overflow="fold")
    for finding in shown:
        table.add_row(Text(shorten(finding.file, 200)), finding.state, Text(visible(finding.detail)))
    problems, number = sum(finding.state in PROBLEMS for finding in findings), len(findings)
    sound = f"All sound: {number:,} files checked."
    verdict = sound if verification.sound else f"{problems:,} of {number:,} files need repair."
    parts: list[RenderableType] = [*([table] if shown else []), Text(verdict)]
    if verification.repairs:
        commands = "\n".join(f"  {visible(line)}" for line in verification.repairs)
        parts.append(Text(f"Run these repairs in order, then verify again:\n{commands}"))
    return Group(*parts)


def _table(headings: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in headings:
        if heading == "template":
            table.add_column(heading, overflow="fold")
        else:
            table.add_column(heading, justify="left" if heading in ("canary", "method") else "right", no_wrap=True)
    return table


def _measured_row(canary: CanaryMeasurement) -> tuple[str | Text, ...]:
    exposure = canary.exposure
    return (
        Text(shorten(canary.id, 16)),
        f"{canary.repetitions:,}",
        f"{exposure.bits:.1f} of {canary.space_bits:.1f}",
        f"{exposure.low:.1f}–{exposure.high:.1f}",
    )


def _worst(canary: CanaryMeasurement) -> tuple[str, str]:
    worst = canary.worst_case
    return ("-", "-") if worst is None else (f"{worst.bits:.1f}", f"{worst.p_value:.2g}")


def _estimate(name: EstimatorName, estimate: Estimate | None, space_bits: float) -> str:
    if estimate is None:
        return "-"
    if only_bounds(name, trusted=estimate.trusted):
        return f"{estimate.low:.1f}–{estimate.high:.1f}"
    known = (estimate.low, estimate.high) not in ((estimate.bits, estimate.bits), (0.0, space_bits))
    interval = f" ({estimate.low:.1f}–{estimate.high:.1f})" if known else ""
    return f"{estimate.bits:.1f}{'' if estimate.trusted else '?'}{interval}"


def _disagreement(canaries: Sequence[CanaryMeasurement]) -> str:
    """Describe each estimator's largest difference from the headline figure, among canaries and controls."""
    lines = []
    for name in _ESTIMATORS:
        differences = [
            (canary.estimates[name].bits - canary.exposure.bits, canary.id)
            for canary in canaries
            if name in canary.estimates
            and name != canary.exposure.method
            and not only_bounds(name, trusted=canary.estimates[name].trusted)
        ]
        if differences:
            bits, identifier = max(differences, key=lambda pair: abs(pair[0]))
            lines.append(f"{name} {bits:+.1f} ({shorten(identifier, 16)})")
    return "\n  ".join(("Largest difference from the headline figure, in bits:", *lines)) if lines else ""


def _memorized(curve: MemorizationCurve) -> list[RenderableType]:
    """Return the table of exposure by repetition count, and the smallest detected count."""
    table = _table(("times", "canaries", "mean exposure", "95 % interval", "greedy", "detected"))
    for point in curve.points:
        table.add_row(
            f"{point.repetitions:,}",
            f"{point.canaries:,}" if point.repetitions else f"{point.canaries:,} controls",
            f"{point.mean_bits:.1f} of {point.ceiling_bits:.1f}",
            f"{point.low:.1f}–{point.high:.1f}" + ("*" if point.single else ""),
            f"{point.greedy:,}",
            "" if point.holm_pvalue is None else f"{'yes' if point.detected else 'no'}, p {pvalue(point.holm_pvalue)}",
        )
    detected = "none of these" if curve.detected_from is None else f"{curve.detected_from:,}"
    conclusion = f"Smallest repetition count distinguishable from unseen secrets: {detected}."
    if any(point.single for point in curve.points):
        conclusion += "\n* from a single canary: the interval does not extend to other canaries."
    heading = f"template {shorten(curve.template, 200)}" if curve.template else "all canaries"
    return [Text(f"\nBy repetitions, {heading}"), table, Text(conclusion)]


def _attacks(canaries: Sequence[CanaryMeasurement]) -> Table:
    counts = canaries[0].extraction.sampling
    table = _table(("canary", "guesses", *(f"{count.samples:,}" for count in counts), "even"))
    for canary in canaries:
        extraction = canary.extraction
        table.add_row(
            Text(shorten(canary.id, 16)),
            f"{extraction.guesses_log2:.1f}="
            if extraction.guesses_exact
            else f"{extraction.guesses_low_log2:.1f}–{extraction.guesses_high_log2:.1f}",
            *(odds(count.log2_probability, short=True) for count in extraction.sampling),
            f"{extraction.even_chance_log2:.1f}",
        )
    return table


def _and_more(number: int, every: bool) -> list[str]:
    hidden = 0 if every else number - MOST_CANARIES
    return [f"and {hidden:,} more; use -v to show them"] if hidden > 0 else []


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"
