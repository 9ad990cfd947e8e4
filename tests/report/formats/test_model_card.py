import pytest
from markdown_it import MarkdownIt

from canaryaudit.report.formats.model_card import render_model_card
from tests.report import builders as make
from tests.report.formats.test_formats import HOSTILE, Page, hostile_summary


def test_the_section_says_verdict_figures_limits_and_version():
    text = render_model_card(make.before_after())
    for words in (
        "## Memorization audit",
        "No memorization detected",
        "| Largest exposure | 3.0 bits; before unlearning 33.2 |",
        "5 indistinguishable from unseen",
        "−0.10 points",
        "### Limitations",
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


@pytest.mark.parametrize(
    ("origins", "said"),
    [
        (["generated", "given"], "2 secrets inserted into the training text: 2 "),
        (["given"], "1 secret inserted into the training text: 1 "),
        (["located", "located"], "2 secrets located in the training text, none inserted: 2 "),
        (
            ["generated", "located", "given"],
            "3 secrets: 2 inserted into the training text, 1 located in it: 3 ",
        ),
    ],
)
def test_the_section_says_how_the_secrets_came_into_the_text(origins, said):
    secrets = ["7291048365", "0042719386", "5518230947"]
    canaries = [
        make.given(secret, name=f"canary-{place:02}").model_copy(update={"origin": origin})
        for place, (secret, origin) in enumerate(zip(secrets, origins, strict=False), 1)
    ]
    bits = {canary.id: 1.0 for canary in canaries}
    text = render_model_card(make.before_after(bits, bits, make.canary_set(canaries)))
    assert f"| Canaries | {said}indistinguishable from unseen |" in text
    assert "| Canary | Repetitions |" in text


def test_warnings_go_along():
    assert "**Warning:** CALIBRATION FAILED" in render_model_card(make.before_after(calibrated=False))


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
