"""Tests of canaryaudit.canaries.template."""

import itertools
import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from canaryaudit.canaries.canary import Canary, CanarySet
from canaryaudit.canaries.space import ALPHABETS, Slot
from canaryaudit.canaries.template import Template
from canaryaudit.errors import TemplateError

SYMBOLS = "\n -abc"
SMALL = (
    "{digits:2}",
    "n {digits:1}-{hex:1}!",
    "{choice:red|green}{digits:1}",
    "{any:2}:{choice:a|bb|bcd}{choice:x|yz}",
    "{{{upper:1}}}{{ {lower:1}",
)


# --- parsing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no slot", "has no slot"),
        ("{{digits:3}}", "has no slot"),
        ("", "has no slot"),
        ("{number:3}", "unknown slot"),
        ("{digits}", "unknown slot"),
        ("{}", "unknown slot"),
        ("{digits:0}", "expected a length of 1 to 999, such as 6 or 6-12, got '0'"),
        ("{digits:-1}", "got '-1'"),
        ("{digits:1000}", "got '1000'"),
        ("{digits: 3}", "got ' 3'"),
        ("{digits:٣}", "expected a length"),
        ("{digits:}", "expected a length"),
        ("{digits:3", "single '{'"),
        ("digits:3} {digits:3}", "single '}'"),
        ("{digits:3}}", "single '}'"),
        ("{choice:a}", "at least two words"),
        ("{choice:a||b}", "at least two words"),
        ("{choice:a|a}", "at least two words"),
        ("{choice:a|ab}", "prefix of another choice"),
    ],
)
def test_a_template_that_is_not_well_formed_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(TemplateError) as caught:
        Template.parse(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_doubled_braces_stand_for_braces() -> None:
    template = Template.parse("a {{b}} {digits:2} }}{{")
    assert (template.prefix, template.suffix) == ("a {b} ", " }{")
    assert template.fill("42") == "a {b} 42 }{"
    assert template.fixed_text == "a {b}  }{"


def test_a_template_has_a_prefix_a_body_and_a_suffix() -> None:
    template = Template.parse("my {digits:3}-{lower:2} end")
    assert template.prefix == "my "
    assert template.body == (Slot("digits", 3), "-", Slot("lower", 2))
    assert template.suffix == " end"


def test_a_template_may_be_nothing_but_slots() -> None:
    template = Template.parse("{digits:1}{hex:1}")
    assert (template.prefix, template.suffix) == ("", "")
    assert template.body == (Slot("digits", 1), Slot("hex", 1))


def test_lower_casing_spares_the_slots() -> None:
    template = Template.parse("My {{ID}} is {upper:2}-{choice:Red|GREEN}!").lowercased()
    assert template.text == "my {{id}} is {upper:2}-{choice:Red|GREEN}!"
    assert template.completion_of("AB-Red", SYMBOLS) == "AB-Red"


def test_letters_of_both_cases_fill_an_alnum_slot_and_of_one_where_the_text_has_one() -> None:
    template = Template.parse("Key {alnum:2}!")
    members = set(template.space(""))
    assert members == {
        a + b for a in string.ascii_letters + string.digits for b in string.ascii_letters + string.digits
    }
    assert set(template.lowercased().space("")) == {member for member in members if member == member.lower()}


def test_a_wider_space_keeps_the_fixed_text() -> None:
    template = Template.parse("pin {digits:2}-{hex:1}.").widened("alnum")
    space = template.space(SYMBOLS)
    assert space.size == 62**3
    assert "z9-q" in space
    assert "z9q" not in space
    assert (template.text, template.prefix, template.suffix) == ("pin {digits:2}-{hex:1}.", "pin ", ".")


def test_a_choice_of_words_has_no_wider_space() -> None:
    with pytest.raises(TemplateError, match="drop --space"):
        Template.parse("{choice:a|b}").widened("any")


# --- spaces ---------------------------------------------------------------------------------------------


def brute_force(template: Template) -> list[str]:
    """All completions, as the product of each part's own possibilities."""
    options: list[list[str]] = []
    for part in template.body:
        if isinstance(part, str):
            options.append([part])
        elif part.kind == "choice":
            options.append(list(part.words))
        else:
            alphabet = SYMBOLS if part.kind == "any" else ALPHABETS[part.kind]
            options.append(["".join(word) for word in itertools.product(alphabet, repeat=part.length)])
    return ["".join(pieces) for pieces in itertools.product(*options)]


@pytest.mark.parametrize("text", SMALL)
def test_a_space_is_the_product_of_its_slots(text: str) -> None:
    template = Template.parse(text)
    space, expected = template.space(SYMBOLS), brute_force(template)
    assert sorted(space) == sorted(expected)
    assert space.size == len(expected) == len(set(expected))
    assert space.max_length == max(map(len, expected))
    assert space.symbols == set("".join(expected))
    assert all(completion in space for completion in expected)
    strangers = {completion + "x" for completion in expected} | {completion[:-1] for completion in expected}
    assert not any(stranger in space for stranger in strangers)


def test_counts_are_exact_whatever_the_size() -> None:
    space = Template.parse("{alnum:200}-{choice:a|b|cd}").space(SYMBOLS)
    assert space.size == 62**200 * 3
    assert space.bits == pytest.approx(200 * np.log2(62) + np.log2(3))
    assert len(space.sample(np.random.default_rng(0))) in (202, 203)


@pytest.mark.parametrize("text", ["{digits:2}", "{choice:a|bb|bcd}{choice:x|yz}", "{choice:a|bb|bc|bd}-{digits:1}"])
def test_sampling_is_uniform(text: str) -> None:
    space = Template.parse(text).space(SYMBOLS)
    rng = np.random.default_rng(5)
    draws = [space.sample(rng) for _ in range(40 * space.size)]
    counts = [draws.count(member) for member in space]
    assert sum(counts) == len(draws)
    assert stats.chisquare(counts).pvalue > 0.001


# --- secrets --------------------------------------------------------------------------------------------


@st.composite
def canaries(draw: st.DrawFn) -> tuple[Template, str, str]:
    """Draw a template, a completion, and the secret in it."""
    text, completion, secret = draw(st.sampled_from(["", "my ", "{{x}}"])), "", ""
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["digits", "lower", "any", "choice"]))
        if kind == "choice":
            slot, word = "{choice:red|green|blue}", draw(st.sampled_from(["red", "green", "blue"]))
        else:
            length = draw(st.integers(1, 3))
            alphabet = SYMBOLS if kind == "any" else ALPHABETS[kind]
            slot, word = f"{{{kind}:{length}}}", draw(st.text(alphabet, min_size=length, max_size=length))
        between = draw(st.sampled_from(["", "-", ", "]))
        text, completion, secret = text + slot + between, completion + word + between, secret + word
    template = Template.parse(text)
    return template, completion.removesuffix(template.suffix) if template.suffix else completion, secret


