"""What a reader decides by: what was asked, what passed, what to do next, and the commands that made each part."""

import shlex
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

from canaryaudit import formatting as figures
from canaryaudit.report.judgment import Fact, GateStatus
from canaryaudit.report.schema import CalibrationFigures, MethodSummary, Summary
from canaryaudit.report.verdicts import Verdict

Status = Literal["pass", "fail", "check", "inconclusive", "untested"]

NOTHING_UNLEARNED = "Nothing was unlearned."
_REMOVED = (Verdict.INDISTINGUISHABLE, Verdict.DAMAGED)
_GATE: dict[GateStatus, Status] = {"passed": "pass", "failed": "fail", "inconclusive": "inconclusive"}
_STAGES: dict[str, tuple[str, ...]] = {
    "insert": ("insert", "run"),
    "train": ("train", "unlearn", "run"),
    "measure": ("measure", "unlearn", "report", "run"),
    "unlearn": ("unlearn", "run"),
    "attack": ("attack", "run"),
}
"""The commands that can have run a stage, the most specific one first."""


@dataclass(frozen=True)
class Tile:
    """One condition of a successful audit.

    Attributes:
        name: The condition.
        question: The question that it answers.
        status: Whether it holds; ``check`` if a person must judge the figures.
        figure: The figures behind it, in a few words.
        section: Id of the page's section with the details.
    """

    name: str
    question: str
    status: Status
    figure: str
    section: str


@dataclass(frozen=True)
class NextStep:
    """What to do next.

    Attributes:
        sentence: The advice.
        command: The command that does it.
    """

    sentence: str
    command: str


def asked(summary: Summary) -> tuple[Fact, ...]:
    """Say what was asked, of which model and how: the questions behind every figure."""
    facts = {fact.name: fact.value for fact in summary.audited}
    probes = max((len(state.probes or ()) for canary in summary.canaries for state in (canary.before,)), default=0)
    worst = any(canary.before.worst_case for canary in summary.canaries)
    how = "with the text before the secret (the template's prefix)"
    if worst:
        how += f" and {figures.counted(probes - 1, 'other probe')}" if probes > 1 else " and other probes"
    controls = sum(template.controls for template in summary.templates)
    beside = f"compared with {figures.counted(controls, 'control')} that the model never saw" if controls else ""
    known = [
        Fact(name=name, value=facts[key]) for name, key in (("Model", "Model"), ("Secrets", "Canaries")) if key in facts
    ]
    return (*known, Fact(name="Asked", value=", ".join(filter(None, (how, beside or "without controls")))))


def worst_secret(summary: Summary) -> str:
    """Say which canary is worst and under which prompt; empty without canaries."""
    if not summary.canaries:
        return ""
    canary = summary.canaries[0]
    state, worst = canary.last, canary.last.worst_case
    space = f"of {figures.decimal(canary.space_bits)} bits"
    words = f"{figures.decimal(state.exposure.bits)} {space} with the template's prefix"
    if worst is None:
        return f"exposure {words}"
    prompt = next((p for p in summary.prompts if (p.template, p.id) == (canary.template, worst.prompt)), None)
    about = "" if prompt is None else f": “{figures.shorten(prompt.text, 60)}”" if prompt.text else f": {prompt.about}"
    case = (
        f"in the worst case of all probes {figures.decimal(worst.bits)} {space} "
        f"({figures.p_percent(worst.p_value)} of unseen secrets, asked in all the same ways, score at least as high), "
        f"asked {worst.asked}{about}"
    )
    return case if worst.family == "template" else f"{case}; {words}"


def tiles(summary: Summary) -> tuple[Tile, ...]:
    """Return the conditions of a successful audit, each with its status."""
    method = summary.method
    return (
        _efficacy(summary),
        _fidelity(method) if method else _untested("Fidelity", "Was quality kept?"),
        _efficiency(method) if method else _untested("Efficiency", "Was it faster than retraining?"),
        _controls(summary),
        _gate(summary),
    )


def _untested(name: str, question: str) -> Tile:
    return Tile(name, question, "untested", NOTHING_UNLEARNED, "limits")


