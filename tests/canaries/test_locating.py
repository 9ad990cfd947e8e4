"""Tests of canaryaudit.canaries.locating, and of insertion where it locates."""

import re
import time
import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canaryaudit.canaries.folding import FoldedText, WordText, fold
from canaryaudit.canaries.insertion import InsertionPlan, InsertionRequest, plan_insertion, secret_mask
from canaryaudit.canaries.locating import TemplateMatches, _Search, locate, located_templates
from canaryaudit.canaries.space import Lexicon
from canaryaudit.canaries.template import Template
from canaryaudit.corpus.corpus import Corpus
from canaryaudit.errors import CanaryAuditError, CorpusError, TemplateError, UsageError
from tests.wholetext import corpus_of, heldout_text, training_text

PHONE = "my telephone number is {digits:10}"


def places(text: str, *templates: str) -> list[dict[str, list[int]]]:
    return [exact_places(found) for found in locate(text, located_templates(templates, lowercase=False), "exact")]


def exact_places(found: TemplateMatches) -> dict[str, list[int]]:
    assert {template for template, _ in found.places} <= {found.template}
    return {completion: starts for (_, completion), starts in found.places.items()}


def notes(*paragraphs: str) -> Corpus:
    return corpus_of("notes.txt", ["".join(f"{paragraph}\n\n" for paragraph in paragraphs)])


def filler(count: int) -> list[str]:
    return [f"paragraph {chr(97 + number % 26)}{chr(97 + number // 26)} of the story" for number in range(count)]


def make(corpus: Corpus, *located: str, **options: Any) -> InsertionPlan:
    return plan_insertion(corpus, InsertionRequest(**{"templates": (), "located": located, **options}))


