"""The page's first part: lengths by windows by methods, and what the models say."""

from tests.reproduction.cells import (
    METHOD_NAMES,
    NONE,
    average,
    exposures,
    figure,
    interval,
    listed,
    shown,
    table,
    times,
)
from tests.reproduction.results import Case, Exposed, Results
from tests.reproduction.settings import LENGTHS, SISA

REPETITIONS = (6, 15, 30, 60)
"""About 200, 500, 1,000 and 2,000 windows of the published scheme."""
EXPECTED = ("original", "retrain", "fine-tune", "first-order", "text", "default")


def render(results: Results) -> list[str]:
    """Return the section's paragraphs; none where nothing was found."""
    cases = results.of("grid")
    if not cases:
        return ["## Lengths, windows, methods\n", "Not run.\n"]
    return [
        *_finding(cases),
        "## Means over all lengths and windows\n",
        _summary(cases),
        "## Length by windows\n",
        "Exposure in bits as *stale / fresh*, the fresh one with its 95 % interval where the rank is not known "
        "to a tenth; ● where the secret is completed greedily, † where the update was scaled back to keep within the "
        "fidelity limit. Accuracy is that on training text outside the secrets, in per cent; held-out loss is in bits "
        "a character.\n",
        *(_model(cases, repetitions) for repetitions in REPETITIONS if _of(cases, repetitions)),
        *_missing(cases),
        "## What the models say after the prefix\n",
        *_completions(cases),
    ]


def _of(cases: list[Case], repetitions: int, method: str | None = None) -> list[Case]:
    return [case for case in cases if case.run == f"grid-{repetitions}" and method in (None, case.method)]


def _made(cases: list[Case], method: str) -> list[Case]:
    return [case for case in cases if case.method == method and not case.refused]


def _finding(cases: list[Case]) -> list[str]:
    """Return the result in words, from the figures."""
    paragraphs = []
    retrained = exposures(_made(cases, "retrain"))
    text = exposures(_made(cases, "text"))
    if silent := [own for own in text if not own.greedy]:
        first = sum(own.space_bits - own.exposure_bits < 0.05 for own in silent)
        words = (
            f"**Text replacement stops the model from saying the secret, and leaves it there.** In {len(silent)} of "
            f"{len(text)} cases the model says something else after the prefix. As the public code judges those, they "
            f"have {_mean(silent, 'stale_bits')} bits of exposure on average; judged against the updated model itself, "
            f"{_mean(silent, 'exposure_bits')}, and in {first} of them the secret is still the likeliest string of its "
            "format. The code asks what the secret costs after the replacement's own first characters, where nobody "
            f"would look for it; read after the secret's own, it has {_mean(silent, 'stale_forced_bits')} bits even "
            "against the stale references."
        )
        if retrained:
            words += (
                f" By the code's figure a model *retrained* without the secrets is worse, with "
                f"{_mean(retrained, 'stale_bits')} bits; against fresh references it has "
                f"{_mean(retrained, 'exposure_bits')}, where secrets that were never seen have 1.4 on average."
            )
        paragraphs.append(words + "\n")
    others = [
        f"{words} leaves {_mean(found, 'exposure_bits')} bits"
        for method, words in _OTHERS.items()
        if (found := exposures(_made(cases, method)))
    ]
    if others:
        paragraphs.append(f"Against fresh references, {listed(others)}.\n")
    if own := exposures(_made(cases, "default")):
        paragraphs.append(
            f"**The default leaves {_mean(own, 'exposure_bits')} bits** against fresh references, where retraining "
            f"leaves {_mean(retrained, 'exposure_bits')}.\n"
        )
    return paragraphs


_OTHERS = {"first-order": "the first-order step within the fidelity limit", "fine-tune": "fine-tuning"}


def _mean(found: list[Exposed], field: str) -> str:
    return figure(average(getattr(own, field) for own in found))


def _summary(cases: list[Case]) -> str:
    rows = []
    for method, name in METHOD_NAMES.items():
        made = _made(cases, method)
        refused = sum(1 for case in cases if case.method == method and case.refused)
        if not made:
            if refused:
                rows.append([name, f"0 ({refused} refused)", *[NONE] * 8])
            continue
        found = exposures(made)
        rows.append(
            [
                name,
                f"{len(found)}" + (f" ({refused} refused)" if refused else ""),
                figure(average(own.stale_bits for own in found)),
                figure(average(own.stale_forced_bits for own in found)),
                figure(average(own.exposure_bits for own in found)),
                f"{sum(own.greedy for own in found)} of {len(found)}",
                _percent(average(case.train_accuracy for case in made)),
                figure(average(case.heldout_loss for case in made), 3),
                figure(average(case.seconds for case in made)),
                NONE if method == "original" else times(*_paired(cases, made)),
            ]
        )
    head = [
        "method",
        "cells",
        "stale, as the code",
        "stale, teacher-forced",
        "fresh",
        "completed",
        "accuracy",
        "held-out loss",
    ]
    return table([*head, "seconds", "speed-up"], rows)