def _efficacy(summary: Summary) -> Tile:
    verdict = summary.overall.verdict
    status: Status = "pass" if verdict in _REMOVED else "inconclusive" if verdict is Verdict.INCONCLUSIVE else "fail"
    if status == "pass" and summary.overall.shows_little:
        status = "untested"
    last = [canary.last for canary in summary.canaries]
    exposed = sum(state.verdict is Verdict.EXPOSED for state in last)
    known = [(c.last.exposure.bits, c.id) for c in summary.canaries if c.last.exposure.bits is not None]
    largest, of = max(known, key=lambda own: own[0], default=(None, ""))  # of equal ones the worst, which is first
    figure = f"{exposed:,} of {len(last):,} exposed; largest exposure {figures.decimal(largest)} bits "
    figure += f"({of}) " if of else ""
    figure += "with the template's prefix"
    if status == "inconclusive":
        figure = f"No verdict. {figure}"
    elif status == "untested":
        figure = f"Nothing to detect. {figure}"
    if not summary.unlearned:
        return Tile("Exposure", "Are the secrets safe in this model?", status, f"{figure}.", "exposure")
    earlier = [c.before.exposure.bits for c in summary.canaries if c.before.exposure.bits is not None]
    before = f" (before: {figures.decimal(max(earlier, default=None))})"
    if status == "pass" and summary.method and summary.method.relearning and summary.method.relearning.comes_back:
        return Tile(
            "Efficacy", "Are the secrets gone?", "check", f"{figure}{before}, but they come back.", "relearning"
        )
    return Tile("Efficacy", "Are the secrets gone?", status, f"{figure}{before}.", "exposure")


def _fidelity(method: MethodSummary) -> Tile:
    question, allowed = "Was quality kept?", method.accuracy_drop_allowed
    change, shown = method.accuracy_change, method.shown_accuracy_change
    if change is None or shown is None or allowed is None:
        return Tile("Fidelity", question, "inconclusive", "Accuracy could not be measured.", "fidelity")
    figure = (
        f"Accuracy {figures.signed(100 * shown, 2)} percentage points (allowed: {figures.signed(-100 * allowed, 2)})"
    )
    heldout = next((line.shown_change for line in method.fidelity if line.key == "heldout_accuracy"), None)
    if heldout is not None:
        figure += f"; on held-out text {figures.signed(100 * heldout, 2)}"
    if -change > allowed:
        return Tile("Fidelity", question, "fail", f"{figure}.", "fidelity")
    if heldout is not None and -heldout > allowed:
        return Tile("Fidelity", question, "check", f"{figure}: more than the limit.", "fidelity")
    return Tile("Fidelity", question, "pass", f"{figure}.", "fidelity")


def _efficiency(method: MethodSummary) -> Tile:
    question = "Was it faster than retraining?"
    times = f"{method.time}; retraining {figures.retraining_time(method.retraining_seconds, None)}"
    if method.speedup is None:
        return Tile("Efficiency", question, "untested", f"{times}.", "efficiency")
    comparison = figures.relative_speed(method.speedup)
    faster = method.speedup > 1 and comparison != "equally fast"
    caveat = method.slower_in_all if faster else ""
    status: Status = "check" if caveat else "pass" if faster else "fail"
    return Tile("Efficiency", question, status, f"{comparison}{caveat}: {times}.".capitalize(), "efficiency")


def _calibrations(summary: Summary) -> list[tuple[str, CalibrationFigures | None]]:
    if not summary.unlearned:
        return [("this model", summary.calibration_before)]
    return [("before", summary.calibration_before), ("after", summary.calibration_after)]


def _controls(summary: Summary) -> Tile:
    question, tested = "Can the figures be trusted?", _calibrations(summary)
    failed = [name for name, calibration in tested if calibration and not calibration.passed]
    missing = [name for name, calibration in tested if calibration is None]
    if failed:
        figure = f"Controls failed ({' and '.join(failed)}): the exposures are unreliable."
        return Tile("Controls", question, "fail", figure, "controls")
    if missing:
        return Tile("Controls", question, "untested", f"No controls ({' and '.join(missing)}).", "controls")
    means = ", ".join(
        f"{figures.decimal(c.mean_bits, 2)} bits" + (f" {name}" if summary.unlearned else "") for name, c in tested if c
    )
    expected = figures.decimal(tested[0][1].expected_mean_bits, 2) if tested[0][1] else figures.MISSING
    return Tile("Controls", question, "pass", f"Mean {means} (expected: {expected}).", "controls")