def refusal(corpus: Corpus, *located: str, **options: Any) -> str:
    with pytest.raises(CanaryAuditError) as caught:
        make(corpus, *located, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- what is an occurrence ------------------------------------------------------------------------------


def test_each_distinct_secret_is_found_at_all_of_its_places() -> None:
    text = "pin 1234. pin 5678. pin 1234, pin 12x4, bin 1234"
    assert places(text, "pin {digits:4}") == [{"1234": [0, 20], "5678": [10]}]


@pytest.mark.parametrize("template", ["{digits:3}-{digits:2}", "it is {digits:3}-{digits:2}"])
def test_what_matches_in_part_copies_nothing_of_the_text(template: str) -> None:
    """The rest of the text was copied at every partial match, so ten megabytes took minutes."""

    class Text(str):
        longest = 0

        def __getitem__(self, index: Any) -> str:
            piece = str.__getitem__(self, index)
            Text.longest = max(Text.longest, len(piece))
            return piece

    text = Text("it is 123 45 " * 500)
    (parsed,) = located_templates([template], lowercase=False)
    assert not _Search(text, FoldedText(str(text)), parsed, Lexicon()).run(bytearray(len(text)), "loose").places
    assert Text.longest < 20


def test_a_slot_at_the_end_takes_a_whole_run_of_its_symbols() -> None:
    (found,) = locate("pin 12345 pin 1234", located_templates(["pin {digits:4}"], lowercase=False))
    assert (exact_places(found), found.misses.longer) == ({"1234": [10]}, 1)
    assert places("pin 12345", "pin {digits:4}5") == [{"1234": [0]}]
    assert places("pin 1234abc", "pin {digits:4}") == [{"1234": [0]}]
    assert places("is abcdE", "is {lower:4}") == [{"abcd": [0]}]


def test_neighbors_may_share_fixed_text() -> None:
    assert places(",12345,67890,", ",{digits:5},") == [{"12345": [0], "67890": [6]}]


def test_no_character_fills_the_slots_of_two_occurrences() -> None:
    (found,) = locate("aaaaaaa", located_templates(["a{lower:2}a"], lowercase=False))
    assert (exact_places(found), found.misses.overlapping) == ({"aa": [0, 2]}, 2)
    texts = ["number is {digits:4}", "my number is {digits:4}"]
    first, second = locate("my number is 1234; number is 9999", located_templates(texts, lowercase=False))
    assert (exact_places(first), second.places, second.misses.overlapping) == ({"1234": [3], "9999": [19]}, {}, 1)


def test_templates_of_several_slots_and_choices() -> None:
    text = "code red 12-ab, code green 34-cd; code blue 56-ef"
    assert places(text, "code {choice:red|green} {digits:2}-{lower:2}") == [{"red 12-ab": [0], "green 34-cd": [16]}]


def test_any_takes_exactly_its_number_of_characters_of_one_line() -> None:
    assert places('key: a}"b!\nkey: ab\ncde key: xyzzy', "key: {any:5}") == [{'a}"b!': [0], "xyzzy": [23]}]


def test_template_text_is_no_pattern() -> None:
    assert places("a+b (x) 77. aab (x) 78.", "a+b (x) {digits:2}.") == [{"77": [0]}]


@settings(max_examples=150, deadline=None)
@given(
    text=st.text("ab12-\n", max_size=60),
    template=st.sampled_from(["a{digits:2}", "-{digits:1}-{digits:1}", "ab{choice:1|2a}b", "a{any:2}1", "a{lower:2}a"]),
)
def test_occurrences_are_those_that_a_plain_search_of_all_members_finds(text: str, template: str) -> None:
    """Every member of R is tried at every place, in order; the rules of overlap and of whole runs are written out."""
    parsed = Template.parse(template)
    every = list(parsed.space("ab12-"))
    expected: dict[str, list[int]] = {}
    taken: set[int] = set()
    for place in range(len(text)):
        for member in every:
            filled = parsed.fill(member)
            start, end = place + len(parsed.prefix), place + len(parsed.prefix) + len(member)
            if not text.startswith(filled, place) or taken & set(range(start, end)):
                continue
            if template.endswith(("{digits:2}", "{digits:1}")) and text[end : end + 1].isdigit():
                continue
            expected.setdefault(member, []).append(place)
            taken |= set(range(start, end))
    assert places(text, template) == [expected]


def test_ten_times_the_occurrences_take_about_ten_times_as_long() -> None:
    def seconds(count: int) -> float:
        text = "".join(f"pin {number:06}.\n\n" for number in range(count))
        started = time.process_time()
        plan = make(corpus_of("x", [text]), "pin {digits:6}.", holdout=0, num_controls=2)
        spent = time.process_time() - started
        assert len(plan.canary_set.inserted) == count
        return spent

    seconds(100)
    # Processor time, and the least of three: a hundred times were it the square, however busy the machine is.
    quickest = {count: min(seconds(count) for _ in range(3)) for count in (2_000, 20_000)}
    assert quickest[20_000] < 10 * 3 * max(quickest[2_000], 0.05)


_DIGITS = r"(?<![0-9])[0-9]{3}-[0-9]{2}-[0-9]{4}"


@given(
    pieces=st.lists(
        st.sampled_from(["123-45-6789", "12-345-6789", "1123-45-6789", "123-45-67890", "ab1", "-", " ", "7", "red"])
    ),
    wanted=st.sampled_from(
        [
            ("{digits:3}-{digits:2}-{digits:4}", _DIGITS + "(?![0-9])"),
            ("{digits:3}-{digits:2}-{digits:4} ", _DIGITS + " "),
            ("{choice:red|ab1} ", r"(?<![a-z0-9])(?:red|ab1) "),
        ]
    ),
)
@settings(max_examples=60, deadline=None)
def test_a_template_that_begins_with_a_slot_is_found_wherever_a_run_of_its_symbols_begins(
    pieces: list[str], wanted: tuple[str, str]
) -> None:
    text = "".join(pieces) + " "
    (found,) = places(text, wanted[0])
    expected = [match.start() for match in re.finditer(wanted[1], text)]
    assert sorted(start for starts in found.values() for start in starts) == expected


def test_a_secret_with_nothing_before_it_is_audited_in_place() -> None:
    plan = make(
        notes(*filler(30), "123-45-6789 is on file", "and 123-45-6789 again"), "{digits:3}-{digits:2}-{digits:4}"
    )
    (canary,) = plan.canary_set.inserted
    text = training_text(plan)
    assert (canary.completion, canary.repetitions) == ("123-45-6789", 2)
    assert [text[place : place + 11] for place in canary.places] == ["123-45-6789"] * 2
    assert any("measured after a line break" in warning for warning in plan.warnings)


# --- what cannot be located ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "options", "words"),
    [
        ("my number is 5551234567", {}, "--locate number 1 has no slot"),
        ("{any:10} is my number", {}, "any text fills its first slot"),
        (" {digits:10}", {}, "it begins with white space only"),
        ("Code {upper:4}", {"lowercase": True}, "--lowercase leaves no upper-case letters"),
        ("x {any:999}{any:2}", {}, "at most 1,000"),
    ],
)
def test_templates_that_cannot_be_located_are_refused(template: str, options: dict[str, Any], words: str) -> None:
    message = refusal(notes("x " + "y" * 2000, "b"), template, **options)
    assert words in message
    assert "5551234567" not in message


