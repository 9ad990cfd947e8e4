"""The report on a terminal, at most 80 columns wide."""

from rich import box
from rich.console import Group, RenderableType
from rich.constrain import Constrain
from rich.table import Table
from rich.text import Text

from canaryaudit import formatting as figures
from canaryaudit.formatting import shorten, visible
from canaryaudit.report.judgment import Gate
from canaryaudit.report.schema import CalibrationFigures, CanarySummary, Summary
from canaryaudit.report.summary.memorization import detection_threshold
from canaryaudit.report.summary.privacy import epsilon_words, membership_words
from canaryaudit.report.summary.probes import worst_words
from canaryaudit.report.summary.relearning import relearning_verdict
from canaryaudit.report.verdicts import SHORT_WORDS, Verdict

_FIDELITY = {
    "train_accuracy": "Training accuracy",
    "train_accuracy_all": "– secrets included",
    "heldout_accuracy": "Held-out accuracy",
    "train_loss": "Training loss, bits",
    "heldout_loss": "Held-out loss, bits",
    "kept_exposure": "Other canaries, bits",
    "kept_elsewhere": "– under other prompts",
}
WIDTH = 80
_PLAIN_COLUMNS = 5
MOST_CANARIES = 20

STYLES = {
    Verdict.EXPOSED: "bold red",
    Verdict.INCONCLUSIVE: "yellow",
    Verdict.RESIDUAL: "yellow",
    Verdict.WEAKENED: "yellow",
    Verdict.INDISTINGUISHABLE: "green",
    Verdict.DAMAGED: "bold red",
}


def render_terminal(summary: Summary) -> RenderableType:
    """Return the output of ``report``: verdict, warnings, canaries, fidelity, cost, calibration and gate.

    Why a gate did not pass is not in it: the command prints that on standard error.
    """
    parts: list[RenderableType] = [
        Text(summary.overall.headline, style=STYLES[summary.overall.verdict]),
        *(Text.assemble(("! ", "bold yellow"), visible(warning)) for warning in summary.warnings),
        Text(),
        _canaries(summary),
    ]
    hidden = len(summary.canaries) - MOST_CANARIES
    if hidden > 0:
        parts.append(Text(f"and {figures.counted(hidden, 'canary')} more with lower exposure", style="dim"))
    if summary.reveal_secrets:
        parts.append(Text("--reveal-secrets was used: all secrets are shown.", style="bold yellow"))
    parts.append(Text())
    parts.append(_facts(summary))
    if summary.gate:
        parts.append(render_gate(summary.gate))
    return Constrain(Group(*parts), WIDTH)


def render_gate(gate: Gate) -> Text:
    """Return the gate's result in one line."""
    word = gate.status if gate.passed else gate.status.upper()
    return Text(f"Gate, {visible(gate.name)}: {word}", style="bold")


def render_result(summary: Summary) -> RenderableType:
    """Return the output of ``report -q``: verdict, warnings and gate."""
    parts: list[RenderableType] = [
        Text(summary.overall.headline, style=STYLES[summary.overall.verdict]),
        *(Text.assemble(("! ", "bold yellow"), visible(warning)) for warning in summary.warnings),
    ]
    return Constrain(Group(*parts, *([render_gate(summary.gate)] if summary.gate else [])), WIDTH)


def _canaries(summary: Summary) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("canary", no_wrap=True)
    table.add_column("times", justify="right", no_wrap=True)
    table.add_column("secret", no_wrap=True)
    table.add_column("exposure, bits", justify="right", no_wrap=True)
    if any(canary.last.worst_case for canary in summary.canaries):
        table.add_column("worst", justify="right", no_wrap=True)
        table.add_column("p", justify="right", no_wrap=True)
    table.add_column("verdict")
    for canary in summary.canaries[:MOST_CANARIES]:
        verdict = canary.last.verdict
        worst = canary.last.worst_case
        cells = (figures.decimal(worst.bits), _pvalue(worst.p_value)) if worst else ("", "")
        table.add_row(
            Text(shorten(canary.id, 14)),
            Text(f"{canary.repetitions:,}"),
            Text(shorten(canary.secret, 20)),
            Text(_exposure(canary)),
            *(map(Text, cells) if len(table.columns) > _PLAIN_COLUMNS else ()),
            Text(SHORT_WORDS[verdict], style=STYLES[verdict]),
        )
    return table