def _gate(summary: Summary) -> Tile:
    question, gate = "Does the pipeline pass?", summary.gate
    if gate is None:
        return Tile("Gate", question, "untested", "No gate was set (--fail-above, --fail-worse).", "next")
    return Tile("Gate", question, _GATE[gate.status], f"Limit: {gate.name}.", "gate")


def next_step(summary: Summary) -> NextStep:
    """Return what to do next, by the verdict, the controls, the gate and the relearning attack."""
    run, verdict, method = run_directory(summary), summary.overall.verdict, summary.method
    is_outside = method is not None and method.predicted == "token"
    retrain = f"canaryaudit unlearn {run} --method retrain" + (" --model hf:PATH" if is_outside else "")
    if verdict is Verdict.EXPOSED and not method:
        return NextStep(
            "Do not release this model: remove the secrets from it first.",
            f"canaryaudit unlearn {run}",
        )
    if verdict is not Verdict.EXPOSED and summary.overall.faults:
        return NextStep(
            "Do not decide by these figures: the run directory is not as it was written. Find and repair its files.",
            f"canaryaudit verify {run}",
        )
    if verdict is not Verdict.EXPOSED and any(c and not c.passed for _, c in _calibrations(summary)):
        return NextStep(
            "Do not decide by these figures: the controls failed. Measure again with more references.",
            f"canaryaudit measure {run} --model all --samples 100000",
        )
    if verdict is Verdict.INCONCLUSIVE:
        return NextStep(
            "Do not decide yet: the figures allow no verdict. Measure again with a larger budget.",
            f"canaryaudit measure {run} --model all --samples 100000 --budget 500000 --max-draws 1000000",
        )
    if verdict is Verdict.DAMAGED:
        return NextStep("Do not release this model: it lost too much quality. Retrain without the secrets.", retrain)
    if verdict is not Verdict.INDISTINGUISHABLE:
        if not method:
            return NextStep(
                "Do not release this model yet: traces of the secrets are detectable. Remove them first.",
                f"canaryaudit unlearn {run}",
            )
        what = "the secrets are still exposed" if verdict is Verdict.EXPOSED else "traces of the secrets are detectable"
        if method.method == "retrain":
            return NextStep(
                f"Do not release this model: {what} even after retraining. Look for copies of them in the corpus.",
                f"canaryaudit verify {run}",
            )
        return NextStep(f"Do not release this model: {what}. Retrain without them.", retrain)
    if summary.overall.shows_little:
        return NextStep(
            "Do not rely on this audit: there was nothing to detect. Train longer or insert secrets more often, in a "
            "new run.",
            "canaryaudit train --help",
        )
    if method and method.relearning and method.relearning.comes_back:
        return NextStep(
            "Do not release this model where others can train it further: secrets come back. Retrain without them.",
            retrain,
        )
    if summary.gate and not summary.gate.passed:
        result = "failed" if summary.gate.status == "failed" else "is inconclusive"
        return NextStep(
            f"Do not release this model: the gate {result}. Read its reasons below, mend them, and check again.",
            f"canaryaudit verify {run}",
        )
    found = "This audit found no reason against a release" + (", but read its warnings" if summary.warnings else "")
    if method and method.relearning is None and method.method != "retrain":
        makes = "asks for" if is_outside else "trains"
        return NextStep(
            f"{found}. One test is open: whether the secrets come back under further training. The command "
            f"compares with a model that never saw them, and {makes} one if there is none.",
            f"canaryaudit attack {run}",
        )
    return NextStep(
        f"{found}. Read its limitations, and gate later models on the same audit.",
        f"canaryaudit report {run} --fail-above 10",
    )


def run_directory(summary: Summary) -> str:
    """Return the run's directory as the recorded commands name it, quoted for a shell."""
    for command in summary.provenance.commands:
        for word in shlex.split(command)[1:]:
            if PurePath(word).name == summary.run:
                return shlex.quote(word)
    return shlex.quote(f"runs/{summary.run}")


def section_commands(summary: Summary) -> dict[str, str]:
    """Return the recorded command that ran each stage last; a stage whose command is unknown is left out."""
    commands: dict[str, str] = {}
    by_name = {words[1]: command for command in summary.provenance.commands if len(words := shlex.split(command)) > 1}
    for stage, names in _STAGES.items():
        if command := next((by_name[name] for name in names if name in by_name), None):
            commands[stage] = command
    return commands