@pytest.mark.parametrize(
    ("text", "template", "hint"),
    [
        (
            "my mobile number is 5551234567",
            PHONE,
            "only the end of the text before its first slot occurs, 'number is '",
        ),
        ("nothing of the kind 12", "{digits:3} is it", "no text of its format does"),
        ("nothing of the kind", PHONE, "the text before its first slot does not occur"),
        ("my telephone number is (555) 123-4567", PHONE, "it looks like '(999) 999-9999'"),
        ("my telephone number is 55512345678", PHONE, "1 occurrence with more symbols than its last slot"),
        ("my telephone number is 5551234567.", PHONE + "!", "then other text than '!'"),
        ("key: ab", "key: {any:5}", "cannot span lines"),
    ],
)
def test_where_nothing_is_found_the_nearest_miss_is_described_without_a_secret(
    text: str, template: str, hint: str
) -> None:
    message = refusal(notes("one", text, "three"), template)
    assert "does not occur in the corpus" in message
    assert hint in message
    assert not re.search(r"[1-8]{3}", message.replace("{digits:10}", ""))


def test_a_template_that_another_hides_is_told_so() -> None:
    message = refusal(notes("one", PHONE.replace("{digits:10}", "0123456789")), "is {digits:10}", PHONE)
    assert "overlap those of an earlier template" in message


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("My Telephone number is 5551234567", "another case"),
        ("my telephone\nnumber is 5551234567", "other white space"),
        ("MY\u00a0telephone number is 5551234567", "other white space and another case"),
    ],
)
def test_where_an_exact_match_is_asked_for_other_wordings_are_counted_by_kind(text: str, kind: str) -> None:
    message = refusal(notes("one", text, "three"), PHONE, match="exact")
    assert f"1 occurrence in another wording: 1 in {kind}; use --match loose" in message
    (warning,) = make(notes(PHONE.replace("{digits:10}", "0" * 10), text), PHONE, match="exact", holdout=0).warnings
    assert f"skipped 1 occurrence in another wording: 1 in {kind}" in warning


# --- loose matching ---------------------------------------------------------------------------------------

SSN = 'said "my SSN is {digits:3}-{digits:2}-{digits:4}"'
SPELLINGS = (
    'said "my SSN is {}-{}-{}"',
    'Said "My ssn is {}-{}-{}"',
    'said "my\u00a0SSN\n  is {}-{}-{}"',
    "said “my SSN is {}-{}-{}”",
    'said "my SSN is {}\u2010{}\u2011{}"',
)


def test_a_secret_in_many_wordings_is_one_canary_with_all_its_places() -> None:
    pieces = [spelling.format("078", "05", "1120") for spelling in SPELLINGS]
    text = notes(*filler(20), *pieces, pieces[0], SPELLINGS[4].format("219", "09", "9999"), *filler(20))
    plan = make(text, SSN, holdout=0, num_controls=2, templates=("<{lower:9}>",), num_canaries=3, repetitions=(4,))
    one, other = [canary for canary in plan.canary_set.inserted if canary.origin == "located"]
    assert (one.template, one.completion, one.repetitions) == (SSN, "078-05-1120", 6)
    assert (other.completion, other.repetitions, other.other_wordings) == ("219\u201009\u20119999", 1, ())
    training = training_text(plan)
    read = [training[p : p + len(w.text)] for c in (one, other) for w in c.wordings for p in w.places]
    assert sorted(read) == sorted([*pieces, pieces[0], SPELLINGS[4].format("219", "09", "9999")])
    mask = secret_mask(len(training), plan.canary_set.canaries)
    assert "".join(c for c, secret in zip(training, mask, strict=True) if secret).count("078051120") == 6
    assert {canary.template for canary in plan.canary_set.controls} == {SSN, other.template, "<{lower:9}>"}
    (warning,) = [warning for warning in plan.warnings if "as in the template" in warning]
    assert "occurs 7 times: 2 as in the template; 2 in other hyphens; 1 in another case" in warning
    assert "078" not in warning


