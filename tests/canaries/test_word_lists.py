"""Tests of slots of words: their lists, their spaces, and secrets that fill them."""

from collections import Counter
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canaryaudit.canaries.canary import CanarySet, expected_strings
from canaryaudit.canaries.insertion import InsertionPlan, InsertionRequest, plan_insertion, run_vocabulary, secret_mask
from canaryaudit.canaries.locating import locate, located_templates
from canaryaudit.canaries.masking import HIDDEN, hide_given, mask_arguments
from canaryaudit.canaries.space import Lexicon
from canaryaudit.canaries.template import Template
from canaryaudit.canaries.word_lists import WordList, corpus_words, fitted, read_word_list, read_word_lists
from canaryaudit.errors import TemplateError, UsageError
from canaryaudit.exposure.encoded_space import EncodedSpace
from tests.wholetext import corpus_of, training_text

ACTS = ("act", "action", "actor", "cat", "cater", "at", "a", "tea")
"""Words that begin other words, and words that end as others do."""
PETS = ("Rex", "Rex II", "Mr. T", "rex")
LEXICON = Lexicon("abc xyz.", {"acts": ACTS, "pets": PETS, "": ("tide", "wind", "tides")})
SPACES = {
    "seed {words:acts}.": [word + "." for word in ACTS],
    "{words:acts} {words:acts}, {words:acts}!": [f"{x} {y}, {z}!" for x, y, z in product(ACTS, repeat=3)],
    "{words:acts}-{digits:1}{choice:x|yy}": [f"{x}-{n}{z}" for x in ACTS for n in range(10) for z in ("x", "yy")],
    "his {words:pets}\n": [word + "\n" for word in PETS],
    "{digits:1} {words:pets}, he": [f"{n} {word}," for n in range(10) for word in PETS],
    "{word}/{word};": [f"{x}/{y};" for x, y in product(LEXICON.lists[""], repeat=2)],
}


@pytest.mark.parametrize("text", SPACES)
def test_a_space_is_what_plain_enumeration_gives_and_prefix_free(text: str) -> None:
    template, members = Template.parse(text), SPACES[text]
    space = template.space(LEXICON)
    assert sorted(space) == sorted(members)
    assert space.size == len(members)
    assert space.bits == np.log2(len(members))
    assert space.max_length == max(map(len, members))
    ordered = sorted(members)
    assert not any(two.startswith(one) for one, two in pairwise(ordered))
    for member in members:
        fillings = iter(template.fillings(member))
        assert "".join(part if isinstance(part, str) else next(fillings) for part in template.body) == member
        assert sum(template.filled(member)) == len(template.secret_of(member))
        for given_as in (member, member.removesuffix(template.ending)):
            assert template.completion_of(given_as, LEXICON) == member
    encoded = EncodedSpace.of(space, vocabulary := run_vocabulary(canary_set(text)))
    assert {vocabulary.decode(row[row >= 0]) for row in encoded.members()} == set(members)
    for first in {member[:1] for member in members}:
        after = encoded.after(vocabulary.encode(first))
        rest = {vocabulary.decode(row[row >= 0]) for row in after.members()}
        assert rest == {member[1:] for member in members if member.startswith(first)}
        assert after.size == len(rest)


def canary_set(text: str) -> CanarySet:
    lists = tuple(WordList(name=name, words=words) for name, words in LEXICON.lists.items())
    control = {"id": "control-1", "template": text, "completion": SPACES[text][0], "repetitions": 0, "control": True}
    return CanarySet.model_validate({"corpus_symbols": LEXICON.symbols, "word_lists": lists, "canaries": (control,)})


@given(st.sets(st.text("abc", min_size=1, max_size=5), min_size=2, max_size=25))
def test_an_automaton_has_one_node_for_each_set_of_endings(words: set[str]) -> None:
    space = Template.parse("{words:x}.").space(Lexicon("", {"x": tuple(words)}))
    beginnings = {word[:end] for word in words for end in range(len(word) + 1)}
    endings = {frozenset(word[len(start) :] for word in words if word.startswith(start)) for start in beginnings}
    assert len(space.edges) == len(endings) + 1  # and what is reached by the period
    assert set(space) == {word + "." for word in words}


