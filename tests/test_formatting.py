import json
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from canaryaudit import formatting as figures
from canaryaudit.formatting import finite, json_safe, shorten, visible
from canaryaudit.report.formats.markdown import code, plain
from canaryaudit.stats import LEVEL

ACTING = "\x1b\x07\r\n\t\x00\x9b\u202e\u2066\u2069\u200b\ufeff\u2028\u00ad"


def test_characters_that_act_or_stay_unseen_are_shown_as_signs():
    assert visible("a\nb") == "a↵b"
    assert visible("\x1b[31m") == "⟨U+001B⟩[31m"
    assert visible("\u202e") == "⟨U+202E⟩"
    assert not set(visible(ACTING)) & set(ACTING)


def test_no_p_value_is_rounded_to_the_level_of_the_tests():
    assert figures.SIGNIFICANCE == LEVEL
    for value in (0.0496, 0.04996, 0.0499999, 0.0500001, 0.05004, 0.0504):
        shown = float(figures.pvalue(value))
        assert (shown < LEVEL, shown > LEVEL) == (value < LEVEL, value > LEVEL), value
        share = float(figures.p_percent(value).removesuffix(" %")) / 100
        assert (share < LEVEL, share > LEVEL) == (value < LEVEL, value > LEVEL), value
    assert figures.pvalue(0.05) == "0.050"
    assert figures.p_percent(0.0005) == "below 0.1 %"


@given(st.text())
def test_visible_text_stays_as_it_is_and_never_holds_a_control_or_format_character(text):
    shown = visible(text)
    assert visible(shown) == shown
    assert all(unicodedata.category(c) not in {"Cc", "Cf", "Cs", "Zl", "Zp"} for c in shown)


@given(st.text(), st.integers(4, 200))
def test_shortened_text_keeps_to_its_limit(text, limit):
    assert len(shorten(text, limit)) <= limit


def test_a_long_text_tells_its_length_when_cut():
    assert "(100,000 characters)" in shorten("x" * 100_000, 80)


@given(st.text())
def test_json_means_the_same_when_its_unseen_characters_are_escaped(text):
    document = json_safe(json.dumps({"text": text}, ensure_ascii=False))
    assert json.loads(document) == {"text": text}
    assert visible(document) == document


@given(st.text(alphabet="a|`\\<>&*_[]()!#~$@:/.\n \u202e"))
def test_no_user_text_breaks_out_of_a_markdown_cell(text):
    for shown in (code(text), plain(text)):
        assert "|" not in shown
        assert "\n" not in shown
        assert "<" not in shown.replace("<code>", "").replace("</code>", "") or shown.startswith("`")


def test_figures_are_written_alike_everywhere():
    assert figures.decimal(-0.04) == "0.0"
    assert figures.decimal(-1234.56) == "−1,234.6"
    assert figures.decimal(None) == "–"
    assert figures.points(-0.003) == "−0.30 points"
    assert figures.signed(0.01, 3) == "+0.010"
    assert figures.guesses(0) == "1"
    assert figures.guesses(10) == "1,024"
    assert figures.guesses(33.2) == "9.87 billion"
    assert figures.guesses(5000) == "10^1505"
    assert figures.duration(152) == "2 min 32 s"
    assert figures.interval(2.0, 2.0) == ""


def test_a_speedup_is_worded_in_the_right_direction():
    assert figures.relative_speed(4.2) == "4.2x faster"
    assert figures.relative_speed(0.4) == "2.5x slower"
    assert figures.relative_speed(1.01) == "equally fast"
    assert figures.relative_speed(None) == figures.relative_speed(0.0) == figures.MISSING
    assert figures.retraining_time(39.4, 4.2) == "39.4 s (4.2x slower)"
    assert figures.retraining_time(20.0, 0.4) == "20.0 s (2.5x faster)"
    assert figures.retraining_time(20.0, None) == "20.0 s"
    assert [figures.times(factor) for factor in (45.4, 4.25, 0.4)] == ["45x", "4.2x", "0.40x"]


def test_what_json_has_no_word_for_becomes_null():
    value = {"a": [1.5, float("nan"), {"b": float("-inf")}], "c": "inf", "d": None, "e": 3}
    assert finite(value) == {"a": [1.5, None, {"b": None}], "c": "inf", "d": None, "e": 3}
    assert json.loads(json.dumps(finite(value), allow_nan=False)) == finite(value)