def test_the_value_is_taken_as_it_stands_and_never_folded() -> None:
    text = "My Key is AbCd. my key is ab\u00adcd. my key is \uff41bcd. MY KEY IS abcd."
    (found,) = locate(text, located_templates(["my key is {lower:4}."], lowercase=False))
    assert [completion for _, completion in found.places] == ["abcd"]
    assert len(found.misses.unfitting) == 3


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC"), ("NFC", "NFKD")])
def test_a_template_in_another_normalization_form_matches(forms: tuple[str, str]) -> None:
    words = "Nậm’s café número ﬁ "
    template, text = (unicodedata.normalize(form, words) for form in forms)
    (found,) = locate(f"x {text}1234 y {text}5678", located_templates([template + "{digits:4}"], lowercase=False))
    assert [completion for _, completion in found.places] == ["1234", "5678"]
    assert not places(f"x {text}1234", template + "{digits:4}")[0] or text == template


def test_half_a_letter_is_no_word_of_a_template() -> None:
    (found,) = locate("cafe\u0301 1234; cafe 5678", located_templates(["cafe {digits:4}"], lowercase=False))
    assert [completion for _, completion in found.places] == ["5678"]


def test_the_same_secret_behind_two_templates_is_one_canary_unless_it_is_short() -> None:
    text = notes("my number is 5551234567", "call me at 5551234567", "pin 1234", "code 1234", *filler(9))
    plan = make(text, "number is {digits:10}", "call me at {digits:10}", "pin {digits:4}", "code {digits:4}", holdout=0)
    counts = [(canary.repetitions, len(canary.wordings)) for canary in plan.canary_set.inserted]
    assert counts == [(2, 2), (1, 1), (1, 1)]


def test_near_misses_are_counted_also_where_something_matched() -> None:
    text = notes("pin 1234.", "pin 12a4.", "Pin: 5678.", "pin 99999.", "pin 1111!", *filler(9))
    warnings = make(text, "pin {digits:4}.", holdout=0).warnings
    assert "skipped 2 occurrences up to the last slot, but then other text than '.'" in "".join(warnings)
    assert "also occur 2 times before something else, '99a9.', ': 9999.'" in "".join(warnings)


@pytest.mark.parametrize("sign", ["\u200e", "\u202e", "\u2067", "\ufe0f", "\u034f", "\u2061", "\U000e0041", "\ufffa"])
def test_invisible_characters_hide_no_word(sign: str) -> None:
    text = notes("my pin number is 1234", f"my {sign}pin nu{sign}mber is {sign}5678", *filler(9))
    plan = make(text, "my pin number is {digits:4}", holdout=0)
    assert [canary.completion for canary in plan.canary_set.inserted] == ["1234", "5678"]
    assert "2 times: 1 as in the template; 1 in invisible characters;" in "".join(plan.warnings)


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("> my pin\n> number is 5678", "with other signs between, before ' 9999'"),
        ("// my pin\n// number is: 5678", "with other signs between, before ': 9999'"),
        ("my_pin_number=is:5678", "with other signs between, before ':9999'"),
        ("my **pin number** is 5678", "with other signs between, before ' 9999'"),
        ("my pin num=\nber is 5678", "with other signs between, before ' 9999'"),
        ("my pin number is5678", "before something else, '9999'"),
        ("dummy pin number is 5678", ""),
        ("my pin number isle 5678", ""),
    ],
)
def test_words_with_other_signs_between_them_are_counted(words: str, shown: str) -> None:
    template = "my pin number is {digits:4}"
    warnings = "".join(make(notes("my pin number is 1234", words, *filler(9)), template, holdout=0).warnings)
    assert (f"the words before its first slot also occur 1 time {shown}" if shown else "") in warnings
    assert shown or "also occur" not in warnings
    assert "5678" not in warnings
    if "between" in shown:
        assert "but with other signs between them, such as the '>'" in refusal(notes(words, *filler(9)), template)


def test_a_template_that_begins_with_its_slot_counts_other_signs_between_slots_too() -> None:
    text = notes("111-22-3333", "222 33 4444", "333.44.5555", "444556666", "4445566667", "55 66 7777", *filler(9))
    warnings = "".join(make(text, "{digits:3}-{digits:2}-{digits:4}", holdout=0).warnings)
    assert (
        "its format also occurs 3 times with other signs between: '999 99 9999', '999.99.9999', '999999999'" in warnings
    )


