"""The page's other parts: ten canaries at once, three seeds under attack, requests as they grow."""

from collections.abc import Callable

import numpy as np
from scipy import stats

from tests.reproduction.cells import NONE, average, figure, interval, signed, table, times, worst_case
from tests.reproduction.results import Case, Results

UNSEEN = "1.44"


def render(results: Results) -> list[str]:
    """Return the sections' paragraphs."""
    sections: list[tuple[str, str, Callable[[list[Case]], list[str]]]] = [
        ("ten", "Ten random canaries of three templates at once", _ten),
        ("seeds", "The published telephone number, by seed, and under attack", _seeds),
        ("growth", "More and more at once, and one after another", _growth),
    ]
    parts = []
    for stage, title, write in sections:
        cases = results.of(stage)
        parts += [f"## {title}\n", *(write(cases) if cases else ["Not run.\n"])]
    return parts


def against_controls(case: Case) -> tuple[float, float]:
    """Return the p-values of two Kolmogorov-Smirnov tests of the forgotten secrets' exposures.

    Returns:
        Of the hypothesis that they are distributed as the controls' are, and that their law is the exponential one
        of secrets never seen.
    """
    found = np.array([own.exposure_bits for own in case.chosen])
    two = stats.ks_2samp(found, np.array(case.control_bits), method="exact")
    one = stats.kstest(found, "expon", args=(0, 1 / np.log(2)))
    return float(two.pvalue), float(one.pvalue)


def _one(cases: list[Case], name: str, run: str | None = None) -> Case | None:
    return next((case for case in cases if case.name == name and run in (None, case.run) and not case.refused), None)


def _ten(cases: list[Case]) -> list[str]:
    before, after, again = (_one(cases, name) for name in ("original", "default", "retrain"))
    words = "Six, eight and ten digits, each 2, 6, 15 or 30 times in the text."
    if before is None or after is None:
        refusal = next((case.refused for case in cases if case.refused), "")
        return [f"{words} {'Refused: ' + refusal if refusal else 'The default was not run.'}\n"]
    two, one = against_controls(after)
    mean = average(own.exposure_bits for own in after.chosen) or 0.0
    controls = average(after.control_bits)
    verdict = f"{'met' if mean <= 2 else 'missed'} by {abs(mean - 2):.2f} bits"
    rows = [
        [
            own.id,
            f"{own.length} digits",
            str(own.repetitions),
            interval(old),
            interval(own),
            worst_case(own),
            *([interval(other), worst_case(other)] if other else []),
        ]
        for own, old, other in zip(
            after.exposed, before.exposed, again.exposed if again else [None] * len(after.exposed), strict=True
        )
    ]
    head = ["canary", "secret", "times", "exposure before", "after the default", "its worst case"]
    head += ["retrained", "its worst case"] if again else []
    return [
        f"{words} Measured with {len(after.control_bits)} controls, whose mean is {figure(controls, 2)} bits ({UNSEEN} "
        "expected).\n",
        f"- Mean exposure after the default {mean:.2f} bits (target at most 2.0: {verdict}); before "
        f"{figure(average(own.exposure_bits for own in before.chosen))}.\n"
        f"- Kolmogorov-Smirnov against the controls: p = {two:.2f} (target above 0.05: "
        f"{'met' if two > 0.05 else 'missed'}); against the exponential law of secrets never seen: p = {one:.2f}.\n"
        f"{_worst_cases(after)}"
        f"- {_kept(before, after)}; {figure(after.seconds)} s, where the training took {figure(before.seconds)} s "
        f"({times(before.seconds, after.seconds)}).\n",
        *_notes([after]),
        table(head, rows, left=2),
    ]


def _worst_cases(case: Case) -> str:
    """Return whether worst cases are distributed as the controls' are, in words; nothing where none was measured."""
    found = [own.worst_p_value for own in case.chosen if own.worst_p_value is not None]
    if not found or not case.control_p_values:
        return ""
    two = float(stats.ks_2samp(found, case.control_p_values, method="exact").pvalue)
    return (
        f"- However they are asked (worst case over all probes): least p {min(found):.2g}, Kolmogorov-Smirnov against "
        f"the controls' worst cases p = {two:.2f} (target above 0.05: {'met' if two > 0.05 else 'missed'}).\n"
    )


def _notes(cases: list[Case]) -> list[str]:
    """Return what the updates noted of themselves, each once."""
    notes = dict.fromkeys(note for case in cases for note in case.notes)
    return [f"- The update's own notes: {'; '.join(notes)}.\n"] if notes else []


