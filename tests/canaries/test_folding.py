"""Tests of canaryaudit.canaries.folding."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canaryaudit.canaries.folding import FoldedText, fold, occurrences

LETTERS = "aAéÉße\u0301\u0323 \n\t\u00a0\u200b\u00ad-\u2010“”’ﬁ한"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("My  SSN\n is", "my ssn\u00a0is"),
        ("José", "JOSE\u0301"),
        ("“it’s” 1‐2−3", '"it\'s" 1-2-3'),
        ("ﬁne Straße", "FINE STRASSE"),
        ("ệ", "e\u0302\u0323"),
        ("co\u00adop\u200b", "coop"),
    ],
)
def test_what_a_reader_overlooks_is_folded_away(one: str, other: str) -> None:
    assert fold(one) == fold(other)


@pytest.mark.parametrize(("one", "other"), [("a b", "ab"), ("a-b", "a b"), ("resume", "résumé"), ("'", '"')])
def test_what_a_reader_sees_is_kept(one: str, other: str) -> None:
    assert fold(one) != fold(other)


@given(st.text(LETTERS, max_size=30))
def test_folding_is_idempotent_and_the_same_for_every_normalization_form(text: str) -> None:
    assert fold(fold(text)) == fold(text)
    assert fold(unicodedata.normalize("NFC", text)) == fold(text) == fold(unicodedata.normalize("NFD", text))


@given(st.text("aßﬁ한 \n\u200b-é", max_size=30))
def test_offsets_go_back_to_where_the_same_text_begins(text: str) -> None:
    folded = FoldedText(text)
    offsets = folded.original(np.arange(len(folded.text) + 1)).tolist()
    for place, offset in enumerate(offsets):
        if offset >= 0:
            assert fold(text[:offset]) + fold(text[offset:]) == folded.text
            assert folded.text[:place] == fold(text[:offset])
    # Only places within what one character, or one run of white space, became have no offset.
    boundaries = {len(fold(text[:end])) for end in range(len(text) + 1)}
    assert {place for place, offset in enumerate(offsets) if offset < 0} == set(range(len(offsets))) - boundaries


def test_blocks_leave_no_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "My  SSN\n is “José” e\u0323\u0302 " * 9
    whole = FoldedText(text)
    monkeypatch.setattr("canaryaudit.canaries.folding._BLOCK", 3)
    parts = FoldedText(text)
    assert parts.text == whole.text
    places = np.arange(len(whole.text) + 1)
    assert parts.original(places).tolist() == whole.original(places).tolist()


@given(st.text("ab", max_size=60), st.text("ab", min_size=1, max_size=8))
def test_occurrences_are_all_of_them(text: str, words: str) -> None:
    assert list(occurrences(text, words)) == [i for i in range(len(text)) if text.startswith(words, i)]