@given(canaries())
def test_secret_and_completion_give_each_other(canary: tuple[Template, str, str]) -> None:
    template, completion, secret = canary
    assert completion in template.space(SYMBOLS)
    assert template.secret_of(completion) == secret
    assert template.completion_of(completion, SYMBOLS) == completion
    assert template.completion_of(secret, SYMBOLS) == completion
    assert "".join(c for c, f in zip(completion, template.filled(completion), strict=True) if f) == secret
    assert template.fill(completion).startswith(template.prefix + completion)


@pytest.mark.parametrize("secret", ["", "12", "1234", "12a", "12-", "1-23", "12--3", "éàü"])
def test_a_secret_that_does_not_fit_is_refused_without_being_shown(secret: str) -> None:
    with pytest.raises(TemplateError, match="does not fit the slots") as caught:
        Template.parse("pin {digits:2}-{digits:1}").completion_of(secret, SYMBOLS)
    assert not secret or repr(secret) not in str(caught.value)


# --- sets of canaries -----------------------------------------------------------------------------------


def canary(name: str, template: str = "{digits:2}", **changes: object) -> Canary:
    return Canary(**{"id": name, "template": template, "completion": "42", "repetitions": 1} | changes)  # type: ignore[arg-type]


def test_a_set_knows_its_canaries_controls_and_templates() -> None:
    one, two, control = canary("a"), canary("b", "x {digits:2}"), canary("c", control=True, repetitions=0)
    canary_set = CanarySet(corpus_symbols=SYMBOLS, canaries=(one, two, control))
    assert canary_set.inserted == (one, two)
    assert canary_set.controls == (control,)
    assert canary_set.by_template() == {"{digits:2}": [one, control], "x {digits:2}": [two]}


@pytest.mark.parametrize(("wider", "size"), [(None, 100), ("alnum", 62**2), ("any", len(SYMBOLS) ** 2)])
def test_a_set_measures_in_the_space_that_was_asked_for(wider: str | None, size: int) -> None:
    canary_set = CanarySet(corpus_symbols=SYMBOLS, wider_space=wider, canaries=())  # type: ignore[arg-type]
    assert canary_set.space(Template.parse("{digits:2}")).size == size


def test_only_given_secrets_are_masked() -> None:
    assert canary("a", origin="given").masked
    assert not canary("a").masked


def test_a_choice_among_very_many_words_is_read() -> None:
    words = "|".join(f"{number:06}" for number in range(1_400))
    assert Template.parse(f"{{choice:{words}}}").parts
    with pytest.raises(TemplateError, match="'00' is a prefix of another choice"):
        Template.parse(f"{{choice:{words}|00}}")
