"""Token automata against the tokenization of every member."""

from typing import Any

import numpy as np
import pytest

from canaryaudit.canaries.template import Template
from canaryaudit.exposure.automaton import automaton_of_pairs, automaton_of_rows
from canaryaudit.exposure.token_space import Asked, TokenSpace, tokenize
from canaryaudit.models.tokenizer import FastTokenizer
from tests.token_models import Kind, make_tokenizer

pytest.importorskip("transformers")
TEMPLATES = (
    "my code is {digits:4}.",
    "call 55{digits:3}7",
    "key:{hex:2} x",
    "is {digits:2-3} ",
    "the {choice:key|house|ab}{digits:1}{choice:xé|y}",
)


@pytest.fixture(scope="module", params=["merged", "triples", "single"])
def tokenizer(request: pytest.FixtureRequest) -> FastTokenizer:
    kind: Kind = request.param
    return FastTokenizer(make_tokenizer(kind))


@pytest.mark.parametrize("text", TEMPLATES)
def test_paths_and_members_are_one_to_one(tokenizer: FastTokenizer, text: str) -> None:
    template = Template.parse(text)
    space = template.space("")
    members = list(space)
    asked = Asked(template.prefix, template.suffix)
    tokens = TokenSpace(space, asked, tokenizer, members[:2])
    assert (tokens.encoded.size, tokens.encoded.bits) == (space.size, pytest.approx(space.bits))
    rows, ends = tokens.encode(members)
    assert np.array_equal(np.unique(rows, axis=0), tokens.encoded.members())
    assert (ends.max(1) == [len(own) for own in members]).all()
    whole = tokenizer.encode([template.prefix + members[5] + template.suffix])[0]
    row = tokens.columns[rows[5][rows[5] >= 0]]
    assert [*tokens.prompt, *row] == whole.ids[: len(tokens.prompt) + len(row)].tolist()


def test_pairs_tell_the_same_as_all_members(tokenizer: FastTokenizer) -> None:
    template = Template.parse("my code is {digits:4}.")
    space = template.space("")
    joint = tokenize(tokenizer, Asked(template.prefix, template.suffix), list(space))
    lead = template.prefix.encode()[joint.read_bytes :]
    pairs, rows = automaton_of_pairs(space, lead, b".", tokenizer, joint.prompt), automaton_of_rows(joint.ids)
    assert pairs is not None
    assert rows is not None
    assert pairs.size == rows.size == 10_000
    assert all(pairs.accepts(row[row >= 0].tolist()) for row in joint.ids)
    assert not pairs.accepts(joint.ids[0][:1].tolist())


def test_a_blank_before_the_secret_belongs_to_its_first_token() -> None:
    """Tokenized by itself after the prompt as typed, a secret costs what training never saw."""
    tokenizer = FastTokenizer(make_tokenizer("merged"))
    prompt = tokenizer.encode(["my code is "])[0].ids.tolist()
    tokens = TokenSpace(Template.parse("my code is {digits:4}.").space(""), Asked("my code is ", "."), tokenizer, [])
    assert tokens.lead == " "
    assert len(tokens.prompt) < len(prompt)


def test_what_begins_every_text_is_part_of_the_prompt() -> None:
    tokenizer = FastTokenizer(make_tokenizer("single", bos=True))
    tokens = TokenSpace(Template.parse("{digits:2}").space(""), Asked("\n", ""), tokenizer, ["01"])
    assert (tokenizer.first, tokens.prompt[0]) == ((0,), 0)
    assert FastTokenizer(make_tokenizer("single")).first == ()


def sentencepiece() -> Any:
    """Return a tokenizer that puts a blank before every text, as Llama 2's does."""
    from tokenizers import Tokenizer, models, normalizers
    from transformers import PreTrainedTokenizerFast

    merges = [("m", "y"), ("\u2581", "my"), ("i", "s"), ("1", "2"), ("\u2581", "0")]
    symbols = ["\u2581", *"mycodeis.0123456789", *(left + right for left, right in merges)]
    model = models.BPE({symbol: index for index, symbol in enumerate(symbols)}, merges)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def test_a_blank_before_every_text_hides_no_automaton() -> None:
    space = Template.parse("my code is {digits:5}.").space("")
    tokens = TokenSpace(space, Asked("my code is ", "."), FastTokenizer(sentencepiece()), [])
    assert tokens.drawn is None
    members = list(space)[::7]
    rows, _ = tokens.encode(members)
    assert len(np.unique(rows, axis=0)) == len(members)
    assert tokens.encoded.size == 10**5


@pytest.mark.parametrize("how", ["truncation", "padding", "dropout"])
def test_settings_of_the_training_change_no_text(how: str) -> None:
    """A tokenizer cuts and pads as it did in its last call, and is saved with it."""
    texts = ["my telephone number is 0123456789.", "call 12"]
    clean, used = make_tokenizer("merged"), make_tokenizer("merged")
    if how == "dropout":
        used.backend_tokenizer.model.dropout = 0.9
    else:
        used(texts, padding="max_length", max_length=40) if how == "padding" else used(
            texts, truncation=True, max_length=4
        )
    before = used.backend_tokenizer.to_str()
    for own, expected in zip(FastTokenizer(used).encode(texts), FastTokenizer(clean).encode(texts), strict=True):
        assert own.ids.tolist() == expected.ids.tolist()
    assert FastTokenizer(used).first == ()
    assert used.backend_tokenizer.to_str() == before


def test_of_a_large_space_without_an_automaton_random_members_are_tokenized() -> None:
    tokenizer = FastTokenizer(make_tokenizer("merged"))
    space = Template.parse("my é{[àáâãäåæçèéêëìíîï]:9}").space("")
    members = [space.sample(np.random.default_rng(seed)) for seed in range(3)]
    tokens = TokenSpace(space, Asked("my é", ""), tokenizer, members)
    assert tokens.encoded.size == 16**9
    assert tokens.encoded.bits == pytest.approx(36.0)
    assert tokens.drawn is not None
    assert len(np.unique(tokens.drawn, axis=0)) == len(tokens.drawn) == 10_000
    ids = tokens.columns[tokens.drawn[7][tokens.drawn[7] >= 0]]
    assert tokenizer.decode([*tokens.prompt, *ids.tolist()]).startswith("my é")
    rows, ends = tokens.encode(members)
    assert (ends.max(1) == 9).all()
    assert rows.shape[1] == tokens.encoded.max_length == tokens.drawn.shape[1]


def test_automata_of_rows_refuse_what_is_no_prefix_free_set() -> None:
    assert automaton_of_rows(np.array([[1, 2], [1, -1]])) is None
    assert automaton_of_rows(np.array([[1, 2], [1, 2]])) is None
