"""Decoys are uniform members of R and their targets R's conditional law; fixed text; parsing."""

from collections import Counter

import numpy as np
import pytest
import torch

from canaryaudit.canaries.template import Template
from canaryaudit.corpus.vocabulary import Vocabulary
from canaryaudit.errors import UnlearningError, UsageError
from canaryaudit.exposure.encoded_space import EncodedSpace
from canaryaudit.unlearning import Decoys, Deletion, FixedText, Sampled, parse_replacement
from canaryaudit.unlearning.decoys import draw_symbols
from canaryaudit.unlearning.occurrences import Occurrence
from canaryaudit.unlearning.replacement import Replacement
from tests.fakes import TableModel
from tests.unlearning.builders import occurrence

VOCABULARY = Vocabulary("".join(sorted(set("\n -.!0123456789abcdefghijklmnopqrstuvwxyz"))))
TEMPLATES = [
    "{digits:2}",
    "n {digits:1}-{lower:1}{digits:1}.",
    "{choice:red|rose|green}!",
    "{choice:a|bb}{choice:cc|d}",
]


def parsed(text: str, vocabulary: Vocabulary = VOCABULARY) -> Replacement | Deletion:
    return parse_replacement(text, vocabulary, TableModel(vocabulary.symbols), [])


def members(template: str) -> list[str]:
    return list(Template.parse(template).space(""))


def encoded(template: str) -> EncodedSpace:
    return EncodedSpace.of(Template.parse(template).space(""), VOCABULARY)


def spelled(symbols: torch.Tensor) -> str:
    return "".join(VOCABULARY.symbols[int(symbol)] for symbol in symbols)


@pytest.mark.parametrize("template", TEMPLATES)
def test_decoys_are_members_of_the_slots_own_space(template: str) -> None:
    drawn = Decoys().correct(occurrence(encoded(template), np.zeros(1)), 200, np.random.default_rng(0))
    assert sum(len(item.symbols) for item in drawn) == 200
    assert {spelled(row) for item in drawn for row in item.symbols} <= set(members(template))


@pytest.mark.parametrize("template", ["{digits:2}", "{choice:red|rose|green}!", "{choice:a|bb}{choice:cc|d}{digits:1}"])
def test_decoys_are_uniform(template: str) -> None:
    """Chi-squared over all members, far from both tails' ends; the seed is fixed."""
    every = members(template)
    drawn = Decoys().correct(occurrence(encoded(template), np.zeros(1)), 100 * len(every), np.random.default_rng(1))
    seen = Counter(spelled(row) for item in drawn for row in item.symbols)
    deviation = sum((seen[member] - 100) ** 2 / 100 for member in every)
    degrees = len(every) - 1
    assert abs(deviation - degrees) < 4 * (2 * degrees) ** 0.5


@pytest.mark.parametrize("template", TEMPLATES)
def test_targets_are_the_share_of_members_that_go_on_so(template: str) -> None:
    """By counting members: p(c given s) = members that begin with sc / members that begin with s."""
    every = members(template)
    for item in Decoys().correct(occurrence(encoded(template), np.zeros(1)), 30, np.random.default_rng(2)):
        assert item.targets.shape == (*item.symbols.shape, len(VOCABULARY))
        for row, targets in zip(item.symbols, item.targets, strict=True):
            for place in range(len(row)):
                begun = [member for member in every if member.startswith(spelled(row[:place]))]
                going_on = Counter(member[place] for member in begun)
                expected = [going_on[symbol] / len(begun) for symbol in VOCABULARY.symbols]
                np.testing.assert_allclose(targets[place].numpy(), expected, rtol=1e-6)


def test_a_word_that_more_words_share_the_beginning_of_is_likelier_at_first() -> None:
    (item, *_) = Decoys().correct(
        occurrence(encoded("{choice:red|rose|green}"), np.zeros(1)), 50, np.random.default_rng(0)
    )
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
    (item,) = FixedText(text, VOCABULARY).correct(
        occurrence(encoded("{digits:2}"), np.zeros(length)), 5, np.random.default_rng(0)
    )
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
        member = Decoys().proxy_member(occurrence(space, VOCABULARY.encode(secret)), rng)
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
    place = occurrence(encoded(template), VOCABULARY.encode(secret))
    assert Decoys().proxy_member(place, np.random.default_rng(0)) is None


def test_a_stand_in_is_found_however_rare_its_like_is() -> None:
    """One word in 201 begins like no other, and of the members with it there are ten."""
    words = "|".join(f"b{a}{b}" for a in "abcdefghij" for b in "abcdefghijklmnopqrst")
    drawn = stand_ins(f"{{choice:zzz|{words}}}{{digits:1}}", "zzz4", 90)
    assert set(drawn) == {f"zzz{digit}" for digit in "012356789"}


def test_a_stand_in_is_found_in_a_space_too_large_for_floats() -> None:
    drawn = stand_ins("{[a-z0-9]:300}", "a" * 300, 1)
    assert all(len(member) == 300 for member in drawn)


def test_fixed_text_has_no_stand_in() -> None:
    replacement = FixedText("no ", VOCABULARY)
    place = occurrence(encoded("{digits:2}"), VOCABULARY.encode("47"))
    assert replacement.proxy_member(place, np.random.default_rng(0)) is None


# --- the model's own continuation


