"""Tests of slots of varying length and of character sets, wherever templates and spaces meet them."""

from collections import Counter
from itertools import product

import numpy as np
import pytest

from canaryaudit.canaries.locating import locate
from canaryaudit.canaries.space import character_set, symbols_of_set
from canaryaudit.canaries.template import Template
from canaryaudit.corpus.vocabulary import Vocabulary
from canaryaudit.errors import TemplateError
from canaryaudit.exposure.encoded_space import EncodedSpace

SYMBOLS = "ab1-."


def words(alphabet: str, least: int, most: int) -> list[str]:
    return ["".join(own) for length in range(least, most + 1) for own in product(alphabet, repeat=length)]


SPACES = {
    "pin {[12]:1-3}.": [word + "." for word in words("12", 1, 3)],
    "{[ab]:2-3}-{[12]:1-2}. end": [f"{x}-{y}." for x in words("ab", 2, 3) for y in words("12", 1, 2)],
    "{[ab]:1-2}{[12]:1-2}{[ab]:1}": [x + y + z for x in words("ab", 1, 2) for y in words("12", 1, 2) for z in "ab"],
    "{any:1-2}.": [word + "." for word in words("ab1-", 1, 2)],
    "{[ab]:1-2}{choice:1|-a|-b}": [x + y for x in words("ab", 1, 2) for y in ("1", "-a", "-b")],
    "{[12]:1-2}{any:2}": [],
}


@pytest.mark.parametrize("text", [text for text, members in SPACES.items() if members])
def test_a_space_is_what_plain_enumeration_gives_and_prefix_free(text: str) -> None:
    template = Template.parse(text)
    space = template.space(SYMBOLS)
    members = SPACES[text]
    assert sorted(space) == sorted(members)
    assert space.size == len(members)
    assert space.max_length == max(map(len, members))
    assert all(member in space for member in members)
    assert not any(one != other and other.startswith(one) for one in members for other in members)
    encoded = EncodedSpace.of(space, vocabulary := Vocabulary.of([SYMBOLS, "2"]))
    rows = {vocabulary.decode(row[row >= 0]) for row in encoded.members()}
    assert rows == set(members)
    assert encoded.bits == pytest.approx(np.log2(len(members)))


@pytest.mark.parametrize("text", [text for text, members in SPACES.items() if members])
def test_draws_are_uniform_over_all_lengths_together(text: str) -> None:
    """Chi-square of 60 draws per member, seeded: below the 99.9 % quantile for so many degrees of freedom."""
    space, members, rng = Template.parse(text).space(SYMBOLS), SPACES[text], np.random.default_rng(1)
    vocabulary = Vocabulary.of([SYMBOLS, "2"])
    draws = EncodedSpace.of(space, vocabulary).sample(60 * len(members), rng)
    counts = Counter(vocabulary.decode(row[row >= 0]) for row in draws)
    degrees = len(members) - 1
    statistic = sum((counts[member] - 60) ** 2 / 60 for member in members)
    assert statistic < degrees + 3.1 * (2 * degrees) ** 0.5 + 10
    assert {space.sample(rng) for _ in range(30 * len(members))} == set(members)


@pytest.mark.parametrize("text", [text for text, members in SPACES.items() if members])
def test_every_member_is_taken_apart_and_put_together_again(text: str) -> None:
    template = Template.parse(text)
    for member in SPACES[text]:
        fillings = iter(template.fillings(member))
        assert "".join(part if isinstance(part, str) else next(fillings) for part in template.body) == member
        assert template.completion_of(member, SYMBOLS) == member
        assert sum(template.filled(member)) == len(template.secret_of(member))
        assert template.completion_of(member.removesuffix(template.ending), SYMBOLS) == member


@pytest.mark.parametrize(
    ("text", "words_of_error"),
    [
        ("pin {digits:4-6}", "write the character after the secret too"),
        ("pin {digits:4-6}7", "followed by one of its own symbols"),
        ("pin {digits:4-6}{hex:2}.", "followed by one of its own symbols"),
        ("pin {[12]:1-2}{any:2}", "followed by one of its own symbols"),
        ("pin {digits:6-4}.", "expected a length of 1 to 999, such as 6 or 6-12"),
        ("pin {digits:0-4}.", "expected a length of 1 to 999"),
    ],
)
def test_ends_that_cannot_be_told_are_refused(text: str, words_of_error: str) -> None:
    with pytest.raises(TemplateError, match=words_of_error):
        Template.parse(text).space(SYMBOLS)


def test_a_wider_space_has_the_same_lengths() -> None:
    assert Template.parse("pin {[12]:1-2}.").widened("digits").space("").size == 110


def test_secrets_of_every_length_are_located_with_what_ends_them() -> None:
    text = "Pin 12. pin 1234. pin 12345. pin 123, pin 999. pin 1"
    (found,) = locate(text, [Template.parse("pin {digits:2-4}.")])
    assert {completion: starts for (_, completion), starts in found.places.items()} == {
        "1234.": [8],
        "999.": [38],
        "12.": [0],
    }
    assert len(found.misses.unfitting) == 3
    (found,) = locate("say {a, b} or {a}", [Template.parse("say {{{any:1-9}}} or")])
    assert [completion for _, completion in found.places] == ["a, b}"]


def test_what_follows_the_end_of_a_secret_is_compared_loosely_too() -> None:
    (found,) = locate("pin 123. foo pin 12. End, pin 34.\nend", [Template.parse("pin {digits:2-4}. end")])
    assert [(own.text, completion) for own, completion in found.places] == [
        ("pin {digits:2-4}. End", "12."),
        ("pin {digits:2-4}.\nend", "34."),
    ]
    assert found.misses.other_suffix == 1


# --- character sets --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "symbols"),
    [("[A-C0-1_]", "ABC01_"), (r"[a\-c]", "a-c"), (r"[\]\\]", "]\\"), ("[aab]", "ab"), ("[x-]", "x-"), ("[:;]", ":;")],
)
def test_a_set_is_read_and_written(text: str, symbols: str) -> None:
    assert symbols_of_set(text) == symbols
    assert symbols_of_set(character_set(symbols)) == symbols
    template = Template.parse(f"key {{{text}:2}}")
    assert sorted(template.space("")) == sorted(map("".join, product(symbols, repeat=2)))


@pytest.mark.parametrize("text", ["[]", "[a]", "[z-a]", "[aa]"])
def test_sets_of_fewer_than_two_symbols_are_refused(text: str) -> None:
    with pytest.raises(TemplateError, match=r"character set|unknown slot"):
        Template.parse(f"key {{{text}:2}}")


def test_a_slot_is_written_as_it_is_read() -> None:
    for text in ("x {[A-Z_]:3-5}, y", "{digits:2}-{choice:a|b}", "a {{b}} {any:3-4}."):
        template = Template.parse(text)
        again = template.reworded([part.upper() for part in template.parts if isinstance(part, str)])
        assert [part for part in again.parts if not isinstance(part, str)] == [
            part for part in template.parts if not isinstance(part, str)
        ]
