"""Tests of canaryaudit.report.summary.memorization, and of what the formats make of it."""

import math

import pytest

from canaryaudit import formatting as figures
from tests.report import builders as make
from tests.report.formats.test_formats import every_output


def test_the_summary_names_the_smallest_number_of_repetitions_before_and_after():
    found = make.before_after().memorization
    assert found is not None
    whole = found.curves[0]
    assert (whole.template, whole.detected_from_before, whole.detected_from_after) == (None, 4, None)
    assert [point.repetitions for point in whole.before] == [0, 1, 4, 8, 16]
    assert [curve.template for curve in found.curves] == [None, 0, 1]
    assert found.answer.endswith("unseen secrets: 4 before unlearning, none of those tested after it.")


def test_failed_controls_take_the_answer_back():
    found = make.before_after(calibrated=False).memorization
    assert found is not None
    assert found.answer.endswith("The controls failed, so this is unreliable.")


def test_every_format_shows_curve_and_odds(tmp_path):
    outputs = every_output(make.before_after(), tmp_path)
    for name in ("report.html", "report.md"):
        assert "Memorization by repetitions" in outputs[name]
        assert "almost certain" in outputs[name]
        assert "1 (exact)" in outputs[name]
    assert "almost certain <small>in 10,000 samples</small>" in outputs["report.html"]
    assert "Detectable from      4 repetitions → not detectable" in outputs["terminal"]
    assert ">after<" in outputs["memorization.svg"]
    assert 'aria-labelledby="memorization-caption"' in outputs["report.html"]


def test_without_an_unlearning_there_is_one_curve(tmp_path):
    outputs = every_output(make.before_after(after=None), tmp_path)
    assert ">after<" not in outputs["memorization.svg"]
    assert "unseen secrets: 4." in outputs["report.md"]


def test_canaries_inserted_equally_often_make_no_curve(tmp_path):
    canaries = make.canary_set([make.given("0123456789")])
    summary = make.before_after({"canary-01": 33.3}, None, canaries)
    assert summary.memorization is None
    assert "memorization.svg" not in every_output(summary, tmp_path)


@pytest.mark.parametrize(
    ("chance", "words", "short"),
    [
        (1.0, "almost certain", "certain"),
        (0.5, "50 in 100", "50 in 100"),
        (1 / 12, "1 in 12", "1 in 12"),
        (2.0**-900, "1 in 10^271", "1 in 10^271"),
        (1 / 3.45e6, "1 in 3.45 million", "1 in 10^7"),
    ],
)
def test_odds_are_written_in_plain_words(chance, words, short):
    assert figures.odds(math.log2(chance)) == words
    assert figures.odds(math.log2(chance), short=True) == short


def test_odds_that_are_missing_are_a_dash():
    assert figures.odds(None) == figures.pvalue(None) == figures.MISSING
    assert figures.pvalue(0.0001) == "below 0.001"
