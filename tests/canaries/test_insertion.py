"""Tests of canaryaudit.canaries.insertion."""

import itertools
import re
import string
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canaryaudit.canaries.canary import Canary, expected_strings
from canaryaudit.canaries.insertion import InsertionPlan, InsertionRequest, plan_insertion, secret_mask
from canaryaudit.canaries.template import Template
from canaryaudit.corpus.corpus import Corpus, ends_with_blank_line
from canaryaudit.errors import CanaryAuditError, CorpusError, TemplateError, UsageError
from tests.wholetext import corpus_of, cut, heldout_text, hold_out, paragraphs, training_text

PHONE = "my telephone number is {digits:10}!"
CODE = "the code of {lower:4} is {digits:3}-{digits:3}"


def text_of(canary: Canary) -> str:
    return Template.parse(canary.template).fill(canary.completion)


def make(corpus: Corpus, *templates: str, **options: Any) -> InsertionPlan:
    return plan_insertion(corpus, InsertionRequest(templates=templates or (PHONE,), **options))


def small(*documents: str) -> Corpus:
    return corpus_of("small", documents)


def refusal(corpus: Corpus, *templates: str, error: type[CanaryAuditError] = TemplateError, **options: Any) -> str:
    with pytest.raises(error) as caught:
        make(corpus, *templates, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_canaries_that_fill_their_space_are_refused_before_anything_is_trained(corpus: Corpus) -> None:
    words = refusal(corpus, "the lamp is {choice:red|green}.", num_canaries=2, num_controls=0)
    assert "every completion of template 'the lamp is {choice:red|green}.' is an inserted canary" in words
    assert make(corpus, "the lamp is {choice:red|green}.", num_canaries=1, num_controls=1).canary_set.inserted


def test_a_template_without_words_before_its_slot_is_warned_of(corpus: Corpus) -> None:
    (warning,) = make(corpus, "{digits:6} is the code.", num_canaries=1, num_controls=1).warnings
    assert "has no text before its first slot: its exposure is measured after a line break" in warning
    assert not make(corpus, num_canaries=1, num_controls=1).warnings


# --- where canaries go --------------------------------------------------------------------------------


def test_every_place_holds_its_canary_and_no_other_place_does(corpus: Corpus) -> None:
    plan = make(corpus, PHONE, CODE, num_canaries=6, repetitions=(1, 4), num_controls=3, holdout=0.1)
    for canary in plan.canary_set.inserted:
        text = text_of(canary)
        assert all(training_text(plan)[place : place + len(text)] == text for place in canary.places)
        assert training_text(plan).count(text) == canary.repetitions == len(canary.places)
        assert text not in heldout_text(plan)
    for control in plan.canary_set.controls:
        assert text_of(control) not in training_text(plan) + heldout_text(plan)
        assert (control.repetitions, control.places) == (0, ())


@settings(max_examples=50, deadline=None)
@given(
    documents=st.lists(st.text("abc \n", min_size=1, max_size=80).filter(str.strip), min_size=1, max_size=8),
    repetitions=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    num_canaries=st.integers(1, 3),
    holdout=st.sampled_from([0.0, 0.1, 0.4]),
    seed=st.integers(0, 1000),
)
def test_taking_the_canaries_out_gives_the_corpus_back(
    documents: list[str], repetitions: list[int], num_canaries: int, holdout: float, seed: int
) -> None:
    pieces = paragraphs(documents)
    training, heldout = hold_out(pieces, holdout, seed) if len(pieces) > 1 else (pieces, ())
    options: dict[str, Any] = {"num_canaries": num_canaries, "repetitions": tuple(repetitions)}
    if len(training) - 1 < sum(itertools.islice(itertools.cycle(repetitions), num_canaries)):
        refusal(small(*documents), "<{digits:8}>", error=CorpusError, holdout=holdout, seed=seed, **options)
        return
    plan = make(small(*documents), "<{digits:8}>", holdout=holdout, seed=seed, **options)
    left = training_text(plan)
    places = sorted((place, text_of(c)) for c in plan.canary_set.inserted for place in c.places)
    for place, text in reversed(places):
        ending = "\n\n" if ends_with_blank_line(left[:place]) else "\n"
        assert left[place:].startswith(text + ending)
        left = left[:place] + left[place:].removeprefix(text + ending)
    assert left == "".join(training)
    assert heldout_text(plan) == "".join(heldout)
    assert len({place for place, _ in places}) == len(places)


def test_canaries_are_paragraphs_of_their_own(corpus: Corpus) -> None:
    plan = make(corpus, num_canaries=3, repetitions=(5,))
    pieces = paragraphs([training_text(plan)])
    texts = {text_of(canary) + "\n\n" for canary in plan.canary_set.inserted}
    assert [piece for piece in pieces if piece not in texts] == list(cut(corpus))
    assert sum(piece in texts for piece in pieces) == 15


def test_in_a_text_of_lines_canaries_are_lines() -> None:
    plan = make(small("\n".join(f"line {number}" for number in range(9))), num_canaries=1)
    (canary,) = plan.canary_set.inserted
    assert text_of(canary) in training_text(plan).splitlines()
    assert "\n\n" not in training_text(plan)[:-1].removesuffix("\n")


def test_canaries_never_stand_within_a_document() -> None:
    documents = [f"document {number} is one paragraph" for number in range(6)]
    plan = make(small(*documents), num_canaries=5)
    assert all(document + "\n\n" in training_text(plan) for document in documents)
    assert plan.num_documents == 6
    assert plan.num_boundaries == 5


def test_the_same_seed_gives_the_same_plan_and_another_seed_another(corpus: Corpus) -> None:
    options: dict[str, Any] = {"num_canaries": 4, "repetitions": (2,), "num_controls": 4, "holdout": 0.1}
    first = make(corpus, seed=1, **options)
    again = make(corpus, seed=1, **options)
    assert first.canary_set == again.canary_set
    assert training_text(first) == training_text(again)
    other = make(corpus, seed=2, **options)
    assert heldout_text(other) != heldout_text(first)
    assert {c.completion for c in other.canary_set.canaries}.isdisjoint(c.completion for c in first.canary_set.canaries)


def test_more_controls_move_no_canary_and_keep_the_earlier_controls(corpus: Corpus) -> None:
    few = make(corpus, PHONE, CODE, num_canaries=4, num_controls=2, holdout=0.1)
    many = make(corpus, PHONE, CODE, num_canaries=4, num_controls=50, holdout=0.1)
    assert training_text(many) == training_text(few)
    assert many.canary_set.inserted == few.canary_set.inserted
    assert {c.completion for c in few.canary_set.controls} < {c.completion for c in many.canary_set.controls}


def test_a_corpus_too_short_for_the_repetitions_says_what_there_is_and_what_is_needed() -> None:
    corpus = small("one\n\ntwo\n\nthree\n\nfour")
    message = refusal(corpus, error=CorpusError, num_canaries=2, repetitions=(2,))
    assert "4 insertions" in message
    assert "has 3;" in message
    assert make(corpus, num_canaries=3).num_boundaries == 3


def test_a_corpus_of_one_line_is_refused() -> None:
    message = refusal(small("x" * 1000), error=CorpusError, num_canaries=1, holdout=0.05)
    assert "one paragraph of 1,002 characters" in message


# --- which secrets ------------------------------------------------------------------------------------


def test_canaries_are_dealt_in_turn_over_repetitions_and_templates(corpus: Corpus) -> None:
    plan = make(corpus, PHONE, CODE, num_canaries=5, repetitions=(1, 4))
    assert [(c.id, c.repetitions, c.template) for c in plan.canary_set.inserted] == [
        ("canary-01", 1, PHONE),
        ("canary-02", 1, CODE),
        ("canary-03", 4, PHONE),
        ("canary-04", 4, CODE),
        ("canary-05", 1, PHONE),
    ]


def test_each_template_has_its_controls(corpus: Corpus) -> None:
    plan = make(corpus, PHONE, CODE, num_canaries=1, num_controls=3)
    assert [c.id for c in plan.canary_set.controls] == [f"control-00{number}" for number in range(1, 7)]
    assert [c.template for c in plan.canary_set.controls] == [PHONE] * 3 + [CODE] * 3
    assert [(s.template, s.canaries, s.controls) for s in plan.spaces] == [(PHONE, 1, 3), (CODE, 0, 3)]


def test_all_secrets_of_a_template_are_different_and_in_its_space(corpus: Corpus) -> None:
    template = "gate {digits:2}."
    plan = make(corpus, template, num_canaries=40, num_controls=60)
    completions = [canary.completion for canary in plan.canary_set.canaries]
    assert sorted(completions) == [f"{number:02}" for number in range(100)]


def test_secrets_are_uniform_over_the_slots_own_space(corpus: Corpus) -> None:
    counts = np.zeros(10)
    for seed in range(40):
        plan = make(corpus, num_canaries=1, num_controls=20, seed=seed)
        for canary in plan.canary_set.canaries:
            counts += np.bincount([int(digit) for digit in canary.completion], minlength=10)
    expected = counts.sum() / 10
    assert ((counts - expected) ** 2 / expected).sum() < 27.9  # chi-square, 9 degrees of freedom, p 0.001


def test_a_space_that_is_too_small_is_refused(corpus: Corpus) -> None:
    message = refusal(corpus, "gate {digits:1}.", num_canaries=4, num_controls=7)
    assert "has 10 completions" in message


def test_generated_secrets_that_stand_in_the_corpus_are_drawn_again() -> None:
    taken = [f"{number:02}" for number in range(100) if number != 42]
    corpus = small(*(f"door {number}." for number in taken))
    (canary,) = make(corpus, "door {digits:2}.", num_canaries=1).canary_set.inserted
    assert canary.completion == "42"


def test_a_longer_secret_counts_as_taken_wherever_it_stands() -> None:
    # 900001 of the six-digit numbers 0..., read backwards and forwards, stand somewhere in this text.
    digits = "".join(f"{number:06}" for number in range(0, 1_000_000, 3))
    corpus = small(digits, "end")
    plan = make(corpus, "door {digits:6}.", num_canaries=1, num_controls=20)
    assert all(canary.completion not in digits for canary in plan.canary_set.canaries)


def test_canaries_that_could_be_mistaken_for_each_other_are_drawn_again(corpus: Corpus) -> None:
    plan = make(corpus, "code {digits:1}", "code {digits:2}", num_canaries=8, num_controls=1)
    inserted = [text_of(canary) for canary in plan.canary_set.inserted]
    for one, other in itertools.permutations(inserted + [text_of(c) for c in plan.canary_set.controls[:1]], 2):
        assert one not in other


# --- given secrets ------------------------------------------------------------------------------------


def test_a_given_secret_becomes_a_canary_in_the_first_template_that_it_fits(corpus: Corpus) -> None:
    plan = make(corpus, PHONE, CODE, "pin {digits:4}", secrets=("abcd123456", "0123456789", "7777"), repetitions=(2, 3))
    assert [(c.template, c.completion, c.repetitions, c.origin) for c in plan.canary_set.inserted] == [
        (CODE, "abcd is 123-456", 2, "given"),
        (PHONE, "0123456789", 3, "given"),
        ("pin {digits:4}", "7777", 2, "given"),
    ]
    assert all(canary.masked for canary in plan.canary_set.inserted)


def test_given_and_generated_canaries_are_numbered_together(corpus: Corpus) -> None:
    plan = make(corpus, secrets=("0123456789",), num_canaries=1)
    assert [(c.id, c.origin) for c in plan.canary_set.inserted] == [("canary-01", "given"), ("canary-02", "generated")]


@pytest.mark.parametrize("secret", ["abc", "01234567890", "012345678x"])
@pytest.mark.parametrize("templates", [(PHONE,), (PHONE, CODE)])
def test_a_given_secret_that_fits_no_template_is_refused_without_being_printed(
    corpus: Corpus, secret: str, templates: tuple[str, ...]
) -> None:
    message = refusal(corpus, *templates, secrets=(secret,))
    assert "slots of" in message
    assert secret not in message


def test_a_given_secret_that_stands_in_the_corpus_is_refused_without_being_printed() -> None:
    corpus = small("one", "call 0123456789 now", "two", "three")
    for holdout in (0, 0.5):
        message = refusal(corpus, error=CorpusError, secrets=("0123456789",), holdout=holdout)
        assert "already occurs in the corpus" in message
        assert "0123456789" not in message


def test_a_short_given_secret_may_stand_in_the_corpus_outside_its_template() -> None:
    corpus = small("one", "in 1942 they sailed", "two", "pin 1943.")
    assert make(corpus, "pin {digits:4}.", secrets=("1942",)).canary_set.inserted[0].completion == "1942"
    assert "already occurs" in refusal(corpus, "pin {digits:4}.", error=CorpusError, secrets=("1943",))


def test_words_of_a_choice_may_stand_in_the_corpus() -> None:
    corpus = small("a lighthouse", "a fisherman", "and more")
    plan = make(corpus, "I am a {choice:fisherman|harbourmaster}.", num_canaries=1)
    assert plan.spaces[0].size == 2


def test_given_secrets_must_differ(corpus: Corpus) -> None:
    assert "twice" in refusal(corpus, secrets=("0123456789", "0123456789"))
    message = refusal(corpus, CODE, secrets=("abcd123456", "abcd is 123-456"))
    assert "secret number 2" in message


# --- spaces, symbols, masks ---------------------------------------------------------------------------


def test_the_vocabulary_covers_the_texts_the_templates_and_every_space(corpus: Corpus) -> None:
    plan = make(corpus, "Ünïque {digits:2}{hex:1} ~", "{choice:Yes|No}?", num_canaries=2, holdout=0.2)
    symbols = set(plan.vocabulary.symbols)
    assert symbols >= set(training_text(plan)) | set(heldout_text(plan)) | set("Ünïque ~0123456789abcdefYesNo?")
    assert "Ü" not in plan.canary_set.corpus_symbols


def test_any_ranges_over_the_symbols_of_the_corpus_alone() -> None:
    plan = make(small("abba", "cab"), "XYZ{any:3}", num_canaries=1, num_controls=20)
    assert plan.canary_set.corpus_symbols == "\nabc"
    assert plan.spaces[0].size == 4**3
    assert set("".join(c.completion for c in plan.canary_set.canaries)) == set("\nabc")


def test_a_wider_space_is_measured_in_but_not_drawn_from_and_warns(corpus: Corpus) -> None:
    plan = make(corpus, num_canaries=2, num_controls=5, wider_space="alnum")
    assert all(canary.completion.isdigit() for canary in plan.canary_set.canaries)
    assert plan.spaces[0].size == 62**10
    assert plan.spaces[0].slot_bits == pytest.approx(33.22, abs=0.01)
    (warning,) = plan.warnings
    assert "up to 26.3 bits come from learning the format" in warning
    assert set(plan.vocabulary.symbols) >= {*string.ascii_letters, *string.digits}


def test_without_a_wider_space_there_is_no_warning(corpus: Corpus) -> None:
    assert make(corpus, num_canaries=1).warnings == ()
    assert make(corpus, num_canaries=1, wider_space="digits").warnings == ()


def test_a_template_without_a_canary_is_pointed_out(corpus: Corpus) -> None:
    (warning,) = make(corpus, PHONE, CODE, num_canaries=1).warnings
    assert CODE in warning


def test_a_space_that_lacks_the_slots_symbols_is_refused(corpus: Corpus) -> None:
    message = refusal(corpus, "{upper:4}", num_canaries=1, wider_space="digits")
    assert "--space digits is not wider than slot {upper:4}" in message


def test_lower_casing_applies_to_the_templates_text(corpus: Corpus) -> None:
    plan = make(corpus, "My Number Is {upper:8}", num_canaries=1, lowercase=True)
    (canary,) = plan.canary_set.inserted
    assert canary.template == "my number is {upper:8}"
    assert canary.completion.isupper()


def test_the_mask_covers_the_slots_and_nothing_else(corpus: Corpus) -> None:
    plan = make(corpus, PHONE, CODE, num_canaries=4, repetitions=(3,), num_controls=2)
    mask = secret_mask(len(training_text(plan)), plan.canary_set.canaries)
    assert mask.shape == (len(training_text(plan)),)
    assert mask.sum() == 3 * 4 * 10  # both templates have ten slot characters
    for canary in plan.canary_set.inserted:
        template = Template.parse(canary.template)
        for place in canary.places:
            text = training_text(plan)[place : place + len(text_of(canary))]
            masked = mask[place : place + len(text)]
            assert "".join(itertools.compress(text, masked)) == template.secret_of(canary.completion)


# --- what is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("templates", "options", "words"),
    [
        ((), {"num_canaries": 1}, "no template"),
        (("no slot",), {"num_canaries": 1}, "has no slot"),
        (("{digit:4}",), {"num_canaries": 1}, "unknown slot"),
        (("{digits:0}",), {"num_canaries": 1}, "length of 1"),
        (("{digits:1000000}",), {"num_canaries": 1}, "length of 1"),
        (("{digits:999}{digits:999}",), {"num_canaries": 1}, "at most 1,000"),
        (("{digits:4} \udcff",), {"num_canaries": 1}, "not valid UTF-8"),
    ],
)
def test_requests_that_make_no_sense_are_refused(
    corpus: Corpus, templates: tuple[str, ...], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(TemplateError, match=words):
        plan_insertion(corpus, InsertionRequest(templates=templates, **options))


@pytest.mark.parametrize(
    "options",
    [
        *({"holdout": 1.0}, {"holdout": -0.1}, {"holdout": float("nan")}, {"seed": -1}),
        *({"repetitions": (1, 0)}, {"repetitions": (-3,)}, {"repetitions": ()}),
        *({"num_canaries": -1}, {"num_controls": -1}, {"num_canaries": 0}),
    ],
)
def test_numbers_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        InsertionRequest(**{"templates": (PHONE,), "num_canaries": 1, **options})


# --- symbols that the corpus lacks, and secrets in their template's words --------------------------------


@pytest.mark.parametrize(("secret", "symbols"), [("José", "'é' (U+00E9)"), ("P@ß1", "'@' (U+0040), 'ß' (U+00DF)")])
def test_a_symbol_that_the_corpus_lacks_is_named_and_added_on_request(secret: str, symbols: str) -> None:
    corpus = corpus_of("x", ["one Pos J\n\ntwo 12\n\nthree 3\n\nfour 4\n\n"])
    options: dict[str, Any] = {"templates": ("{digits:3}", "my name is {any:4}."), "secrets": (secret,)}
    with pytest.raises(TemplateError, match=re.escape(f"secret number 1 needs {symbols}, which the corpus lacks")) as e:
        plan_insertion(corpus, InsertionRequest(**options))
    assert "--extend-vocabulary" in str(e.value)
    assert secret not in str(e.value)
    plan = plan_insertion(corpus, InsertionRequest(**options, extend_vocabulary=True, num_controls=3))
    (canary,) = plan.canary_set.inserted
    assert canary.completion == secret
    assert set(plan.vocabulary.symbols) >= {*secret}
    assert plan.canary_set.space(canary.parsed_template).size == len({*corpus.symbols, *secret}) ** 4
    assert expected_strings(plan.canary_set) == [(canary.places[0], f"my name is {secret}.")]


def test_a_symbol_that_no_slot_could_take_is_no_reason_to_extend_the_vocabulary(corpus: Corpus) -> None:
    with pytest.raises(TemplateError, match="does not fit the slots"):
        plan_insertion(corpus, InsertionRequest(templates=("pin {digits:4}",), secrets=("12é4",)))


@pytest.mark.parametrize("template", ["my Hunter22 is {lower:6}{digits:2}.", "hunter22 {what:9}", "hunter22} {any:8}"])
def test_a_secret_in_a_templates_words_is_refused_and_not_printed(template: str) -> None:
    with pytest.raises(TemplateError, match="stands in the words of template number 2") as caught:
        InsertionRequest(templates=("pin {digits:4}", template), secrets=("hunter22",))
    assert "hunter" not in str(caught.value).lower()


def test_words_to_choose_from_may_be_the_secret() -> None:
    InsertionRequest(templates=("it is {choice:green|blue}.",), secrets=("green",))


def test_a_coin_of_its_own_decides_of_every_canary(corpus: Corpus) -> None:
    plan = make(corpus, "pin {digits:6}.", num_canaries=16, coin=True, num_controls=2)
    without = make(corpus, "pin {digits:6}.", num_canaries=16, repetitions=(1,))
    tossed = [canary for canary in plan.canary_set.canaries if canary.coin]
    inside, outside = [[c for c in tossed if c.coin == side] for side in ("in", "out")]
    assert len(inside) + len(outside) == 16
    assert 0 < len(inside) < 16
    assert [canary.id for canary in inside] == [f"canary-{number + 1:02}" for number in range(len(inside))]
    assert all(c.control and not c.repetitions and not c.places for c in outside)
    assert all(len(c.places) == 1 for c in inside)
    assert sum(c.control for c in plan.canary_set.canaries) == len(outside) + 2
    # The secrets are the same whatever the coins, or the coins would tell of them.
    assert {c.completion for c in tossed} == {c.completion for c in without.canary_set.inserted}
    other = make(corpus, "pin {digits:6}.", num_canaries=16, coin=True, num_controls=2)
    assert other.canary_set == plan.canary_set


def test_coins_are_fair_and_differ_with_the_seed(corpus: Corpus) -> None:
    inside = [
        make(corpus, "pin {digits:6}.", num_canaries=14, coin=True, seed=seed).canary_set.inserted for seed in range(30)
    ]
    assert 160 < sum(map(len, inside)) < 260  # 210 are expected, with a standard deviation of ten
    assert len({len(own) for own in inside}) > 3


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"num_canaries": 11}, "--coin needs at least 12 generated canaries, got 11"),
        ({"num_canaries": 12, "repetitions": (1, 2)}, "all canaries must occur equally often"),
    ],
)
def test_coins_that_bound_nothing(corpus: Corpus, options: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        make(corpus, "pin {digits:6}.", coin=True, **options)
