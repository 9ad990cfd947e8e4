"""From Z to Z-tilde: what changes, what stays, and how deletion cuts the windows anew."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from canaryaudit.canaries.space import Lexicon
from canaryaudit.corpus.vocabulary import Vocabulary
from canaryaudit.training.data import gather
from canaryaudit.unlearning import Decoys, Deletion
from canaryaudit.unlearning.correction import Correction, sentences
from canaryaudit.unlearning.occurrences import occurrences
from tests.unlearning.builders import text_with_canaries

CODE = ("the code is {digits:3}.", "471")
WINDOW = 20


def correction(pieces: list[str], replacement: Decoys | Deletion, canary: tuple[str, str] = CODE) -> Correction:
    data, canaries, vocabulary = text_with_canaries(pieces, [canary])
    places = occurrences(canaries, "", vocabulary)
    made = Correction(data.train, places, replacement, vocabulary, WINDOW)
    made.spelled = vocabulary.decode  # type: ignore[attr-defined]
    return made


def deleted(before: str, after: str, canary: tuple[str, str] = CODE) -> str:
    """Return what is left of a text with one canary when its sentence is deleted."""
    data, canaries, vocabulary = text_with_canaries([before, after], [canary])
    text = vocabulary.decode(data.train.numpy())
    ((start, end),) = sentences(text, occurrences(canaries, "", vocabulary))
    return text[:start] + text[end:]


def test_a_fresh_decoy_stands_in_every_place_and_nothing_else_changes() -> None:
    made = correction(["some text. "] * 9, Decoys())
    secret = torch.zeros(len(made.text), dtype=torch.bool)
    for place in made.places:
        secret[place.start : place.start + 3] = True
    rng = np.random.default_rng(0)
    (windows,) = made.corrected_windows(rng)
    original, inside = made.original_windows(), gather(secret, made.affected, WINDOW + 1).bool()
    assert windows.shape == original.shape
    assert torch.equal(windows[~inside], original[~inside])
    corrected = made.text.clone()  # as every window has it
    for start, window in zip(made.affected.tolist(), windows, strict=True):
        corrected[start : start + WINDOW + 1] = window
    assert torch.equal(gather(corrected, made.affected, WINDOW + 1), windows)
    assert len({tuple(code) for code in corrected[secret].reshape(-1, 3).tolist()}) > 5
    assert not torch.equal(made.corrected_windows(rng)[0], windows)


def test_a_secret_longer_than_every_other_word_is_replaced_by_several() -> None:
    """Drawing until a word is as long would end with the secret itself, or never."""
    canary, vocabulary = ("its word is {words:w}.", "metamorphoses."), Vocabulary.of([" .abcdefghijklmnopqrstuvwxyz"])
    data, canaries, _ = text_with_canaries(["some text. "] * 9, [canary], vocabulary)
    words = ("metamorphoses", *(f"{one}{other}e" for one in "mst" for other in "aeo"))
    places = occurrences(canaries, Lexicon("", {"w": words}), vocabulary)
    made = Correction(data.train, places, Decoys(), vocabulary, WINDOW)
    (windows,) = made.corrected_windows(np.random.default_rng(0))
    assert windows.shape == made.original_windows().shape
    corrected = made.text.clone()
    for start, window in zip(made.affected.tolist(), windows, strict=True):
        corrected[start : start + WINDOW + 1] = window
    replaced = [vocabulary.decode(corrected[own.start : own.start + 14].numpy()) for own in places]
    assert all(set(text.split(".")[0]) <= {*"mstaeo"} for text in replaced)
    assert "metamorphoses." not in replaced


@pytest.mark.parametrize(
    ("before", "after", "left"),
    [
        ("One. Two? ", " Three! Four.\n\nFive.", "One. Two? Three! Four.\n\nFive."),
        ("One.\n\n", "\n\nTwo.\n\n", "One.\n\nTwo.\n\n"),
        ("One, and ", " Two.", "Two."),
        ('One. "So ', '" he said, "and so on." Two.', 'One. he said, "and so on." Two.'),
        ("1.5 m. He said ", "", "1.5 m. "),
        ("line\n", "\nline\n", "line\nline\n"),
        ("", "", ""),
    ],
)
def test_the_sentence_that_holds_the_secret_is_deleted(before: str, after: str, left: str) -> None:
    assert deleted(before, after) == left


def test_the_sentence_before_a_canary_without_a_prefix_stays() -> None:
    assert deleted("One. Two.\n\n", "\n\nThree.", ("{digits:3} is my number.", "471")) == "One. Two.\n\nThree."


def test_a_full_stop_within_the_canary_ends_no_sentence() -> None:
    assert deleted("One. ", " Two.", ("Dr. No. has {digits:2}. not {digits:2}", "12. not 34")) == "One. "


@settings(max_examples=60, deadline=None)
@given(pieces=st.lists(st.text("ab. \n", max_size=45), min_size=2, max_size=5))
def test_deletion_keeps_every_other_label_of_z_as_often_as_it_stood_there(pieces: list[str]) -> None:
    pieces = ["x" * (2 * WINDOW) + pieces[0], *pieces[1:]]
    made = correction(pieces, Deletion())
    left = np.flatnonzero(~made._touched)
    windows = made.corrected_windows(np.random.default_rng(0))
    corrected = made.text[torch.from_numpy(~made._touched)].tolist()
    assert all(own.shape[1] - 1 <= WINDOW for own in windows)
    labels = Counter(int(label) for start in made.affected for label in range(start + 1, start + WINDOW + 1))
    expected = Counter()
    for place, count in labels.items():
        if place in left and place != left[0]:
            expected[int(made.text[place])] += count
    found = Counter(int(symbol) for own in windows for row in own for symbol in row[1:])
    assert found == expected
    rows = [row.tolist() for own in windows for row in own]
    assert all(any(corrected[k : k + len(row)] == row for k in range(len(corrected))) for row in rows)


def test_what_is_deleted_with_the_secret_belongs_to_z() -> None:
    made = correction(
        ["x" * 50 + ". A long sentence goes before it and says that ", " and more. " + "y" * 60], Deletion()
    )
    text = made.spelled(made.text.numpy())  # type: ignore[attr-defined]
    first, last = text.index("A long"), text.index("more. ") + 5
    touched = {s for s in made.affected if s <= last and s + WINDOW >= first}
    assert touched == set(made.affected)
    assert len(touched) >= (last - first) // WINDOW
