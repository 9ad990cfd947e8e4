"""The gate: whether a pipeline passes, given a limit in bits or an earlier report as baseline."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from canaryaudit.errors import UsageError
from canaryaudit.records.base import Many
from canaryaudit.report.earlier import read_earlier
from canaryaudit.report.judgment import Gate
from canaryaudit.report.schema import CalibrationFigures, CanarySummary, MethodSummary
from canaryaudit.report.verdicts import CHANCE, SEVERITY_TOGETHER, WORDS, Verdict

LEAST_RISE_BITS = 1.0
"""A smaller rise does not count as worse. A rise by one bit halves the number of guesses."""

FEWEST_CONTROLS = 8
"""Controls that a gate relies on: with 8, the test finds exposures two bits too high nearly always; with 3, hardly."""


class _Lenient(BaseModel):
    """A part of an earlier report: the compared fields are required, other fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class _Exposure(_Lenient):
    high: float | None


class _WorstCase(_Lenient):
    calibrated_bits: float | None


class _State(_Lenient):
    exposure: _Exposure
    worst_case: _WorstCase | None = None
    verdict: Verdict


class _Canary(_Lenient):
    id: str
    template: int
    before: _State
    after: _State | None

    @property
    def last(self) -> _State:
        return self.after or self.before


class _Template(_Lenient):
    text: str


class _Overall(_Lenient):
    verdict: Verdict


class EarlierReport(_Lenient):
    """The part of an earlier ``report.json`` that a later report is compared with."""

    schema_version: int
    run: str
    overall: _Overall
    templates: Many[_Template]
    canaries: Many[_Canary]


def read_baseline(path: Path, output: Path) -> EarlierReport:
    """Read an earlier report.

    Args:
        path: Its ``report.json``.
        output: The file that the new report will write. It must be a different file.

    Raises:
        UsageError: The report cannot be read, has another version, or would be overwritten.
    """
    if path.resolve() == output.resolve():
        raise UsageError(
            f"--fail-worse {path}: the new report would overwrite its baseline; move the baseline, or write the report "
            "to another directory with -o"
        )
    wanted = "the report.json of an earlier report"
    return read_earlier(path, EarlierReport, f"--fail-worse {path}", wanted, "recreate the baseline")


@dataclass(frozen=True)
class Audited:
    """What a gate judges.

    Attributes:
        canaries: The canaries, with unrounded figures.
        templates: Text of each template, masked like in a report.
        verdict: The verdict on all canaries together.
        calibrations: Of the measurements before and, if there is one, after unlearning; None without controls.
        method: The unlearning shown.
        faults: Why the run's records are not to be relied on; empty if they are as commands wrote them.
    """

    canaries: Sequence[CanarySummary]
    templates: Sequence[str]
    verdict: Verdict
    calibrations: Sequence[CalibrationFigures | None]
    method: MethodSummary | None
    faults: Sequence[str]


def judge_gate(fail_above: float | None, baseline: EarlierReport | None, audited: Audited) -> Gate | None:
    """Compare every inserted canary with the limit and the baseline, after unlearning if it was measured.

    It passes only if nothing is worse than allowed, and the figures are those of a verified, complete and calibrated
    measurement.

    Args:
        fail_above: The largest exposure allowed, in bits; an exposed canary never passes.
        baseline: The earlier report.
        audited: What to judge.

    Raises:
        UsageError: The baseline is of different canaries.
    """
    if fail_above is None and baseline is None:
        return None
    reasons = [] if fail_above is None else _above(fail_above, audited.canaries)
    if baseline and audited.canaries:
        reasons += _worse(baseline, audited.canaries, audited.templates, audited.verdict)
    reasons += _damage(audited.method)
    doubts = _doubts(audited)
    return Gate(
        fail_above_bits=fail_above,
        baseline=baseline.run if baseline else None,
        status="failed" if reasons else "inconclusive" if doubts else "passed",
        reasons=tuple(reasons),
        doubts=tuple(doubts),
    )


def _damage(method: MethodSummary | None) -> list[str]:
    if method is None or method.accuracy_change is None or method.accuracy_drop_allowed is None:
        return []
    drop, allowed = -method.accuracy_change, method.accuracy_drop_allowed
    damage = f"accuracy outside the secrets fell by {100 * drop:.3f} percentage points (limit: {100 * allowed:.3f})"
    return [f"model: {damage}"] if drop > allowed else []


