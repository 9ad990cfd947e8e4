from markdown_it import MarkdownIt

from canaryaudit.report.modelcard import render_model_card
from tests.report import builders as make
from tests.report.test_formats import HOSTILE, Page, hostile_summary


def test_the_section_says_verdict_figures_limits_and_version():
    text = render_model_card(make.before_after())
    for words in (
        "## Memorisation audit",
        "No trace found",
        "| Largest exposure | 3.0 bits; before unlearning 33.2 |",
        "5 indistinguishable from never seen",
        "−0.10 points",
        "### Limits of the audit",
        "canaryaudit 0.1.0",
        make.UPDATED_SHA,
    ):
        assert words in text


def test_before_anything_was_unlearned_the_section_speaks_of_the_model_as_trained():
    text = render_model_card(make.before_after(after=None))
    assert "as trained" in text
    assert make.MODEL_SHA in text
    assert "after unlearning" not in text
    assert "Fidelity" not in text


def test_warnings_go_along():
    assert "**Mind:** CALIBRATION FAILED" in render_model_card(make.before_after(calibrated=False))


def test_it_has_neither_pictures_nor_secrets():
    text = render_model_card(make.before_after())
    assert "![" not in text
    assert not any(canary.completion in text for canary in make.canary_set().canaries)


def test_hostile_text_stays_text_in_every_row():
    text = render_model_card(hostile_summary())
    page = Page(MarkdownIt("commonmark").enable("table").render(text))
    assert not {"script", "img", "b"} & set(page.names())
    assert HOSTILE not in text
    for block in text.split("\n\n"):
        if block.startswith("|"):
            assert len({line.count("|") for line in block.splitlines()}) == 1