def _kept(before: Case, after: Case) -> str:
    """Return what became of accuracy and held-out loss, in words."""
    old, new = before.heldout_loss, after.heldout_loss
    relative = None if old is None or new is None else 100 * (new / old - 1)
    return (
        f"Accuracy on training text outside the secrets {signed(_lost(before, after))} points, held-out loss "
        f"{signed(relative)} %"
    )


def _lost(before: Case, after: Case) -> float | None:
    if before.train_accuracy is None or after.train_accuracy is None:
        return None
    return 100 * (after.train_accuracy - before.train_accuracy)


def _seeds(cases: list[Case]) -> list[str]:
    rows: list[list[str]] = []
    curves: list[list[str]] = []
    criteria: dict[str, list[float]] = {}
    steps: tuple[int, ...] = ()
    for run in sorted({case.run for case in cases}):
        before, again, after = (_one(cases, name, run) for name in ("original", "retrain", "default"))
        seed = run.removeprefix("seeds-")
        if before is None or after is None or again is None:
            continue
        lost = _lost(before, after) or 0.0
        relative = 100 * ((after.heldout_loss or 0) / (before.heldout_loss or 1) - 1)
        exposure = after.chosen[0]
        for name, value in (("exposure", exposure.exposure_bits), ("accuracy", -lost), ("loss", relative)):
            criteria.setdefault(name, []).append(value)
        if again.seconds and after.seconds:
            criteria.setdefault("time", []).append(again.seconds / after.seconds)
        rows.append(
            [
                seed,
                interval(before.chosen[0]),
                interval(exposure),
                worst_case(exposure),
                interval(again.chosen[0]),
                worst_case(again.chosen[0]),
                signed(lost),
                signed(relative),
                figure(after.seconds),
                figure(again.seconds),
                times(again.seconds, after.seconds),
            ]
        )
        for curve in after.relearning.curves if after.relearning else ():
            steps = after.relearning.steps if after.relearning else ()
            name = {"other-text": "other text", "canary-window": "its own window"}[curve.attack]
            for who, points in (("default", curve.unlearned), ("retrained", curve.retrained)):
                asked = "worst probe" if curve.probe else "own prefix"
                curves.append([seed, name, asked, who, *(figure(point.exposure.bits) for point in points)])
            if curve.attack == "other-text":
                back = max(point.exposure.bits for point in curve.unlearned) - curve.unlearned[0].exposure.bits
                criteria.setdefault("back", []).append(back)
            else:
                excess = max(
                    u.exposure.bits - r.exposure.bits for u, r in zip(curve.unlearned, curve.retrained, strict=True)
                )
                criteria.setdefault("excess", []).append(excess)
    if not rows:
        return ["The default was not run.\n"]
    head = ["seed", "before", "after the default", "its worst case", "retrained", "its worst case"]
    head += ["accuracy, points", "held-out loss, %", "seconds"]
    parts = [
        "The published number, ten digits six times in the text; each seed has places and a training of its own.\n",
        table([*head, "retraining, s", "speed-up"], rows),
        _criteria(criteria),
    ]
    if curves:
        parts += [
            "Exposure when the model is trained further, by steps of Adam with eight windows each:\n",
            table(["seed", "trained on", "asked by", "model", "0", *map(str, steps)], curves, left=4),
        ]
    return [*parts, *_not_run({row[0] for row in rows}, {curve[0] for curve in curves})]


def _not_run(found: set[str], attacked: set[str]) -> list[str]:
    """Say which seeds were left out."""
    gaps = [
        f"{what} {', '.join(missing)}"
        for what, there in (("seed", found), ("attacks on seed", attacked))
        if (missing := [seed for seed in ("0", "1", "2") if seed not in there])
    ]
    return [f"Not run: {'; '.join(gaps)}.\n"] if gaps else []


def _criteria(found: dict[str, list[float]]) -> str:
    """Return each claim beside what was found."""
    claims = (
        ("exposure", "exposure against fresh references, mean", 2.5, False, np.mean, "bits"),
        ("accuracy", "accuracy lost outside the secret, largest", 0.2, False, max, "points"),
        ("loss", "held-out loss up, largest", 1.0, False, max, "%"),
        ("time", "retraining's seconds over the update's, smallest", 50.0, True, min, "times"),
        ("back", "brought back by other text, largest", 1.0, False, max, "bits"),
        (
            "excess",
            "above the retrained model under the one-window attack, largest at any step",
            2.0,
            False,
            max,
            "bits",
        ),
    )
    rows = []
    for key, words, limit, least, fold, unit in claims:
        values = found.get(key)
        if not values:
            rows.append([words, f"{'at least' if least else 'at most'} {limit:g} {unit}", NONE, "not run"])
            continue
        value = float(fold(values))
        met = value >= limit if least else value <= limit
        rows.append(
            [
                words,
                f"{'at least' if least else 'at most'} {limit:g} {unit}",
                f"{value:.2f}".replace("-", "−"),
                f"{'met' if met else '**missed**'} by {abs(value - limit):.2f}",
            ]
        )
    return table(["claim", "wanted", "found", ""], rows, left=2)