def _paired(cases: list[Case], made: list[Case]) -> tuple[float | None, float | None]:
    """Return the mean seconds of retraining and of a method, over the runs that have both."""
    retraining = {case.run: case.seconds for case in _made(cases, "retrain")}
    both = [(retraining[case.run], case.seconds) for case in made if retraining.get(case.run) and case.seconds]
    return average(pair[0] for pair in both), average(pair[1] for pair in both)


def _model(cases: list[Case], repetitions: int) -> str:
    """Return one model's table: methods by lengths."""
    found = _of(cases, repetitions)
    windows = _windows(found)
    rows = []
    for method, name in METHOD_NAMES.items():
        own = [case for case in found if case.method == method]
        if own:
            made = [case for case in own if not case.refused]
            rows.append(
                [
                    name,
                    *(_cell(own, length) for length in LENGTHS),
                    _percent(average(case.train_accuracy for case in made)),
                    figure(average(case.heldout_loss for case in made), 3),
                    figure(average(case.seconds for case in made)),
                    NONE if method == "original" else times(*_paired(cases, made)),
                ]
            )
    lengths = [f"{length} digits<br>{windows.get(length, NONE)}" for length in LENGTHS]
    head = ["method", *lengths, "accuracy", "held-out loss", "seconds", "speed-up"]
    return f"### {repetitions} repetitions: windows of the published scheme (of 100 characters)\n\n{table(head, rows)}"


def _windows(found: list[Case]) -> dict[int, str]:
    """Return the affected windows of each length in both schemes, from requests for one canary."""
    single = [case for case in found if len(case.canaries) == 1]
    lengths = {own.id: own.length for case in found if case.method == "original" for own in case.exposed}
    return {
        lengths[case.canaries[0]]: f"{case.published_windows:,} ({case.windows:,})"
        for case in single
        if case.canaries[0] in lengths and case.published_windows is not None and case.windows is not None
    }


def _cell(cases: list[Case], length: int) -> str:
    for case in cases:
        for own in case.chosen:
            if own.length == length:
                scaled = "†" if any("scaled back" in note for note in case.notes) else ""
                return f"{figure(own.stale_bits)} / {interval(own)}{' ●' if own.greedy else ''}{scaled}"
    return "refused" if any(case.refused for case in cases) else NONE


def _percent(share: float | None) -> str:
    return figure(None if share is None else 100 * share, 2)


def _missing(cases: list[Case]) -> list[str]:
    """Say what was not run."""
    gaps = []
    for repetitions in REPETITIONS:
        found = _of(cases, repetitions)
        if not found:
            gaps.append(f"{repetitions} repetitions")
            continue
        absent = [
            METHOD_NAMES[method].strip("*").removeprefix("the ")
            for method in (*EXPECTED, *(f"sisa-{shards}" for shards in SISA.get(repetitions, ())))
            if len(_lengths(found, method)) < len(LENGTHS) and not any(c.refused for c in found if c.method == method)
        ]
        if absent:
            gaps.append(f"{listed(absent)} at {repetitions} repetitions")
    return [f"Not run, or not to the end: {'; '.join(gaps)}.\n"] if gaps else []


def _lengths(found: list[Case], method: str) -> set[int]:
    return {own.length for case in found if case.method == method for own in case.chosen}


def _completions(cases: list[Case]) -> list[str]:
    """Return the table of completions, of the model with most methods."""
    there = [count for count in REPETITIONS if _of(cases, count)]
    repetitions = max(there, key=lambda count: (len({case.method for case in _of(cases, count)}), count == 30))
    rows = [
        [name, str(own.length), shown(own.completion)]
        for method, name in METHOD_NAMES.items()
        for own in exposures(_of(cases, repetitions, method))
        if own.length == 10 or method in ("text", "default")
    ]
    kept = [
        f"{sum(map(_keeps_structure, found))} of {len(found)} after {METHOD_NAMES[method].strip('*')}"
        for method in ("retrain", "fine-tune", "text", "default")
        if (found := exposures(_made(cases, method)))
    ]
    words = (
        " Of all completions, those that go on with digits and then close the exclamation and the quotation, as the "
        f"text does: {', '.join(kept)}."
    )
    return [
        f"From the model with {repetitions} repetitions, 80 characters, ⏎ for a line break.{words if kept else ''}\n",
        table(["method", "digits", "completion"], rows, left=3),
    ]


def _keeps_structure(own: Exposed) -> bool:
    """Tell whether a completion is a number, closed as the template closes it."""
    head, _, _ = own.completion.partition("'")
    return head[:-1].isdigit() and head.endswith("!")
