"""Tests of canaryaudit.canaries.masking."""

from hypothesis import given
from hypothesis import strategies as st

from canaryaudit.canaries.canary import Canary, CanarySet
from canaryaudit.canaries.masking import hide_given, hide_secrets, mask_completion

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


def canaries(*parts: tuple[str, str, bool]) -> CanarySet:
    made = (
        Canary(
            id=f"canary-{number}",
            template=template,
            completion=completion,
            repetitions=1,
            origin="given" if given else "generated",
        )
        for number, (template, completion, given) in enumerate(parts)
    )
    return CanarySet(corpus_symbols="abc", canaries=tuple(made))


def shown(text: str, canary_set: CanarySet) -> list[str]:
    return [hide_given(text, canary, canary_set) for canary in canary_set.canaries]


def test_no_canary_with_the_same_words_before_it_gives_a_given_secret_away() -> None:
    canary_set = canaries(
        ("pin {digits:4}.", "1234", True),
        ("pin {digits:4}.", "9876", False),
        ("PIN {digits:4}!", "5678", True),
        ("key {digits:4}.", "1111", False),
    )
    # What agrees with one's own secret is marked differently from what agrees with another's; runs go everywhere.
    assert shown("1299", canary_set) == ["••99", "◦◦99", "◦◦99", "1299"]
    assert shown("5634", canary_set) == ["◦◦••", "◦◦◦◦", "••◦◦", "5634"]
    assert shown("1234", canary_set) == ["••••", "◦◦◦◦", "◦◦◦◦", "◦◦◦◦"]
    assert shown("0000", canary_set) == ["0000"] * 4


def test_what_was_generated_may_be_shown() -> None:
    assert shown("1234", canaries(("pin {digits:4}.", "1234", False))) == ["1234"]


def test_nothing_is_shown_of_a_given_choice_of_words() -> None:
    lamp = "the lamp is {choice:green|scarlet}."
    canary_set = canaries((lamp, "scarlet", True), (lamp, "green", False), ("pin {digits:2}.", "12", False))
    elsewhere = {"scarlet": "◦◦◦◦◦◦◦", "scar": "◦◦◦◦", "green": "green", "": ""}
    for text, seen in elsewhere.items():
        assert shown(text, canary_set) == ["(hidden)", "(hidden)", seen]