def test_draws_are_uniform_over_words_of_any_length() -> None:
    """Chi-square of 60 draws per member, seeded: below the 99.9 % quantile for so many degrees of freedom."""
    text, rng = "seed {words:acts}.", np.random.default_rng(1)
    space, vocabulary = Template.parse(text).space(LEXICON), run_vocabulary(canary_set(text))
    for draws in (
        [space.sample(rng) for _ in range(60 * len(ACTS))],
        [vocabulary.decode(row[row >= 0]) for row in EncodedSpace.of(space, vocabulary).sample(60 * len(ACTS), rng)],
    ):
        counts = Counter(draws)
        assert sum((counts[member] - 60) ** 2 / 60 for member in SPACES[text]) < 24.3


@pytest.mark.parametrize(
    ("text", "words_of_error"),
    [
        ("{words:acts}", "ends the template: write the character after the secret too"),
        ("{words:acts}o", "a word of its list, followed by 'o', begins another word"),
        ("{words:acts}{digits:2}", "is followed by another slot: put a character between them"),
        ("{words:acts}{words:acts}.", "is followed by another slot"),
        ("{words:pets} {words:acts}.", "2 of its 4 words hold ' ', which ends the slot"),
        ("{words:pets} and", "followed by ' ', begins another word"),
        ("{words:none}.", "needs its word list, which is missing"),
    ],
)
def test_ends_that_cannot_be_told_are_refused(text: str, words_of_error: str) -> None:
    with pytest.raises(TemplateError, match=words_of_error):
        Template.parse(text).space(LEXICON)


@pytest.mark.parametrize("text", ["{words:}.", "{words}.", "{word:3}.", "{word:}"])
def test_slots_of_words_are_written_one_way(text: str) -> None:
    with pytest.raises(TemplateError, match="unknown slot"):
        Template.parse(text)


def test_words_have_no_wider_space() -> None:
    with pytest.raises(TemplateError, match="no wider space"):
        Template.parse("{word}.").widened("any")


# --- lists ----------------------------------------------------------------------------------------------


def test_a_file_is_read_once_and_what_is_left_out_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "Two Lists.TXT"
    path.write_bytes("\ufeffred\r\n\r\n green \r\nred\r\nblue sky\r\n\r\n".encode())
    names, lists, notes = read_word_lists([f"is {{words:{path}}}.", "{digits:3}", f"{{{{words:x}}}} {{words:{path}}}"])
    assert names == {str(path): "two-lists.txt"}
    assert lists[0].words == ("red", "green", "blue sky")
    assert notes == [f"word list {path} as 3 words (2 empty lines skipped, 1 repeated line skipped)"]
    (other := tmp_path / "b").mkdir()
    (other / "two lists.txt").write_text("one\ntwo\n", "utf-8")
    names, _, _ = read_word_lists([f"{{words:{path}}} {{words:{other / 'two lists.txt'}}}."])
    assert list(names.values()) == ["two-lists.txt", "two-lists.txt-2"]
    extended, note = read_word_list(str(path), "x", ["green", "a secret"])
    assert extended.words == ("red", "green", "blue sky", "a secret")
    assert "1 given secret added" in note
    assert "a secret" not in note


@pytest.mark.parametrize(
    ("data", "words_of_error"),
    [
        (b"one\n\n", "two words or more"),
        (b"", "two words or more"),
        (b"caf\xe9\nno\n", "expected UTF-8"),
        (None, "No such"),
    ],
)
def test_files_without_words_are_refused_in_one_line(tmp_path: Path, data: bytes | None, words_of_error: str) -> None:
    path = tmp_path / "list.txt"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(UsageError, match=words_of_error):
        read_word_list(str(path), "list.txt")


