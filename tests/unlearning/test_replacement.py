"""Decoys are uniform members of R and their targets R's conditional law; fixed text; parsing."""

from collections import Counter

import numpy as np
import pytest
import torch

from canaryaudit.canaries import Template
from canaryaudit.corpus import Vocabulary
from canaryaudit.errors import UnlearningError
from canaryaudit.scoring import EncodedSpace
from canaryaudit.unlearning import Decoys, FixedText, parse_replacement

VOCABULARY = Vocabulary("".join(sorted(set("\n -.!0123456789abcdefghijklmnopqrstuvwxyz"))))
TEMPLATES = [
    "{digits:2}",
    "n {digits:1}-{lower:1}{digits:1}.",
    "{choice:red|rose|green}!",
    "{choice:a|bb}{choice:cc|d}",
]


def members(template: str) -> list[str]:
    return list(Template.parse(template).space(""))


def encoded(template: str) -> EncodedSpace:
    return EncodedSpace.of(Template.parse(template).space(""), VOCABULARY)


def spelled(symbols: torch.Tensor) -> str:
    return "".join(VOCABULARY.symbols[int(symbol)] for symbol in symbols)


@pytest.mark.parametrize("template", TEMPLATES)
def test_decoys_are_members_of_the_slots_own_space(template: str) -> None:
    drawn = Decoys().correct(encoded(template), np.zeros(1), 200, np.random.default_rng(0))
    assert sum(len(item.symbols) for item in drawn) == 200
    assert {spelled(row) for item in drawn for row in item.symbols} <= set(members(template))


@pytest.mark.parametrize("template", ["{digits:2}", "{choice:red|rose|green}!", "{choice:a|bb}{choice:cc|d}{digits:1}"])
def test_decoys_are_uniform(template: str) -> None:
    """Chi-squared over all members, far from both tails' ends; the seed is fixed."""
    every = members(template)
    drawn = Decoys().correct(encoded(template), np.zeros(1), 100 * len(every), np.random.default_rng(1))
    seen = Counter(spelled(row) for item in drawn for row in item.symbols)
    deviation = sum((seen[member] - 100) ** 2 / 100 for member in every)
    degrees = len(every) - 1
    assert abs(deviation - degrees) < 4 * (2 * degrees) ** 0.5


@pytest.mark.parametrize("template", TEMPLATES)
def test_targets_are_the_share_of_members_that_go_on_so(template: str) -> None:
    """By counting members: p(c given s) = members that begin with sc / members that begin with s."""
    every = members(template)
    for item in Decoys().correct(encoded(template), np.zeros(1), 30, np.random.default_rng(2)):
        assert item.targets.shape == (*item.symbols.shape, len(VOCABULARY))
        for row, targets in zip(item.symbols, item.targets, strict=True):
            for place in range(len(row)):
                begun = [member for member in every if member.startswith(spelled(row[:place]))]
                going_on = Counter(member[place] for member in begun)
                expected = [going_on[symbol] / len(begun) for symbol in VOCABULARY.symbols]
                np.testing.assert_allclose(targets[place].numpy(), expected, rtol=1e-6)


def test_a_word_that_more_words_share_the_beginning_of_is_likelier_at_first() -> None:
    (item, *_) = Decoys().correct(encoded("{choice:red|rose|green}"), np.zeros(1), 50, np.random.default_rng(0))
    first = item.targets[0, 0]
    assert first[VOCABULARY.encode("r")].item() == pytest.approx(2 / 3)
    assert first[VOCABULARY.encode("g")].item() == pytest.approx(1 / 3)


def test_the_active_symbols_are_those_of_the_space() -> None:
    active = Decoys().active_symbols(encoded("n {digits:1}-{choice:ab|c}"))
    assert active.tolist() == sorted(VOCABULARY.encode("-0123456789abc").tolist())


@pytest.mark.parametrize(
    ("text", "length", "expected"), [("no ", 7, "no no n"), ("not here", 3, "not"), ("ab", 2, "ab")]
)
def test_fixed_text_is_repeated_or_cut_to_the_secrets_length(text: str, length: int, expected: str) -> None:
    (item,) = FixedText(text, VOCABULARY).correct(encoded("{digits:2}"), np.zeros(length), 5, np.random.default_rng(0))
    assert [spelled(row) for row in item.symbols] == [expected]
    assert item.targets.argmax(2).tolist() == item.symbols.tolist()
    assert item.targets.sum().item() == length


def test_fixed_text_moves_its_own_symbols_and_the_spaces() -> None:
    active = FixedText("no ", VOCABULARY).active_symbols(encoded("{digits:2}"))
    assert active.tolist() == sorted(VOCABULARY.encode(" no0123456789").tolist())


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("decoys", "decoys"),
        ("text:not here ", "text:not here "),
        ('text:"not here "', "text:not here "),
        ("text:a:b".replace(":b", " b"), "text:a b"),
    ],
)
def test_a_replacement_is_named_as_the_option_has_it(option: str, name: str) -> None:
    assert parse_replacement(option, VOCABULARY).name == name


def test_only_one_pair_of_quotes_is_taken_off() -> None:
    quoting = Vocabulary(' "no')
    assert parse_replacement('text:""no""', quoting).name == 'text:"no"'
    assert parse_replacement('text:"no', quoting).name == 'text:"no'


@pytest.mark.parametrize("option", ["", "decoy", "text", "words:no", "Decoys"])
def test_an_unknown_replacement_is_an_error_that_says_what_there_is(option: str) -> None:
    with pytest.raises(UnlearningError, match="expected decoys or text:WORDS"):
        parse_replacement(option, VOCABULARY)


@pytest.mark.parametrize("option", ["text:", 'text:""'])
def test_an_empty_text_is_an_error(option: str) -> None:
    with pytest.raises(UnlearningError, match="replacement text is empty"):
        parse_replacement(option, VOCABULARY)


def test_a_text_that_the_model_cannot_spell_is_an_error() -> None:
    with pytest.raises(UnlearningError, match="does not suit the model"):
        parse_replacement("text:Ω", VOCABULARY)
