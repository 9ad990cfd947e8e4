"""Tests of canaryaudit.masking."""

from hypothesis import given
from hypothesis import strategies as st

from canaryaudit.masking import hide_secrets, mask_completion

PLACES = [True, True, False, True, True]  # 12-34


def test_what_agrees_with_the_secret_is_hidden() -> None:
    assert mask_completion("12-34", "12-34", PLACES) == "••-••"
    assert mask_completion("92-94", "12-34", PLACES) == "9•-9•"
    assert mask_completion("12", "12-34", PLACES) == "••"
    assert mask_completion("12-3456", "12-34", PLACES) == "••-••56"


def test_a_secret_one_place_off_is_hidden_all_the_same() -> None:
    assert hide_secrets(" 123456789", ["0123456789"]) == " ◦◦◦◦◦◦◦◦◦"
    assert hide_secrets("it is HUNTER2.", ["hunter2"]) == "it is ◦◦◦◦◦◦◦."


def test_short_secrets_are_hidden_whole() -> None:
    assert hide_secrets("a 42 b 4 2", ["42"]) == "a ◦◦ b 4 2"


def test_text_without_secrets_stays() -> None:
    assert hide_secrets("nothing here", ["0123456789", ""]) == "nothing here"


@given(text=st.text("0123ab", max_size=30), secret=st.text("0123ab", min_size=1, max_size=8))
def test_no_secret_is_left_in_the_text(text: str, secret: str) -> None:
    shown = hide_secrets(text, [secret])
    assert secret not in shown
    assert len(shown) == len(text)
    assert all(s in (c, "◦") for s, c in zip(shown, text, strict=True))