def _growth(cases: list[Case]) -> list[str]:
    before = _one(cases, "original")
    if before is None:
        return ["The default was not run.\n"]
    repetitions = sorted({own.repetitions for own in before.exposed})
    words = (
        f"One model with {len(before.exposed):,} canaries of ten digits over "
        f"{len({own.template for own in before.exposed})} templates, {repetitions[0]} to {repetitions[-1]} times "
        f"each; mean exposure before {figure(average(own.exposure_bits for own in before.exposed))} bits of 33.2.\n"
    )
    counts = sorted(
        (case for case in cases if case.name.startswith("first-")), key=lambda case: len(case.canaries) or 10**6
    )
    if not counts:
        return [words, f"Training took {figure(before.seconds)} s; the default was not run.\n"]
    rows = [
        _growing(case, before, str(len(case.canaries)) if case.canaries else case.name.removeprefix("first-"))
        for case in counts
    ]
    chain = [case for case in cases if case.name.startswith("link-")]
    parts = [words, table(_GROWTH_HEAD, rows), _break_even(before, counts)]
    if chain:
        own = [
            _growing(case, before, f"{case.name.removeprefix('link-')}. request: {len(case.canaries)}")
            for case in sorted(chain, key=lambda case: case.name)
        ]
        own += [_growing(case, before, f"at once: {len(case.canaries)}") for case in cases if case.name == "at-once"]
        parts += [
            "Three requests, each from the model that the one before left, against all at once; *all asked for* is "
            "over every canary asked for so far:\n",
            table([*_GROWTH_HEAD[:2], "all asked for", *_GROWTH_HEAD[2:]], _with_earlier(cases, own)),
        ]
    return parts


_GROWTH_HEAD = ["canaries", "exposure", "others", "accuracy, points", "held-out loss, %", "seconds", "training again"]


def _growing(case: Case, before: Case, name: str) -> list[str]:
    if case.refused:
        return [name, "refused", *[NONE] * 5]
    others = [own.exposure_bits for own in case.exposed if not own.chosen]
    relative = 100 * ((case.heldout_loss or 0) / (before.heldout_loss or 1) - 1)
    return [
        name,
        figure(average(own.exposure_bits for own in case.chosen), 2),
        figure(average(others)),
        signed(_lost(before, case)),
        signed(relative),
        figure(case.seconds),
        times(before.seconds, case.seconds),
    ]


def _with_earlier(cases: list[Case], rows: list[list[str]]) -> list[list[str]]:
    """Insert the mean exposure of all canaries that were asked for up to each request."""
    chain = sorted((case for case in cases if case.name.startswith("link-")), key=lambda case: case.name)
    once = [case for case in cases if case.name == "at-once"]
    asked: set[str] = set()
    out = []
    for row, case in zip(rows, chain + once, strict=True):
        asked = asked | set(case.canaries)
        found = [own.exposure_bits for own in case.exposed if own.id in asked]
        out.append([*row[:2], figure(average(found), 2), *row[2:]])
    return out


def _break_even(before: Case, counts: list[Case]) -> str:
    """Say from where on training again is the better answer."""
    made = [case for case in counts if not case.refused]
    reasons = []
    for case in counts:
        if case.refused:
            reasons.append(f"{case.name.removeprefix('first-')} at once are refused ({case.refused.split(':')[0]})")
        elif case.seconds and before.seconds and case.seconds >= before.seconds:
            reasons.append(f"{len(case.canaries)} at once take longer than training again")
        elif (average(own.exposure_bits for own in case.chosen) or 0) > 2.5:
            mean = average(own.exposure_bits for own in case.chosen)
            reasons.append(f"{len(case.canaries)} at once are left with {figure(mean)} bits on average")
    if reasons:
        return f"Training again is the better answer where {'; where '.join(reasons)}.\n"
    last = made[-1]
    characters = sum(own.length * own.repetitions for own in last.chosen)
    return (
        f"Up to {len(last.canaries)} canaries, whose secrets fill {characters:,} characters of the text, training "
        "again was never the better answer.\n"
    )