def test_words_take_the_form_that_the_corpus_has() -> None:
    word_list = WordList(name="x", words=("caf\u00e9", "cafe\u0301", "Tea", "tea", "ﬁn"))
    own, notes = fitted(word_list, "acefintTe\u0301", lowercase=True, extend=False)
    assert own.words == ("cafe\u0301", "tea", "fin")
    assert ["2 words are taken in the Unicode form" in notes[0], "2 words became equal" in notes[1]] == [True, True]
    with pytest.raises(
        TemplateError, match=r"2 of 5 words have symbols that the corpus lacks: '\\xe9'|'é' \(U\+00E9\)"
    ):
        fitted(word_list, "acefintT", lowercase=False, extend=False)
    own, notes = fitted(word_list, "acefintT", lowercase=False, extend=True)
    assert len(own.words) == 5
    assert "a model that never read them ranks these words low" in notes[-1]


@given(st.text("ab é\u0301.1", max_size=40), st.lists(st.integers(0, 40)))
def test_the_corpus_words_do_not_depend_on_where_its_blocks_are_cut(text: str, cuts: list[int]) -> None:
    text += " xx xx yy"
    edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    blocks = [text[start:end] for start, end in pairwise(edges)]
    whole = corpus_words([text])
    assert corpus_words(blocks) == whole
    assert {"xx", "yy"} <= {*whole.words}
    assert all(2 <= len(word) <= 30 and not {*word} & {*" .1"} for word in whole.words)


def test_a_list_is_found_sound_or_refused() -> None:
    for words in ((), ("one",), ("one", "one"), ("one", ""), ("one", "two\n"), ("one", "\ud800")):
        with pytest.raises((ValueError, TemplateError)):
            WordList(name="x", words=words)
    with pytest.raises(ValueError, match="name"):
        WordList(name="../x", words=("one", "two"))


# --- located ---------------------------------------------------------------------------------------------


def test_phrases_are_located_across_line_breaks_and_whole() -> None:
    text = (
        "My seed: act cater tea. my seed:  actor\nat act. My seed: act cats tea. my seed: acts at a. "
        "my seed: ACT at a. my seed: act at."
    )
    (template,) = located_templates(["my seed: {words:acts} {words:acts} {words:acts}."], lowercase=False)
    (found,) = locate(text, [template], "loose", LEXICON)
    assert [(own.text, completion) for own, completion in found.places] == [
        ("My seed: {words:acts} {words:acts} {words:acts}.", "act cater tea."),
        ("my seed:  {words:acts}\n{words:acts} {words:acts}.", "actor\nat act."),
    ]
    assert len(found.misses.unfitting) == 4
    (found,) = locate(text, [template], "exact", LEXICON)
    assert not found.places
    assert found.misses.wordings.total() == 2
    (found,) = locate(
        "a cat, the cats, cat; acts cater", [Template.parse("{words:acts}{choice:,|;}")], "exact", LEXICON
    )
    assert [completion for _, completion in found.places] == []


def test_a_template_may_begin_with_words() -> None:
    (template,) = located_templates(["{words:pets} is a dog"], lowercase=False)
    (found,) = locate(
        "Rex II is a dog. Rex is a dog, T-Rex is a dog, Trex is a dog",
        [template],
        "loose",
        Lexicon("", {"pets": ("Rex", "Fido")}),
    )
    assert {completion: starts for (_, completion), starts in found.places.items()} == {"Rex ": [17, 33]}


# --- inserted --------------------------------------------------------------------------------------------

TIDES = "\n\n".join(f"the tide turned {n} times, and the cat sat at a mast of act {n}" for n in range(60)) + "\n"


def planned(**options: object) -> InsertionPlan:
    lists = tuple(WordList(name=name, words=LEXICON.lists[name]) for name in ("acts", "pets"))
    request = InsertionRequest.model_validate({"word_lists": lists, "templates": (), "num_controls": 4} | options)
    return plan_insertion(corpus_of("tides.txt", [TIDES]), request)


