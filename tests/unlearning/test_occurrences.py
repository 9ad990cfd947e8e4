"""Z and the retention windows against their definitions; occurrences in the text."""

import numpy as np
import pytest
import torch

from canaryaudit.canaries.canary import Canary
from canaryaudit.corpus.vocabulary import Vocabulary
from canaryaudit.training.data import affected_windows, gather, retention_windows
from canaryaudit.unlearning.occurrences import Surroundings, completion_mask, in_turn, occurrences
from tests.unlearning.builders import text_with_canaries

WINDOW = 7


def all_windows(length: int) -> list[int]:
    """Return starts of windows that are whole, follow each other and predict every character but the first."""
    starts = list(range(0, length - WINDOW, WINDOW))
    return starts if starts[-1] + WINDOW + 1 == length else [*starts, length - WINDOW - 1]


def affected_by_definition(secret: np.ndarray) -> list[int]:
    return [
        start
        for start in all_windows(len(secret))
        if any(secret[start + k] for k in range(WINDOW))  # a feature
        or any(secret[start + 1 + k] for k in range(WINDOW))  # a label
    ]


@pytest.mark.parametrize("length", [8, 9, 14, 15, 16, 50, 57, 61])
def test_affected_windows_are_those_with_a_secret_as_feature_or_label(length: int) -> None:
    rng = np.random.default_rng(length)
    for share in (0.0, 0.03, 0.2):
        for _ in range(30):
            secret = rng.random(length) < share
            assert affected_windows(secret, WINDOW).tolist() == affected_by_definition(secret)


def test_a_window_whose_last_label_is_a_secrets_first_character_is_affected() -> None:
    secret = np.zeros(30, dtype=bool)
    secret[2 * WINDOW : 2 * WINDOW + 3] = True
    assert affected_windows(secret, WINDOW).tolist() == [WINDOW, 2 * WINDOW]


@pytest.mark.parametrize("length", [8, 20, 21, 22, 23, 50])
def test_every_character_of_a_text_belongs_to_a_window(length: int) -> None:
    """Also the text's last ones, which fill no adjacent window: a canary may stand there."""
    for place in range(length):
        secret = np.zeros(length, dtype=bool)
        secret[place] = True
        starts = affected_windows(secret, WINDOW)
        assert len(starts) > 0
        assert (starts + WINDOW < length).all()


def test_a_text_without_secrets_has_no_affected_windows() -> None:
    assert len(affected_windows(np.zeros(40, dtype=bool), WINDOW)) == 0


def test_retention_windows_hold_no_secret_and_none_comes_twice() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        secret = rng.random(rng.integers(8, 90)) < 0.04
        starts = retention_windows(secret, WINDOW, 1000, rng)
        assert all(not secret[start : start + WINDOW + 1].any() for start in starts)
        assert len(set(starts.tolist())) == len(starts)
        assert sorted([*starts.tolist(), *affected_by_definition(secret)]) == all_windows(len(secret))


def test_retention_windows_are_as_many_as_asked_for_and_follow_the_seed() -> None:
    secret = np.zeros(200, dtype=bool)
    first, same, other = (retention_windows(secret, WINDOW, 5, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert len(first) == 5
    assert first.tolist() == same.tolist() != other.tolist()


def test_a_text_full_of_secrets_has_nothing_to_retain() -> None:
    assert len(retention_windows(np.ones(40, dtype=bool), WINDOW, 5, np.random.default_rng(0))) == 0


def test_windows_are_gathered_from_their_starts() -> None:
    assert gather(torch.arange(20), np.array([3, 11]), 4).tolist() == [[3, 4, 5, 6], [11, 12, 13, 14]]


def test_occurrences_stand_where_the_secrets_stand() -> None:
    canaries = [("pin {digits:2}-{digits:2}.", "12-34"), ("{lower:3}", "abc"), ("is {choice:red|green}!", "green")]
    data, made, vocabulary = text_with_canaries(["so\n\n", "\n\n", "\n\nwell\n\n", "\n\n", "\n\nend"], canaries)
    places = occurrences(made, "ab", vocabulary)
    assert [place.canary.id for place in places] == ["canary-01", "canary-01", "canary-02", "canary-03"]
    for place in places:
        assert data.train[place.start : place.start + len(place.secret)].tolist() == place.secret.tolist()
        after = place.start + len(place.secret)
        assert data.train[after : after + len(place.suffix)].tolist() == place.suffix.tolist()
        assert data.train[place.start - len(place.prefix) : place.start].tolist() == place.prefix.tolist()


def test_the_completions_are_marked_with_the_characters_between_their_slots() -> None:
    data, made, vocabulary = text_with_canaries(["so\n\n", "\n\nend"], [("pin {digits:2}-{digits:2}.", "12-34")])
    text = vocabulary.decode(data.train.numpy())
    mask = completion_mask(len(text), occurrences(made, "ab", vocabulary))
    assert "".join(own if marked else "_" for own, marked in zip(text, mask, strict=True)).strip("_") == "12-34"
    assert not completion_mask(9, []).any()


def test_a_secret_at_the_start_of_the_text_is_read_after_a_line_break() -> None:
    vocabulary = Vocabulary("\n0123456789ab")
    canary = Canary(id="canary-01", template="{digits:2}", completion="42", repetitions=1, places=(0,))
    (place,) = occurrences([canary], "ab", vocabulary)
    assert place.start == 0
    assert place.prefix.tolist() == vocabulary.encode("\n").tolist()
    assert place.suffix.tolist() == []


def test_the_space_of_an_occurrence_is_the_slots_own() -> None:
    vocabulary = Vocabulary("\n abcdefghijklmnopqrstuvwxyz")
    canary = Canary(id="canary-01", template="x {any:2}", completion="ba", repetitions=1, places=(0,))
    (place,) = occurrences([canary], "abc", vocabulary)
    assert place.space.size == 9


def test_the_surroundings_of_a_secret_end_where_the_one_before_it_does() -> None:
    canaries = [("{digits:2}", "42"), ("pin {digits:2}.", "12")]
    data, made, vocabulary = text_with_canaries(["", "abc", "d\n"], canaries)
    assert vocabulary.decode(data.train.numpy()) == "42abcpin 12.d\n"
    first, second = occurrences(made, "ab", vocabulary)
    around = Surroundings(data.train, [second, first])
    assert [around.free(first), around.free(second)] == [0, len("abc")]
    assert vocabulary.decode(around.context(first, 0).numpy()) == "\n"
    contexts = [vocabulary.decode(around.context(second, depth).numpy()) for depth in (0, 1, 3)]
    assert contexts == ["pin ", "cpin ", "abcpin "]


def test_places_come_in_turn_in_ever_new_orders() -> None:
    canaries = [("pin {digits:1}.", str(digit)) for digit in range(6)]
    _, made, vocabulary = text_with_canaries(["\n"] * 7, canaries)
    places = occurrences(made, "ab", vocabulary)
    turns = in_turn(places, np.random.default_rng(0))
    rounds = [[next(turns).start for _ in places] for _ in range(5)]
    assert all(sorted(own) == [place.start for place in places] for own in rounds)
    assert len(set(map(tuple, rounds))) == 5
