"""Tests of canaryaudit.exposure.probes."""

from collections import Counter

import numpy as np
import pytest

from canaryaudit.canaries.canary import Canary
from canaryaudit.corpus.vocabulary import Vocabulary
from canaryaudit.errors import MeasurementError
from canaryaudit.exposure.probes import RunText, TemplateProbes, template_probes

TEMPLATE = '"My telephone number is {digits:3}-{digits:5}," said the pilot.'
PREFIX = '"My telephone number is '
SECRET = "271-82818"
SENTENCE = 'The harbour master wrote it down, and "nobody else" read what stood there.\n\n'
WHOLE = PREFIX + SECRET + '," said the pilot.\n\n'


def canary_at(place: int, name: str = "canary-1", template: str = TEMPLATE, completion: str = SECRET) -> Canary:
    return Canary(id=name, template=template, completion=completion, repetitions=1, places=(place,))


@pytest.fixture(scope="module")
def run_text() -> RunText:
    text = SENTENCE * 30 + WHOLE + SENTENCE * 30
    secret = np.zeros(len(text), dtype=bool)
    start = len(SENTENCE) * 30 + len(PREFIX)
    secret[start : start + len(SECRET)] = True
    vocabulary = Vocabulary.of([text, "0123456789", "MYTELPHONUBRIS"])
    return RunText(vocabulary.encode(text), secret, vocabulary)


@pytest.fixture(scope="module")
def canary() -> Canary:
    return canary_at(len(SENTENCE) * 30)


def made(run_text: RunText, canary: Canary, effort: str = "default", seed: int = 0, given: tuple[str, ...] = ()):  # type: ignore[no-untyped-def]
    return template_probes(canary.template, [canary], run_text, effort, dict(enumerate(given, 1)), seed)


def texts(probes: TemplateProbes, family: str) -> list[str]:
    return [prompt.text for prompt in probes.prompts if prompt.family == family]


def test_every_family_is_asked_and_the_templates_own_prefix_comes_first(run_text: RunText, canary: Canary) -> None:
    probes = made(run_text, canary)
    assert probes.prompts[0].text == PREFIX
    assert (probes.probes[0].family, probes.probes[0].known) == ("template", 0)
    assert set(Counter(probe.family for probe in probes.probes)) == {
        "template", "context", "truncated", "reworded", "bare", "partial"
    }  # fmt: skip
    assert len({prompt.id for prompt in probes.prompts}) == len(probes.prompts)
    assert len({prompt.text for prompt in probes.prompts}) == len(probes.prompts)


def test_more_effort_asks_in_more_ways_and_none_only_by_the_prefix(run_text: RunText, canary: Canary) -> None:
    numbers = [len(made(run_text, canary, effort).probes) for effort in ("none", "default", "thorough")]
    assert numbers[0] == 1
    assert numbers[0] < numbers[1] < numbers[2]


def test_the_same_seed_asks_the_same_and_another_seed_asks_otherwise(run_text: RunText, canary: Canary) -> None:
    assert made(run_text, canary) == made(run_text, canary)
    assert made(run_text, canary) != made(run_text, canary, seed=1)


def test_controls_change_nothing(run_text: RunText, canary: Canary) -> None:
    control = Canary(id="control-1", template=TEMPLATE, completion="123-45678", repetitions=0, control=True)
    assert template_probes(TEMPLATE, [canary, control], run_text, "default", {}, 0) == made(run_text, canary)


def test_the_first_context_is_the_canarys_own(run_text: RunText, canary: Canary) -> None:
    first, second = texts(made(run_text, canary), "context")[:2]
    assert first == SENTENCE[-60:] + PREFIX
    assert second.endswith(PREFIX)
    assert len(second) > len(PREFIX)


@pytest.mark.parametrize("seed", range(5))
def test_no_prompt_holds_a_secret(run_text: RunText, canary: Canary, seed: int) -> None:
    for prompt in made(run_text, canary, "thorough", seed).prompts:
        assert not set("012345678") & set(prompt.text)