def test_generated_secrets_and_controls_are_words_of_the_list() -> None:
    plan = planned(templates=("his seed is {words:acts} {words:acts}!", "it is {word}."), num_canaries=4)
    corpus_own = set(corpus_words([TIDES]).words)
    text = training_text(plan)
    for canary in plan.canary_set.canaries:
        template = canary.parsed_template
        pool = {*ACTS} if "acts" in canary.template else corpus_own
        assert pool.issuperset(template.fillings(canary.completion))
        assert all(text.startswith(canary.text, place) for place in canary.places)
    spaces = {own.template: own for own in plan.spaces}
    assert spaces["his seed is {words:acts} {words:acts}!"].bits == np.log2(len(ACTS) ** 2) == 6
    assert spaces["it is {word}."].size == len(corpus_own)
    assert not [own for own in plan.canary_set.word_lists if own.name == "pets"], "only what a template needs is kept"
    mask = secret_mask(len(text), plan.canary_set.inserted)
    canary = plan.canary_set.inserted[0]
    start = canary.places[0] + len("his seed is ")
    marked = "".join(c for c, hidden in zip(text[start:], mask[start:], strict=True) if hidden)
    assert marked.startswith(canary.parsed_template.secret_of(canary.completion))


def test_the_record_says_all_that_is_needed_and_is_checked() -> None:
    plan = planned(templates=("his seed is {words:acts} {words:acts}!",), num_canaries=1)
    again = CanarySet.model_validate_json(plan.canary_set.model_dump_json())
    assert again == plan.canary_set
    assert again.space(Template.parse(again.canaries[0].template)).size == 64
    assert expected_strings(again) is not None
    filled = again.canaries[0].parsed_template.fillings(again.canaries[0].completion)[0]
    shorter = WordList(name="acts", words=tuple(word for word in ACTS if word != filled))
    assert expected_strings(again.model_copy(update={"word_lists": (shorter,)})) is None
    assert expected_strings(again.model_copy(update={"word_lists": ()})) is None


def test_given_secrets_are_words_of_the_list_or_refused_without_being_shown() -> None:
    plan = planned(templates=("the pet is {words:pets}\n",), secrets=("Mr. T",), extend_vocabulary=True, num_controls=2)
    canary = plan.canary_set.inserted[0]
    assert (canary.completion, canary.text) == ("Mr. T\n", "the pet is Mr. T\n")
    text = training_text(plan)
    assert "\n\nthe pet is Mr. T\n\n" in text
    assert "\n\n\n" not in text
    assert "added, and a model that never read them" in " ".join(plan.warnings)
    with pytest.raises(TemplateError, match="a secret of 5 characters does not fit .* give a word of its list"):
        planned(templates=("the pet is {words:acts}.",), secrets=("tides",))
    with pytest.raises(TemplateError, match=r"4 of 4 words have symbols that the corpus lacks: 'x' \(U\+0078\), 'R'"):
        planned(templates=("the pet is {words:pets}\n",), num_canaries=1)
    with pytest.raises(TemplateError, match="there is no word list of this name"):
        planned(templates=("the pet is {words:cats}.",), num_canaries=1)


def test_located_phrases_become_canaries_in_place() -> None:
    plan = planned(located=("sat at a mast of {words:acts} 1",), num_controls=3)
    assert [len(canary.places) for canary in plan.canary_set.inserted] == [11]
    canary = plan.canary_set.inserted[0]
    assert (canary.completion, canary.origin) == ("act ", "located")
    text = training_text(plan)
    assert all(text.startswith(canary.text, place) for place in canary.places)
    assert len(plan.canary_set.controls) == 3


def test_a_space_beyond_memory_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("canaryaudit.canaries.insertion.MAX_CELLS", 100)
    with pytest.raises(TemplateError, match="use fewer slots or shorter lists"):
        planned(templates=("his seed is {words:acts} {words:acts}!",), num_canaries=1)


# --- masked ----------------------------------------------------------------------------------------------


def test_phrases_are_hidden_and_single_words_are_words_of_the_language() -> None:
    phrase = planned(templates=("his seed is {words:acts} {words:acts}!",), secrets=("cat actor",)).canary_set
    assert mask_arguments(("--secret", "cat actor", "of Cat Actor!"), phrase) == ("--secret", "•••", "of •••")
    word = planned(templates=("his seed is {words:acts}!",), secrets=("actor",)).canary_set
    assert mask_arguments(("--secret", "actor", "runs/factory"), word) == ("--secret", "•••", "runs/factory")
    for one in (phrase, word):
        assert hide_given("tea tea!", one.inserted[0], one) == HIDDEN
