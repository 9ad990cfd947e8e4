"""Tests of canaryaudit.cli.tables: exposure against repetitions, and the odds of sampling, on a terminal."""

import io

from rich.console import Console

from canaryaudit.cli.tables import measurement_view
from tests.report import builders as make


def shown(every: bool, **changes: object) -> str:
    canaries = make.canary_set()
    measurement = make.measurement(canaries, make.EXPOSED).model_copy(update=changes)
    file = io.StringIO()
    Console(file=file, width=80).print(measurement_view(measurement, every=every))
    return file.getvalue()


def test_a_measurement_shows_the_curve_and_its_answer() -> None:
    text = shown(every=False)
    assert "By repetitions, all canaries" in text
    assert "64 controls" in text
    assert "Smallest repetition count distinguishable from unseen secrets: 4." in text
    assert "from a single canary: the interval does not extend" in text
    assert "template" not in text


def test_all_figures_hold_each_templates_curve_and_the_odds() -> None:
    text = shown(every=True)
    assert "By repetitions, template my telephone number is" in text
    assert "1,000,000" in text
    assert "certain" in text
    assert "0.0=" in text
    assert "Largest difference from the headline figure, in bits:" in text
    assert "skew-normal" in text.split("Largest difference")[1]
    assert all(len(line) <= 80 for line in text.splitlines())


def test_without_curves_there_is_no_table_of_repetitions() -> None:
    assert "By repetitions" not in shown(every=False, memorization=())


def test_certified_bounds_are_shown_as_bounds_and_stray_from_no_figure() -> None:
    canaries = make.canary_set()
    found = make.with_bounds(make.measurement(canaries, make.GONE), 0.0, 15.8)
    file = io.StringIO()
    Console(file=file, width=80).print(measurement_view(found, every=True))
    text = file.getvalue()
    assert "0.0–15.8 " in text
    assert "exact" not in text.split("Largest difference")[1].split("\n\n")[0]


def test_detected_data_are_summed_up_by_kind() -> None:
    canaries = make.canary_set()
    found = make.measurement(canaries, make.EXPOSED)
    kinds = iter(("phone", "email", "phone"))
    named = tuple(own if own.control else own.model_copy(update={"kind": next(kinds, None)}) for own in found.canaries)
    text = shown(every=False, canaries=named)
    rows = {
        line.split()[0]: line.split()[1:]
        for line in text.split("By kind")[1].splitlines()
        if line.strip()[:1].isalpha()
    }
    phones = [own for own in named if own.kind == "phone"]
    bits = [(own.worst_case or own.exposure).bits for own in phones]
    places = sum(own.repetitions for own in phones)
    assert rows["phone"][:4] == ["2", f"{places}", f"{sum(bits) / 2:.1f}", f"{max(bits):.1f}"]
    assert rows["email"][0] == "1"
    assert "By kind" not in shown(every=False)