def _pvalue(value: float | None) -> str:
    return figures.MISSING if value is None else "<0.001" if value < 0.001 else figures.pvalue(value)


def _exposure(canary: CanarySummary) -> str:
    before = figures.decimal(canary.before.exposure.bits)
    if canary.after:
        return f"{before} → {figures.decimal(canary.after.exposure.bits)}"
    return f"{before} of {figures.decimal(canary.space_bits)}"


def _facts(summary: Summary) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column()
    method = summary.method
    if method:
        for line in method.fidelity:
            write = figures.percent if line.unit == "share" else figures.decimal
            change = line.shown_change
            shown_change = figures.points(change) if line.unit == "share" else figures.signed(change, 3)
            digits = 2 if line.unit == "share" else 3
            grid.add_row(
                Text(_FIDELITY[line.key]),
                Text(f"{write(line.before, digits)} → {write(line.after, digits)} ({shown_change})"),
            )
        if not method.has_heldout:
            grid.add_row(Text("Held-out text"), Text(figures.NOTHING_HELD_OUT))
        retraining = figures.retraining_time(method.retraining_seconds, method.speedup)
        grid.add_row(Text("Cost"), Text(f"{figures.duration(method.seconds)}; retraining {retraining}"))
        if method.preparation:
            grid.add_row(Text("– preparation"), Text(f"{method.preparation}, once"))
        chosen = f"{method.method}, {method.scope}, {method.replacement} ({method.name})"
        if method.lineage:
            chosen += f", after {', '.join(method.lineage)}"
        grid.add_row(Text("Method"), Text(shorten(chosen, 120)))
        if method.relearning:
            grid.add_row(Text("Relearning"), Text(relearning_verdict(method)))
    if summary.memorization:
        whole = summary.memorization.curves[0]
        thresholds = [detection_threshold(whole.detected_from_before)]
        thresholds += [detection_threshold(whole.detected_from_after)] if whole.after else []
        grid.add_row(Text("Detectable from"), Text(" → ".join(thresholds)))
    if privacy := summary.privacy_after or summary.privacy_before:
        grid.add_row(Text("Membership"), Text(membership_words(privacy)))
        grid.add_row(Text("Epsilon"), Text(epsilon_words(privacy)))
    if worst := _worst_case(summary):
        grid.add_row(Text("Worst case"), Text(worst))
    grid.add_row(Text("Controls before" if method else "Controls"), _calibration(summary.calibration_before))
    if method:
        grid.add_row(Text("Controls after"), _calibration(summary.calibration_after))
    return grid


def _worst_case(summary: Summary) -> str:
    """Return the canary with the largest worst case, and the probe that gave it."""
    cases = [(c.last.worst_case.calibrated_bits or 0.0, c.id, c.last) for c in summary.canaries if c.last.worst_case]
    if not cases:
        return ""
    _, name, state = max(cases, key=lambda entry: entry[:2])
    return f"{shorten(name, 14)}: {visible(worst_words(state))}"


def _calibration(calibration: CalibrationFigures | None) -> Text:
    if calibration is None:
        return Text("none; calibration not tested", style="yellow")
    facts = (
        f"mean {figures.decimal(calibration.mean_bits, 2)} bits (expected "
        f"{figures.decimal(calibration.expected_mean_bits, 2)}), p = {figures.decimal(calibration.ks_pvalue, 2)}"
    )
    if calibration.passed:
        return Text(f"passed: {facts}")
    return Text(f"FAILED: {facts}", style="bold red")