def sampled(model: TableModel, prefix: str, *secrets: str) -> tuple[Sampled, list[Occurrence]]:
    space = EncodedSpace.of(Template.parse("{choice:0|1}").space(""), model.vocabulary)
    places = [occurrence(space, model.vocabulary.encode(own), model.vocabulary.encode(prefix)) for own in secrets]
    return Sampled(model, places), places


def law_after(model: TableModel, text: str) -> np.ndarray:
    return np.exp2(model.read(torch.from_numpy(model.vocabulary.encode(text))).log2_probs[0].double().numpy())


def test_a_sampled_replacement_follows_the_models_law_without_its_likeliest_first_symbol() -> None:
    """Chi-squared of the first two symbols against the laws of the table, far from both tails' ends."""
    model = TableModel(" 0123ab", seed=3)
    distribution = law_after(model, "ab ")
    likeliest = model.vocabulary.symbols[int(distribution.argmax())]
    strategy, (place,) = sampled(model, "ab ", likeliest * 3)
    (item,) = strategy.correct(place, 20_000, np.random.default_rng(0))
    assert item.symbols.shape == (20_000, 3)
    distribution[distribution.argmax()] = 0
    distribution /= distribution.sum()
    seen = Counter(tuple(row) for row in item.symbols[:, :2].tolist())
    deviation, cells = 0.0, 0
    for first in np.flatnonzero(distribution):
        then = law_after(model, "ab " + model.vocabulary.symbols[first])
        for second, share in enumerate(distribution[first] * then / then.sum()):
            deviation += (seen[(int(first), second)] - 20_000 * share) ** 2 / (20_000 * share)
            cells += 1
    assert sum(seen[(int(first), second)] for first in np.flatnonzero(distribution) for second in range(7)) == 20_000
    assert abs(deviation - cells) < 5 * (2 * cells) ** 0.5
    for row, targets in zip(item.symbols[:20], item.targets[:20], strict=True):
        np.testing.assert_allclose(targets[0], distribution, atol=1e-6)
        told = "ab " + "".join(model.vocabulary.symbols[int(symbol)] for symbol in row[:2])
        np.testing.assert_allclose(targets[2], law_after(model, told), atol=1e-5)


def test_no_secret_after_the_same_words_is_replaced_by_another() -> None:
    model = TableModel(" 0123ab", memorized=["102", "311"], certainty=0.999)
    strategy, places = sampled(model, "ab ", "102", "311")
    for place in places:
        (item,) = strategy.correct(place, 300, np.random.default_rng(1))
        firsts = {model.vocabulary.symbols[int(symbol)] for symbol in item.symbols[:, 0]}
        assert not firsts & {"1", "3"}


def test_a_model_that_knows_nothing_else_to_say_is_an_error() -> None:
    strategy, (place, *_) = sampled(TableModel("012"), "0", "012", "102", "201")
    with pytest.raises(UnlearningError, match="use --replacement decoys"):
        strategy.correct(place, 1, np.random.default_rng(0))


def test_a_sampled_replacement_moves_every_symbol_and_has_no_stand_in() -> None:
    strategy, (place,) = sampled(TableModel(" 0123ab"), "ab ", "102")
    assert strategy.active_symbols(place.space).tolist() == list(range(7))
    assert strategy.proxy_member(place, np.random.default_rng(0)) is None


def test_a_symbol_of_probability_zero_is_never_drawn() -> None:
    distributions = np.tile([0.0, 0.5, 0.0, 0.5, 0.0], (4000, 1))
    drawn = Counter(draw_symbols(distributions, np.random.default_rng(0)).tolist())
    assert set(drawn) == {1, 3}
    assert abs(drawn[1] - 2000) < 200

    class Edge:
        def random(self, count: int) -> np.ndarray:
            return np.array([0.0, 1 - 2**-53, 0.5, 0.25])

    assert draw_symbols(distributions[:4], Edge()).tolist() == [1, 3, 3, 1]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("decoys", "decoys"),
        ("sampled", "sampled"),
        ("delete", "delete"),
        ("text:not here ", "text:not here "),
        ('text:"not here "', "text:not here "),
        ("text:a:b".replace(":b", " b"), "text:a b"),
    ],
)
def test_a_replacement_is_named_as_the_option_has_it(option: str, name: str) -> None:
    assert parsed(option, VOCABULARY).name == name


def test_only_one_pair_of_quotes_is_taken_off() -> None:
    quoting = Vocabulary(' "no')
    assert parsed('text:""no""', quoting).name == 'text:"no"'
    assert parsed('text:"no', quoting).name == 'text:"no'


@pytest.mark.parametrize("option", ["", "decoy", "text", "words:no", "Decoys"])
def test_an_unknown_replacement_is_an_error_that_says_what_there_is(option: str) -> None:
    with pytest.raises(UsageError, match="expected decoys, sampled, delete or text:WORDS"):
        parsed(option, VOCABULARY)


@pytest.mark.parametrize("option", ["text:", 'text:""'])
def test_an_empty_text_is_an_error(option: str) -> None:
    with pytest.raises(UnlearningError, match="replacement text is empty"):
        parsed(option, VOCABULARY)


def test_a_text_that_the_model_cannot_spell_is_an_error() -> None:
    with pytest.raises(UnlearningError, match="does not fit the model"):
        parsed("text:Ω", VOCABULARY)
