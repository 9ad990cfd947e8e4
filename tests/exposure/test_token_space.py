"""Token automata against the tokenization of every member."""

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