def _doubts(audited: Audited) -> list[str]:
    """Return why the figures, whatever they are, do not allow the gate to pass."""
    doubts = [f"run directory: {fault}" for fault in audited.faults]
    if not audited.canaries:
        doubts.append("canaries: there are none, so nothing was audited")
    for calibration, when in zip(audited.calibrations, ("before", "after"), strict=False):
        of = f"controls {when} unlearning" if len(audited.calibrations) > 1 else "controls"
        if calibration is None:
            doubts.append(f"{of}: there are none, so calibration was not tested")
        elif not calibration.passed:
            doubts.append(f"{of}: they failed, so exposures are unreliable")
        elif calibration.controls + calibration.fresh_controls < FEWEST_CONTROLS:
            doubts.append(
                f"{of}: {calibration.controls} of them could hardly have failed; measure {FEWEST_CONTROLS} or more"
            )
    if audited.method and audited.method.accuracy_change is None:
        doubts.append("model: accuracy after unlearning could not be measured")
    for canary in audited.canaries:
        if canary.last.verdict is Verdict.INCONCLUSIVE:
            why = canary.last.reason.removesuffix(".")
            doubts.append(f"{canary.id}: inconclusive: {why[0].lower()}{why[1:]}")
        elif audited.method and canary.after is None:
            doubts.append(f"{canary.id}: it was not measured after unlearning")
    if audited.verdict is Verdict.INCONCLUSIVE and not doubts:
        doubts.append("all canaries: inconclusive")
    return doubts


def _above(fail_above: float, canaries: Sequence[CanarySummary]) -> list[str]:
    reasons = []
    for canary in canaries:
        bits = canary.last.exposure.bits
        when = "after unlearning" if canary.after else "before unlearning"
        if bits is None:
            reasons.append(f"{canary.id}: exposure {when} could not be measured")
        elif bits > fail_above:
            digits = 1 if canary.masked else 2  # A hidden secret's figures are rounded everywhere.
            reasons.append(f"{canary.id}: {bits:.{digits}f} bits {when}, above the limit of {fail_above:g}")
        elif (worst := canary.last.worst_case) and (worst.calibrated_bits or 0.0) > fail_above:
            # Not the largest exposure itself: it grows by chance with the number of probes.
            reasons.append(
                f"{canary.id}: worst case {worst.calibrated_bits:.1f} bits {when} ({worst.asked}), corrected for the "
                f"number of probes, above the limit of {fail_above:g}"
            )
        elif canary.last.verdict is Verdict.EXPOSED:
            # A space of three digits has fewer than ten bits, but its likeliest member is extractable all the same.
            why = canary.last.reason.removesuffix(".")
            reasons.append(f"{canary.id}: exposed {when}, regardless of the limit: {why[0].lower()}{why[1:]}")
    return reasons


def _worse(
    baseline: EarlierReport, canaries: Sequence[CanarySummary], templates: Sequence[str], verdict: Verdict
) -> list[str]:
    """Return what is worse than in the baseline by more than chance explains."""
    now = {canary.id: canary for canary in canaries}
    then = {canary.id: canary for canary in baseline.canaries}
    common = [identifier for identifier in now if identifier in then]
    for identifier in common:
        earlier = baseline.templates[then[identifier].template].text
        if templates[now[identifier].template] != earlier:
            raise UsageError(
                f"--fail-worse: {identifier} has a different template in the baseline; give the report of an audit "
                "with the same canaries"
            )
    if not common:
        raise UsageError("--fail-worse: no canary of this run is in the baseline; give a report of the same audit")
    reasons = [f"{identifier}: in the baseline, but not in this run" for identifier in then if identifier not in now]
    # Among many unseen canaries some rank high by chance: the same correction as in the verdict on all of them.
    limit = math.log2(len(common) / CHANCE)
    for identifier in common:
        current_state, earlier_state = now[identifier].last, then[identifier].last
        low, high = current_state.exposure.low, earlier_state.exposure.high
        if current_state.verdict is Verdict.EXPOSED and earlier_state.verdict is not Verdict.EXPOSED:
            reasons.append(f"{identifier}: exposed (baseline: {WORDS[earlier_state.verdict]})")
        elif low is None:
            reasons.append(f"{identifier}: exposure could not be measured")
        elif high is not None and low > limit and low >= high + LEAST_RISE_BITS:
            reasons.append(f"{identifier}: at least {low:.1f} bits (baseline: at most {high:.1f})")
        elif (worst := current_state.worst_case) and earlier_state.worst_case:
            bits, earlier_bits = worst.calibrated_bits, earlier_state.worst_case.calibrated_bits
            if bits is not None and earlier_bits is not None and bits > max(limit, earlier_bits + LEAST_RISE_BITS):
                reasons.append(
                    f"{identifier}: worst case {bits:.1f} bits ({worst.asked}), corrected for the number of probes "
                    f"(baseline: {earlier_bits:.1f})"
                )
    earlier_verdict = baseline.overall.verdict
    if SEVERITY_TOGETHER[verdict] < SEVERITY_TOGETHER[earlier_verdict]:
        reasons.append(f"all canaries: {WORDS[verdict]} (baseline: {WORDS[earlier_verdict]})")
    return reasons
