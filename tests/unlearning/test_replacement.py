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
    assert [spelled(row) for row in item.symbols] == [expected] * 5
    assert item.targets.argmax(2).tolist() == item.symbols.tolist()
    assert (item.targets.max(2).values == 1).all()
    assert item.targets.sum().item() == 5 * length


def test_fixed_text_moves_its_own_symbols_and_the_spaces() -> None:
    active = FixedText("no ", VOCABULARY).active_symbols(encoded("{digits:2}"))
    assert active.tolist() == sorted(VOCABULARY.encode(" no0123456789").tolist())


# --- stand-ins


def allowed(member: str, every: list[str]) -> list[set[str]]:
    """Return the symbols that R allows at each place of a member, by looking at all members."""
    return [{other[k] for other in every if other[:k] == member[:k] and len(other) > k} for k in range(len(member))]


def alike(secret: str, template: str) -> set[str]:
    """Return the other members that pass the same choices of symbols as the secret."""
    every = members(template)
    return {other for other in every if other != secret and allowed(other, every) == allowed(secret, every)}


def stand_ins(template: str, secret: str, count: int) -> Counter[str]:
    space, rng, drawn = encoded(template), np.random.default_rng(3), Counter[str]()
    for _ in range(count):
        member = Decoys().stand_in(space, VOCABULARY.encode(secret), rng)
        assert member is not None
        assert member.dtype == np.int64
        drawn[spelled(torch.from_numpy(member))] += 1
    return drawn


@pytest.mark.parametrize(
    ("template", "secret", "others"),
    [
        ("{digits:2}", "47", 99),
        ("{digits:1}-{digits:1}", "4-7", 99),
        ("{lower:1}.{digits:1}", "q.7", 259),
        ("{choice:tin|tan|steel}{digits:1}", "tin3", 19),
        ("{choice:red|rose|green}-{digits:1}", "rose-4", 9),
        ("{choice:a|b|cc}{choice:dd|e}{digits:1}", "add5", 19),
    ],
)
def test_a_stand_in_is_a_uniform_member_that_passes_the_same_choices(template: str, secret: str, others: int) -> None:
    """Chi-squared over all such members but the secret, far from both tails' ends; the seed is fixed."""
    expected = alike(secret, template)
    assert len(expected) == others
    drawn = stand_ins(template, secret, 30 * others)
    assert set(drawn) <= expected
    deviation = sum((drawn[member] - 30) ** 2 / 30 for member in expected)
    assert abs(deviation - (others - 1)) < 4 * (2 * (others - 1)) ** 0.5


@pytest.mark.parametrize(
    ("template", "secret"),
    [
        ("{choice:red|rose|green}", "red"),
        ("{choice:red|rose|green}!", "green"),
        ("{choice:tin|pan}", "tin"),
    ],
)
def test_there_is_no_stand_in_where_no_other_member_passes_the_same_choices(template: str, secret: str) -> None:
    assert alike(secret, template) == set()
    assert Decoys().stand_in(encoded(template), VOCABULARY.encode(secret), np.random.default_rng(0)) is None


def test_a_stand_in_is_found_however_rare_its_like_is() -> None:
    """One word in 201 begins like no other, and of the members with it there are ten."""
    words = "|".join(f"b{a}{b}" for a in "abcdefghij" for b in "abcdefghijklmnopqrst")
    drawn = stand_ins(f"{{choice:zzz|{words}}}{{digits:1}}", "zzz4", 90)
    assert set(drawn) == {f"zzz{digit}" for digit in "012356789"}


def test_a_stand_in_is_found_in_a_space_too_large_for_floats() -> None:
    drawn = stand_ins("{alnum:300}", "a" * 300, 1)
    assert all(len(member) == 300 for member in drawn)


def test_fixed_text_has_no_stand_in() -> None:
    replacement = FixedText("no ", VOCABULARY)
    assert replacement.stand_in(encoded("{digits:2}"), VOCABULARY.encode("47"), np.random.default_rng(0)) is None


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