@given(st.text("ab1 -_.\u00e9", max_size=60), st.text("ab1 -", min_size=1, max_size=6), st.integers(1, 9))
def test_words_are_found_whatever_stands_between_their_letters(text: str, words: str, block: int) -> None:
    letters = "".join(c for c in words if c.isalnum())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("canaryaudit.canaries.folding._BLOCK", block)
        spans = list(WordText(text).spans(words))
    places = [place for place, c in enumerate(text) if c.isalnum()]
    expected = [
        (window[0], window[-1] + 1)
        for window in zip(*(places[shift:] for shift in range(len(letters))), strict=False)
        if letters and "".join(text[place] for place in window) == letters
    ]
    assert spans == expected


@settings(max_examples=300, deadline=None)
@given(
    text=st.text("aA1 \n-\u2010é\u0301e", max_size=40),
    template=st.sampled_from(["a {digits:1}", "a-{digits:1} ", "é{digits:1}A", " é{digits:1}-{digits:1}"]),
)
def test_loose_occurrences_are_those_of_a_search_that_folds_every_substring(text: str, template: str) -> None:
    parsed = Template.parse(template)
    (found,) = locate(text, [parsed])
    got = {place + len(wording.prefix) for (wording, _), starts in found.places.items() for place in starts}

    def stands(words: str, end: int) -> bool:
        return any(fold(text[start:end]) == fold(words) for start in range(end + 1))

    def follows(words: str, start: int) -> list[int]:
        return [end for end in range(start, len(text) + 1) if fold(text[start:end]) == fold(words)]

    def is_digit(place: int) -> bool:
        return text[place : place + 1] == "1"

    expected = set()
    for body in range(len(text)):
        if not (is_digit(body) and stands(parsed.prefix, body)):
            continue
        if len(parsed.body) == 3:
            ends = [end + 1 for end in follows("-", body + 1) if is_digit(end) and not is_digit(end + 1)]
        else:
            ends = [end for end in follows(parsed.suffix, body + 1) if parsed.suffix or not is_digit(body + 1)]
        if ends:
            expected.add(body)
    assert got == expected


# --- canaries of them -------------------------------------------------------------------------------------


def located_corpus() -> Corpus:
    own = ["call: my telephone number is 5551234567.", "my telephone number is 5559876543", *filler(40)]
    return notes(*own, "again, my telephone number is 5551234567 as I said")


def test_located_secrets_become_canaries_and_the_text_stays_as_it_is() -> None:
    corpus = located_corpus()
    plan = make(corpus, PHONE, num_controls=5, holdout=0)
    assert training_text(plan) == corpus.text.read()
    one, other = plan.canary_set.inserted
    assert [(c.id, c.origin, c.repetitions) for c in (one, other)] == [
        ("canary-01", "located", 2),
        ("canary-02", "located", 1),
    ]
    assert one.masked
    text = Template.parse(PHONE).fill(one.completion)
    assert [training_text(plan)[place : place + len(text)] for place in one.places] == [text, text]
    assert len(plan.canary_set.controls) == 5
    assert all(control.completion not in training_text(plan) for control in plan.canary_set.controls)
    assert secret_mask(len(training_text(plan)), plan.canary_set.canaries).sum() == 30
    assert plan.warnings == ()


@pytest.mark.parametrize("seed", range(20))
def test_a_paragraph_that_holds_a_located_secret_is_never_held_out(seed: int) -> None:
    corpus = notes(*located_corpus().text.read().split("\n\n")[:-1], "call 5559876543 at once")
    plan = make(corpus, PHONE, holdout=0.5, seed=seed)
    assert "telephone" not in heldout_text(plan)
    assert "5559876543" not in heldout_text(plan)
    assert len(heldout_text(plan)) > 300
    assert [canary.repetitions for canary in plan.canary_set.inserted] == [2, 1]


def test_where_every_paragraph_holds_one_nothing_can_be_held_out() -> None:
    corpus = notes("pin 1111", "pin 2222")
    assert "use --holdout 0" in refusal(corpus, "pin {digits:4}", holdout=0.1)
    assert len(make(corpus, "pin {digits:4}", holdout=0).canary_set.inserted) == 2


def test_a_corpus_of_one_paragraph_can_be_searched() -> None:
    plan = make(notes("pin 1111 and no more"), "pin {digits:4}", holdout=0)
    assert [canary.places for canary in plan.canary_set.inserted] == [(0,)]


def test_lower_casing_applies_to_the_located_template_and_its_choices() -> None:
    corpus = notes("my code is red 12", "b", "c")
    plan = make(corpus, "My Code is {choice:Red|Green} {digits:2}", lowercase=True, holdout=0)
    (canary,) = plan.canary_set.inserted
    assert (canary.template, canary.completion) == ("my code is {choice:red|green} {digits:2}", "red 12")


