"""A section to paste into a model card: the audit as one page of Markdown without pictures."""

from collections import Counter

from canaryaudit import formatting as figures
from canaryaudit.report.formats.markdown import code, plain
from canaryaudit.report.schema import Summary
from canaryaudit.report.verdicts import NEVER_SEEN_BITS, SEVERITY, WORDS

MOST_CANARIES = 10


def render_model_card(summary: Summary) -> str:
    """Return the section: verdict, figures, method of measurement and limitations."""
    overall, method = summary.overall, summary.method
    counts = Counter(canary.last.verdict for canary in summary.canaries)
    shown = [f"{counts[verdict]:,} {WORDS[verdict]}" for verdict in SEVERITY if counts[verdict]]
    state = "after unlearning" if summary.unlearned else "as trained"
    rows = [
        ("Model", f"{state}; SHA-256 {_fact(summary, 'SHA-256 of the model ' + ('after' if method else 'before'))}"),
        ("Canaries", f"{_canaries(summary)}: {', '.join(shown)}"),
        ("Largest exposure", _largest(summary)),
        ("Controls", _controls(summary)),
    ]
    if method:
        change = figures.points(method.shown_accuracy_change)
        loss = f"held-out loss {figures.signed(method.shown_heldout_loss_change, 3)} bits per {method.predicted}"
        held = loss if method.has_heldout else figures.NOTHING_HELD_OUT
        rows += [
            ("Unlearning", f"{method.method}, {method.scope}, replacement {method.replacement}"),
            ("Fidelity", f"accuracy outside the secrets {change}; {held}"),
            (
                "Cost",
                f"{method.time}; retraining {figures.retraining_time(method.retraining_seconds, method.speedup)}",
            ),
        ]
    blocks = [
        "## Memorization audit",
        f"**{plain(overall.headline)}**",
        "\n".join(f"> **Warning:** {plain(warning)}" for warning in summary.warnings),
        "Exposure is how highly the model ranks a secret among all strings of the same format, in bits: log2 of the "
        "number of such strings, minus log2 of the secret's rank by likelihood (Carlini et al. 2019). An unseen secret "
        f"has an exposure of 1.44 bits on average, and below {NEVER_SEEN_BITS:.2f} bits with a probability of 95 %.",
        "| | |\n| --- | --- |\n" + "\n".join(f"| {name} | {plain(value, 600)} |" for name, value in rows),
        worst_canaries(summary),
        "### Limitations",
        "\n".join(f"- {plain(sentence)}" for sentence in summary.limits),
        f"Measured with canaryaudit {plain(_fact(summary, 'canaryaudit'))}, commit {plain(_fact(summary, 'Commit'))}.",
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _fact(summary: Summary, name: str) -> str:
    return next((fact.value for fact in summary.provenance.facts if fact.name == name), "not recorded")


def _canaries(summary: Summary) -> str:
    """Say how many secrets were audited: inserted ones and located ones."""
    total = figures.counted(len(summary.canaries), "secret")
    located = sum(canary.located for canary in summary.canaries)
    if located == 0:
        return f"{total} inserted into the training text"
    if located == len(summary.canaries):
        return f"{total} located in the training text, none inserted"
    return f"{total}: {len(summary.canaries) - located:,} inserted into the training text, {located:,} located in it"


def _largest(summary: Summary) -> str:
    def largest(states: list[float | None]) -> str:
        return figures.decimal(max((bits for bits in states if bits is not None), default=None))

    before = largest([canary.before.exposure.bits for canary in summary.canaries])
    if not summary.unlearned:
        return f"{before} bits"
    return f"{largest([canary.last.exposure.bits for canary in summary.canaries])} bits; before unlearning {before}"


def _controls(summary: Summary) -> str:
    calibration = summary.calibration_after if summary.unlearned else summary.calibration_before
    if calibration is None:
        return "none; calibration was not tested"
    return (
        f"{'passed' if calibration.passed else 'FAILED'}: {figures.counted(calibration.controls, 'unseen secret')}, "
        f"mean {figures.decimal(calibration.mean_bits, 2)} bits (expected "
        f"{figures.decimal(calibration.expected_mean_bits, 2)})"
    )


def worst_canaries(summary: Summary) -> str:
    """Return a table of the worst canaries."""
    rows = [
        f"| {code(canary.id, 40)} | {canary.repetitions:,} | {figures.decimal(canary.before.exposure.bits)} | "
        + (f"{figures.decimal(canary.last.exposure.bits)} | " if summary.unlearned else "")
        + f"{WORDS[canary.last.verdict]} |"
        for canary in summary.canaries[:MOST_CANARIES]
    ]
    after = " Exposure after, bits |" if summary.unlearned else ""
    head = f"| Canary | Repetitions | Exposure{' before' if after else ''}, bits |{after} Verdict |"
    rule = "| --- | --: | --: |" + (" --: |" if after else "") + " --- |"
    rest = len(summary.canaries) - MOST_CANARIES
    more = (
        f"\n\nThe {MOST_CANARIES} worst are listed; {figures.counted(rest, 'canary')} more with lower exposure."
        if rest > 0
        else ""
    )
    return "\n".join([head, rule, *rows]) + more