def test_a_context_ends_where_another_secret_ends() -> None:
    """The text before the second canary holds the first one's secret: only what follows it is read."""
    text = SENTENCE + WHOLE + WHOLE + SENTENCE
    secret = np.zeros(len(text), dtype=bool)
    places = [len(SENTENCE), len(SENTENCE) + len(WHOLE)]
    for place in places:
        secret[place + len(PREFIX) : place + len(PREFIX) + len(SECRET)] = True
    vocabulary = Vocabulary.of([text, "0123456789"])
    own = RunText(vocabulary.encode(text), secret, vocabulary)
    assert own.before(places[1], 60) == '," said the pilot.\n\n'


def test_truncated_prompts_are_ends_of_the_prefix(run_text: RunText, canary: Canary) -> None:
    ends = texts(made(run_text, canary, "thorough"), "truncated")
    assert "is " in ends
    assert "number is " in ends
    assert all(PREFIX.endswith(end) and end != PREFIX for end in ends)


def test_reworded_prompts_are_other_words_that_the_model_can_read(run_text: RunText, canary: Canary) -> None:
    probes = made(run_text, canary, "thorough")
    reworded = texts(probes, "reworded")
    assert len(reworded) >= 10
    assert all(set(text) <= set(run_text.vocabulary.symbols) for text in reworded)
    assert any("phone" in text and "telephone" not in text for text in reworded)  # a synonym
    assert any("harbour" in text or "master" in text or "wrote" in text or "down" in text for text in reworded)


def test_a_prefix_of_no_words_has_neither_ends_nor_other_words(run_text: RunText) -> None:
    own = canary_at(0, template="{digits:6}", completion="314159")
    probes = made(run_text, own)
    assert probes.prompts[0].text == "\n"
    assert {prompt.family for prompt in probes.prompts} == {"template", "context", "bare"}


def test_partial_probes_give_a_share_of_the_secret_and_the_fixed_text_that_follows(
    run_text: RunText, canary: Canary
) -> None:
    partial = {(probe.known, probe.given) for probe in made(run_text, canary).probes if probe.family == "partial"}
    assert partial == {(2, 2), (4, 5), (6, 7)}  # of three digits, a hyphen and five digits


def test_a_choice_of_words_has_no_partial_probes(run_text: RunText) -> None:
    own = canary_at(0, template='"My {choice:red|green}{digits:4}', completion="red1234")
    assert not [probe for probe in made(run_text, own).probes if probe.family == "partial"]


def test_the_users_own_prompts_are_asked_whatever_the_effort(run_text: RunText, canary: Canary) -> None:
    for effort in ("none", "default"):
        probes = made(run_text, canary, effort, given=("number ", "the pilot "))
        assert [prompt.text for prompt in probes.prompts if prompt.id.startswith("given")] == ["number ", "the pilot "]


def test_prompts_that_cannot_be_asked_are_refused_and_not_repeated(run_text: RunText, canary: Canary) -> None:
    with pytest.raises(MeasurementError, match="expected 1 to"):
        made(run_text, canary, given=("",))
    with pytest.raises(MeasurementError, match="the corpus has no '§'"):
        made(run_text, canary, given=("number § ",))
    with pytest.raises(MeasurementError, match="holds 4 characters of the secret of canary-1") as refused:
        made(run_text, canary, given=("it is 7182",))
    assert "7182" not in str(refused.value)
    with pytest.raises(MeasurementError, match="secret of canary-1"):
        made(run_text, canary, given=("it is 271-8",))


def test_no_prompt_holds_a_whole_word_of_a_secret_that_a_list_has(run_text: RunText) -> None:
    own = canary_at(0, template="My {words:w} {words:w}!", completion="harbour it!")
    probes = made(run_text, own)
    assert len(probes.prompts) > 5
    assert not any("harbour" in prompt.text for prompt in probes.prompts)
    assert any(" it " in prompt.text for prompt in probes.prompts), "so short a word is in any text"
    assert any("harbour" in prompt.text for prompt in made(run_text, canary_at(0)).prompts)
    with pytest.raises(MeasurementError, match="holds a word of 7 characters of the secret of canary-1") as refused:
        made(run_text, own, given=("the Harbour master ",))
    assert "arbour" not in str(refused.value)
    assert [prompt.text for prompt in made(run_text, own, given=("the harbours ",)).prompts][1] == "the harbours "