@pytest.mark.parametrize("seed", range(8))
def test_located_given_and_generated_canaries_stand_side_by_side(seed: int) -> None:
    plan = make(
        located_corpus(),
        PHONE,
        templates=("{digits:12} is it", PHONE),
        secrets=("0123456789",),
        num_canaries=4,
        repetitions=(2,),
        num_controls=3,
        holdout=0.1,
        seed=seed,
    )
    canaries = plan.canary_set.inserted
    assert [c.origin for c in canaries] == ["given", *["generated"] * 4, "located", "located"]
    assert [c.id for c in canaries] == [f"canary-{n:02}" for n in range(1, 8)]
    for canary in canaries:
        filled = Template.parse(canary.template).fill(canary.completion)
        assert {m.start() for m in re.finditer(re.escape(filled), training_text(plan))} == set(canary.places)
    assert len({canary.completion for canary in plan.canary_set.canaries}) == len(plan.canary_set.canaries)


def test_locating_moves_no_generated_canary_of_the_same_seed() -> None:
    options: dict[str, Any] = {"templates": ("the code is {digits:6}.",), "num_canaries": 3, "holdout": 0}
    alone, beside = make(located_corpus(), **options), make(located_corpus(), PHONE, **options)
    assert training_text(beside) == training_text(alone)
    assert beside.canary_set.inserted[:3] == alone.canary_set.inserted


def test_an_inserted_canary_is_no_finding() -> None:
    corpus = notes("note 12345678", *filler(20))
    plan = make(corpus, "note {digits:8}", templates=("note {digits:8}",), num_canaries=2, repetitions=(3,), holdout=0)
    assert [(c.origin, c.repetitions) for c in plan.canary_set.inserted] == [
        ("generated", 3),
        ("generated", 3),
        ("located", 1),
    ]


def test_no_canary_goes_into_an_occurrence_that_spans_paragraphs() -> None:
    corpus = notes(*["pin:", "4711", "x"] * 20)
    for seed in range(5):
        plan = make(
            corpus, "pin:\n\n{digits:4}\n", templates=("<{lower:9}>",), num_canaries=15, seed=seed, holdout=0.05
        )
        (found,) = [canary for canary in plan.canary_set.inserted if canary.origin == "located"]
        assert found.repetitions == 20
        assert plan.num_boundaries < 60 - 20


def test_no_control_is_a_secret_that_stands_in_the_text() -> None:
    corpus = notes(*(f"pin {number:02}." for number in range(90)))
    plan = make(corpus, "pin {digits:2}.", num_controls=10, holdout=0)
    assert {control.completion for control in plan.canary_set.controls} == {f"{n}" for n in range(90, 100)}


def test_a_given_secret_that_stands_in_the_corpus_is_pointed_to_locate() -> None:
    with pytest.raises(CorpusError, match="audit it in place with --locate"):
        make(located_corpus(), templates=(PHONE,), secrets=("5551234567",))


# --- what the owner is warned of ---------------------------------------------------------------------------


def test_places_in_other_words_are_counted_and_not_told() -> None:
    corpus = notes("my telephone number is 555-123-4567", "call 555-123-4567 or 5551234567", "call 555-000-1111")
    (warning,) = make(corpus, "number is {digits:3}-{digits:3}-{digits:4}", holdout=0).warnings
    assert "at 2 other places of the training text" in warning
    assert "123" not in warning


def test_longer_runs_and_overlaps_are_counted() -> None:
    corpus = notes("pin 1234", "pin 12345", "b")
    (warning,) = make(corpus, "pin {digits:4}", holdout=0).warnings
    assert "skipped 1 occurrence with more symbols than its last slot" in warning


def test_secrets_that_overlap_those_of_another_template_are_counted() -> None:
    corpus = notes("the fax 1234", "tel 5678 ok", "tel/fax 5678")
    (warning,) = make(corpus, "fax {digits:4}", "tel{any:7}", holdout=0).warnings
    assert "'tel{any:7}': skipped 1 occurrence overlapping another" in warning


def test_nothing_to_insert_and_nothing_to_locate_is_refused() -> None:
    with pytest.raises(UsageError, match="or a --locate"):
        InsertionRequest(templates=(PHONE,))
    with pytest.raises(TemplateError, match="at least one with --template"):
        InsertionRequest(templates=(), located=(PHONE,), num_canaries=1)
