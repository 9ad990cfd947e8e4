"""The report as Markdown for code hosts, with its pictures in the same folder."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import get_args

from canaryaudit import formatting as figures
from canaryaudit.formatting import shorten
from canaryaudit.records import EstimatorName, only_bounds
from canaryaudit.report.charts.base import MOST_TEMPLATES, Chart
from canaryaudit.report.charts.estimates import bounds
from canaryaudit.report.formats.likelihood import predicted
from canaryaudit.report.schema import (
    CalibrationFigures,
    CanaryState,
    CanarySummary,
    CurveSummary,
    ExposureFigure,
    MethodSummary,
    Summary,
)
from canaryaudit.report.summary.memorization import guesses_with_interval
from canaryaudit.report.summary.privacy import epsilon_words, membership_words
from canaryaudit.report.summary.probes import PROBES_WORDS
from canaryaudit.report.summary.relearning import (
    relearning_facts,
    relearning_rows,
    relearning_rule,
    relearning_sentences,
    relearning_verdict,
)
from canaryaudit.report.verdicts import WORDS

MOST_CANARIES, MOST_CURVES = 200, 21
_SPECIAL = re.compile(r"[^\w\s.,;:()•→×–−%+=/?'^-]|_|(?<=\w)[:.](?=[^\W\d])|//")


def plain(text: str, limit: int = 2000) -> str:
    """Escape text so nothing in it acts as Markdown or HTML, using character references."""
    return _SPECIAL.sub(lambda match: "".join(f"&#{ord(c)};" for c in match[0]), shorten(text, limit))


def code(text: str, limit: int = 80) -> str:
    """Return text as code that is safe in tables too."""
    shown = shorten(text, limit)
    if not shown:
        return ""
    if shown.strip() == shown and not set(shown) & set("`|\\"):
        return f"`{shown}`"
    # A code span cannot contain these everywhere, but character references can stand for them.
    return "<code>" + "".join(c if c.isalnum() else f"&#{ord(c)};" for c in shown) + "</code>"


def render_markdown(summary: Summary, drawn: Sequence[Chart]) -> str:
    """Return the report, which refers to the charts' files in the same folder."""
    pictures = {chart.name: chart for chart in drawn}
    blocks = [
        f"# Canary audit of {code(summary.run, 120)}",
        f"## {plain(summary.overall.headline)}",
        _bullets(summary.overall.sentences),
    ]
    if summary.reveal_secrets:
        blocks.append(
            "> **This page shows secrets.** It was created with `--reveal-secrets`: handle it like the secrets."
        )
    blocks += [f"> **Warning:** {plain(warning)}" for warning in summary.warnings]
    if summary.gate:
        blocks.append(f"**Gate, {plain(summary.gate.name)}: {summary.gate.status}.**")
        blocks.append(_bullets(summary.gate.remarks[:MOST_CANARIES]))
    blocks += [
        "## Verdicts",
        "\n".join(f"- **{rule.name}**: {plain(rule.value)}" for rule in summary.overall.rule),
        "## What was audited",
    ]
    blocks.append(_table(["", ""], [[plain(fact.name), plain(fact.value, 600)] for fact in summary.audited]))
    templates = [
        [str(i), code(t.text, 200), figures.decimal(t.space_bits), f"{t.canaries:,}", f"{t.controls:,}"]
        for i, t in enumerate(summary.templates[:MOST_CANARIES], 1)
    ]
    blocks.append(_table(["Template", "Text", "Space, bits>", "Canaries>", "Controls>"], templates))
    blocks += ["## Exposure of every canary", _picture(pictures.get("exposure")), _exposures(summary)]
    if len(summary.canaries) > MOST_CANARIES:
        blocks.append(
            f"Only the {MOST_CANARIES:,} worst of {len(summary.canaries):,} canaries are shown; report.json lists all."
        )
    if any(canary.last.worst_case for canary in summary.canaries):
        blocks += ["## Probes", plain(PROBES_WORDS), _picture(pictures.get("probes")), _worst_cases(summary)]
        blocks.append(_prompts(summary))
    blocks.append(_calibrations(summary))
    if summary.memorization:
        blocks += ["## Memorization by repetitions", plain(summary.memorization.answer)]
        blocks += [_picture(pictures.get("memorization")), *map(_curve, summary.memorization.curves[:MOST_CURVES])]
    blocks += _privacy(summary)
    if summary.checkpoints:
        blocks += ["## Exposure over training", _picture(pictures.get("checkpoints"))]
    if summary.training:
        blocks += ["## Training", _picture(pictures.get("training"))]
    blocks += [
        "## Reference distributions",
        *(_picture(c) for name, c in pictures.items() if name.startswith("reference")),
    ]
    if len(summary.templates) > MOST_TEMPLATES:
        rest = len(summary.templates) - MOST_TEMPLATES
        blocks.append(f"report.json holds the distributions of {figures.counted(rest, 'more template')}.")
    blocks += ["## Comparison of estimators", _picture(pictures.get("estimates")), _estimates(summary)]
    blocks += ["## Completions", _completions(summary), _attacks(summary)]
    if summary.method:
        blocks += ["## Fidelity", _fidelity(summary.method)]
        blocks += ["## Cost", _ledger(summary.method), _steps(summary.method)]
    if len(summary.methods) > 1:
        blocks += ["## Comparison of methods", _picture(pictures.get("methods")), _methods(summary.methods)]
    blocks += _relearning(summary, pictures)
    blocks += ["## Limitations", _bullets(summary.limits), "## Provenance"]
    blocks.append(_table(["", ""], [[plain(f.name), plain(f.value, 600)] for f in summary.provenance.facts]))
    if summary.provenance.commands:
        blocks += ["Commands to reproduce the audit:", _fence(summary.provenance.commands)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _bullets(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {plain(sentence)}" for sentence in sentences)


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; a heading that ends in ``>`` aligns its column to the right."""
    names = " | ".join(heading.removesuffix(">") for heading in headings)
    rule = " | ".join("--:" if heading.endswith(">") else "---" for heading in headings)
    body = "".join(f"\n| {' | '.join(row)} |" for row in rows)
    return f"| {names} |\n| {rule} |{body}" if body else ""


def _picture(chart: Chart | None) -> str:
    return f"![{plain(chart.title)}. {plain(chart.alternative)}]({chart.file_name})" if chart else ""


def _fence(lines: Sequence[str]) -> str:
    shown = [shorten(line, 2000) for line in lines]
    longest = max((len(run) for line in shown for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return "\n".join([f"{fence}sh", *shown, fence])


def _bits(exposure: ExposureFigure) -> str:
    spread = figures.interval(exposure.low, exposure.high)
    return figures.decimal(exposure.bits) + (f" ({spread})" if spread else "") + f", {exposure.method}"


def _two_states(summary: Summary, canary: CanarySummary) -> list[CanaryState | None]:
    return [canary.before, canary.after] if summary.unlearned else [canary.before]


def _exposures(summary: Summary) -> str:
    heads = ["Exposure before, bits>", "Exposure after, bits>"] if summary.unlearned else ["Exposure, bits>"]
    rows = []
    for canary in summary.canaries[:MOST_CANARIES]:
        exposures = [_bits(state.exposure) if state else "not measured" for state in _two_states(summary, canary)]
        mark = "" if canary.targeted or not summary.unlearned else " (not selected)"
        rows.append(
            [
                code(canary.id, 40) + mark,
                code(canary.secret, 48),
                f"{canary.repetitions:,}",
                figures.decimal(canary.space_bits),
                *exposures,
                f"**{WORDS[canary.last.verdict]}**: {plain(canary.last.reason)}",
            ]
        )
    return _table(["Canary", "Secret", "Repetitions>", "Space, bits>", *heads, "Verdict"], rows)


def _worst_cases(summary: Summary) -> str:
    """Return the worst case of each canary, worst first."""
    rows = []
    for canary in summary.canaries[:MOST_CANARIES]:
        cells: list[str] = []
        for state in _two_states(summary, canary):
            worst = state.worst_case if state else None
            if worst is None:
                cells += ["–", "–", "–"]
                continue
            spread = figures.interval(worst.low, worst.high)
            cells += [
                figures.decimal(worst.bits) + (f" ({spread})" if spread else ""),
                figures.pvalue(worst.p_value),
                plain(worst.asked, 200),
            ]
        rows.append([code(canary.id, 40), *cells])
    when = (" before", " after") if summary.unlearned else ("",)
    heads = [name.format(w) for w in when for name in ("Worst case{}, bits>", "p{}>", "Probe{}")]
    return _table(["Canary", *heads], rows)


def _prompts(summary: Summary) -> str:
    """Return the prompts of the probes."""
    rows = [
        [
            str(prompt.template + 1),
            code(prompt.id, 40),
            plain(prompt.about, 120),
            figures.MISSING if prompt.text is None else code(prompt.text, 120),
        ]
        for prompt in summary.prompts[:MOST_CANARIES]
    ]
    return _table(["Template", "Prompt", "Description", "Text"], rows)


def _calibrations(summary: Summary) -> str:
    states: list[tuple[str, CalibrationFigures | None]] = [("before", summary.calibration_before)]
    if summary.unlearned:
        states.append(("after", summary.calibration_after))
    rows = [
        [
            name if summary.unlearned else "this model",
            f"{calibration.controls:,}",
            figures.decimal(calibration.mean_bits, 2),
            figures.decimal(calibration.expected_mean_bits, 2),
            figures.decimal(calibration.ks_pvalue, 3),
            "yes" if calibration.passed else "**NO: these exposures are unreliable**",
        ]
        for name, calibration in states
        if calibration
    ]
    heads = ["Controls", "Number>", "Mean exposure, bits>", "Expected>", "Kolmogorov-Smirnov p>", "Calibrated?"]
    return _table(heads, rows) or "There were no controls, so calibration was not tested."


def _estimates(summary: Summary) -> str:
    names: tuple[EstimatorName, ...] = get_args(EstimatorName)
    rows = []
    for canary in summary.canaries[:MOST_CANARIES]:
        for when, state in (("before", canary.before), ("after", canary.after)):
            if state is None:
                continue
            cells = []
            for name in names:
                line = state.estimates.get(name)
                if line and only_bounds(name, trusted=line.trusted):
                    cells.append(f"bounds {bounds(line)}")
                    continue
                spread = figures.interval(line.low, line.high) if line else ""
                cell = figures.decimal(line.bits) + (f" ({spread})" if spread else "") if line else figures.MISSING
                cells.append(cell + ("" if line is None or line.trusted else " ✗"))
            rows.append([code(canary.id, 40), when, figures.decimal(state.log_perplexity_bits), *cells])
    heads = ["Canary", "Model", "Log-perplexity, bits>", "Exact>", "Importance>", "Sampled>", "Skew-normal>"]
    table = _table(heads, rows)
    notes = ["✗: the estimator failed its own checks."] if "✗" in table else []
    notes += ["bounds: the search ran out of budget, so it only certifies bounds."] if "| bounds " in table else []
    return "\n\n".join([table, *([" ".join(notes)] if notes else [])])


def _completions(summary: Summary) -> str:
    rows = []
    # Hidden secrets have none.
    known = any(canary.before.character_bits for canary in summary.canaries)
    for canary in summary.canaries[:MOST_CANARIES]:
        states = _two_states(summary, canary)
        cells = [code(s.completion, 48) + (" **the secret**" if s.greedy else "") if s else "–" for s in states]
        guesses = [guesses_with_interval(s.guesses_log2, s.attack) if s else "–" for s in states]
        prefix = code(summary.templates[canary.template].prefix, 72)
        likely = [
            (predicted(summary.templates[canary.template].text, canary.secret, s.character_bits) if s else "")
            or figures.MISSING
            for s in states
        ]
        cells += [*(likely if known else ()), *guesses]
        rows.append([code(canary.id, 40), prefix, code(canary.secret, 48), *cells])
    when = (" before", " after") if summary.unlearned else ("",)
    names = ("Completion{}", "Characters{}", "Guesses{}>") if known else ("Completion{}", "Guesses{}>")
    table = _table(["Canary", "Prompt", "Secret", *(name.format(w) for name in names for w in when)], rows)
    if not known:
        return table
    return (
        f"{table}\n\nPredicted: characters of the secret to which the model, given the preceding ones, assigns a "
        "probability above 1/2."
    )


def _attacks(summary: Summary) -> str:
    """Return the success probabilities of an attacker who samples."""
    rows, heads = [], ["Canary", "Model"]
    for canary in summary.canaries[:MOST_CANARIES]:
        for when, state in (("before", canary.before), ("after", canary.after)):
            if state is None or state.attack is None:
                continue
            attack = state.attack
            heads = ["Canary", "Model", *(f"After {figures.counted(o.samples, 'sample')}>" for o in attack.sampling)]
            chances = [figures.odds(odds.log2_probability) for odds in attack.sampling]
            rows.append([code(canary.id, 40), when, *chances, figures.guesses(attack.even_chance_log2)])
    table = _table([*heads, "Samples for a 50 % chance>"], rows)
    return table and (
        "Probability that the secret is among completions sampled from the model at temperature 1, given the same "
        f"prompt:\n\n{table}"
    )


def _privacy(summary: Summary) -> list[str]:
    if not summary.privacy_before:
        return []
    models = [("before" if summary.unlearned else "this model", summary.privacy_before)]
    models += [("after", summary.privacy_after)] if summary.privacy_after else []
    rows = [[name, membership_words(own), epsilon_words(own)] for name, own in models]
    return ["## Membership and privacy loss", _table(["Model", "Membership", "Epsilon"], rows)]


def _curve(curve: CurveSummary) -> str:
    rows = []
    for when, points in (("before", curve.before), ("after", curve.after)):
        for point in points:
            spread = f"{figures.decimal(point.low)} to {figures.decimal(point.high)}"
            share = f"{figures.percent(point.greedy_low, 0)} to {figures.percent(point.greedy_high, 0)}"
            rows.append(
                [
                    f"{point.repetitions:,}" + ("" if point.repetitions else " (controls)"),
                    when,
                    f"{point.canaries:,}",
                    f"{figures.decimal(point.mean_bits)} of {figures.decimal(point.ceiling_bits)}",
                    spread + (" (one canary)" if point.single else ""),
                    f"{point.greedy:,} ({share})",
                    figures.pvalue(point.holm_pvalue),
                    figures.MISSING if point.holm_pvalue is None else "**yes**" if point.detected else "no",
                ]
            )
    name = "All templates" if curve.template is None else f"Template {curve.template + 1}"
    heads = ["Repetitions>", "Model", "Canaries>", "Mean exposure, bits>", "95 % interval>", "Completed greedily>"]
    return f"{name}:\n\n" + _table([*heads, "p, corrected>", "Detectable"], rows)


def _fidelity(method: MethodSummary) -> str:
    rows = []
    for line in method.fidelity:
        if line.unit == "share":
            cells = [figures.percent(line.before), figures.percent(line.after), figures.points(line.shown_change)]
        else:
            cells = [
                figures.decimal(line.before, 3),
                figures.decimal(line.after, 3),
                figures.signed(line.shown_change, 3),
            ]
        rows.append([line.name, *cells])
    table = _table(["Figure", "Before>", "After>", "Change>"], rows)
    allowed = figures.points(method.accuracy_drop_allowed).lstrip("+")
    limit = f"Largest drop allowed in the first line: {allowed}."
    if not method.has_heldout:
        limit += f" There are no held-out figures: {figures.NOTHING_HELD_OUT}."
    return f"{table}\n\n{limit}"


def _ledger(method: MethodSummary) -> str:
    rows = [
        ["Method", f"{method.method}, {method.scope}, replacement {code(method.replacement)} ({code(method.name)})"],
        *([["Started from", "the result of " + ", ".join(map(code, method.lineage))]] if method.lineage else []),
        ["Time", method.time],
        ["Retraining", figures.retraining_time(method.retraining_seconds, method.speedup)],
        ["Gradients", f"{figures.decimal(method.gradients, 0)} passes over one training window"],
        ["Curvature products", f"{method.curvature_products:,}"],
        [
            "Windows",
            f"{method.affected_windows:,} containing a secret, {method.retention_windows:,} for retention",
        ],
        *(["Note", plain(note, 600)] for note in method.notes),
    ]
    return _table(["", ""], rows)


def _steps(method: MethodSummary) -> str:
    heads = [
        "Step>",
        "Norm>",
        "Objective before>",
        "Objective after>",
        "Damping>",
        "Residual>",
        "Smallest curvature>",
        "Converged",
    ]
    rows = [
        [
            str(number),
            figures.significant(step.step_norm),
            figures.significant(step.objective_before),
            figures.significant(step.objective_after),
            figures.significant(step.damping),
            figures.significant(step.residual),
            figures.significant(step.curvature_min),
            figures.MISSING if step.converged is None else "yes" if step.converged else "**NO**",
        ]
        for number, step in enumerate(method.steps[:MOST_CANARIES], 1)
    ]
    return _table(heads, rows)


def _relearning(summary: Summary, pictures: Mapping[str, Chart]) -> list[str]:
    """Return the section on relearning attacks, or nothing if there were none."""
    blocks = []
    for place, method in enumerate(summary.methods, 1):
        if (relearning := method.relearning) is None:
            continue
        blocks += [f"### {code(method.name, 40)}: {relearning_verdict(method)}"]
        blocks += [
            _bullets(relearning_sentences(relearning, method.speedup)),
            _picture(pictures.get(f"relearning-{place}")),
        ]
        rows = [[code(row[0], 40), *map(plain, row[1:])] for row in relearning_rows(relearning)]
        blocks.append(_table(["Canary", "Trained on", "Model", *(f"{step}>" for step in (0, *relearning.steps))], rows))
        blocks.append(
            f"Exposure in bits by number of steps. {plain(relearning_facts(relearning))} {relearning_rule(relearning)}"
        )
    return ["## Relearning attacks", *blocks] if blocks else []


def _methods(methods: Sequence[MethodSummary]) -> str:
    rows = [
        [
            code(m.name, 40)
            + (f", after {', '.join(code(name, 40) for name in m.lineage)}" if m.lineage else "")
            + (" (shown above)" if m.shown else ""),
            f"{m.method}, {m.scope}",
            code(m.replacement, 40),
            WORDS[m.verdict] if m.verdict else "not measured",
            figures.decimal(m.max_exposure_bits),
            figures.decimal(m.mean_exposure_bits),
            figures.points(m.shown_accuracy_change),
            figures.signed(m.shown_heldout_loss_change, 3),
            figures.duration(m.seconds),
            figures.times(m.speedup),
        ]
        for m in methods
    ]
    heads = ["Name", "Method", "Replacement", "Verdict", "Largest exposure>", "Mean exposure>", "Accuracy, change>"]
    return _table([*heads, "Held-out loss, change>", "Time>", "Speedup>"], rows)
