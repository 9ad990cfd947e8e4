"""Tests of canaryaudit.exposure.scoring."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from canaryaudit.canaries.template import Template
from canaryaudit.corpus.vocabulary import Vocabulary
from canaryaudit.exposure.encoded_space import PAD, EncodedSpace, encode_completions
from canaryaudit.exposure.scoring import TILE, advance_in_tiles, read_prefix, score_log_perplexity, symbol_bits
from canaryaudit.models.char_lstm import BFloat16LanguageModel, CharLSTM, LSTMLanguageModel
from canaryaudit.models.language_model import PrefixState
from canaryaudit.records import Architecture
from tests.fakes import TableModel, encoded

SYMBOLS = "\n !-0123456789abcdefgmrxyz"
TEMPLATES = (
    "my {digits:3}!",
    "{digits:1}-{hex:1} x",
    "a {choice:red|ag|bdd}-{digits:1}{choice:x|yz}",
    "1 {any:2}",
    "{choice:a|bb|bc}{choice:0|1}",
)


def lstm(layers: int = 2, symbols: str = SYMBOLS, hidden: int = 16) -> CharLSTM:
    torch.manual_seed(3)
    model = CharLSTM(Architecture(vocabulary=symbols, embedding=5, hidden=hidden, layers=layers)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 3
    return model


def naive_bits(model: CharLSTM, prefix: str, completion: str) -> float:
    """Score one completion by a forward pass over the whole text, character by character."""
    vocabulary = Vocabulary(model.architecture.vocabulary)
    ids = torch.from_numpy(vocabulary.encode(prefix + completion))
    with torch.no_grad():
        log_probs = torch.log_softmax(model(ids[None])[0].double(), 1)
    places = range(len(prefix), len(prefix) + len(completion))
    return -sum(float(log_probs[place - 1, ids[place]]) for place in places) / math.log(2)


@pytest.mark.parametrize("text", TEMPLATES)
@pytest.mark.parametrize("layers", [1, 2])
def test_log_perplexity_is_that_of_a_plain_forward_pass(text: str, layers: int) -> None:
    model, template = lstm(layers), Template.parse(text)
    reader, space = LSTMLanguageModel(model), template.space("ab-1")
    texts = list(space)[::3]
    completions = encode_completions(texts, reader.vocabulary, space.max_length)
    found = score_log_perplexity(reader, read_prefix(reader, template.prefix), completions)
    expected = [naive_bits(model, template.prefix or "\n", own) for own in texts]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.std(expected) > 0.1


def test_duplicates_cost_the_same() -> None:
    reader = LSTMLanguageModel(lstm())
    completions = encode_completions(["12", "34", "12", "12"], reader.vocabulary, 2)
    found = score_log_perplexity(reader, read_prefix(reader, "a"), completions)
    assert found[0] == found[2] == found[3] != found[1]


def test_one_symbol_leaves_nothing_to_tell() -> None:
    reader = LSTMLanguageModel(lstm(symbols="a"))
    found = score_log_perplexity(reader, read_prefix(reader, "a"), encode_completions(["aaa"], reader.vocabulary, 3))
    np.testing.assert_allclose(found, [0.0], atol=1e-6)


def test_no_completions_have_no_cost() -> None:
    reader = LSTMLanguageModel(lstm())
    assert score_log_perplexity(reader, read_prefix(reader, "a"), np.empty((0, 3), dtype=np.int32)).shape == (0,)


@pytest.mark.parametrize("kind", [LSTMLanguageModel, BFloat16LanguageModel])
def test_a_cost_does_not_depend_on_order_or_on_what_else_is_scored(kind: type[LSTMLanguageModel]) -> None:
    """To the last bit, since rows are always advanced by the same number."""
    reader = kind(lstm())
    space = EncodedSpace.of(Template.parse("{digits:3}-{hex:1}").space(SYMBOLS), reader.vocabulary)
    start = read_prefix(reader, "my ")
    completions = np.unique(space.sample(3_000, np.random.default_rng(0)), axis=0)
    together = score_log_perplexity(reader, start, completions)
    shuffle = np.random.default_rng(1).permutation(len(completions))
    np.testing.assert_array_equal(score_log_perplexity(reader, start, completions[shuffle]), together[shuffle])
    for size in (1, 2, 31, 32, 33, 513):
        np.testing.assert_array_equal(score_log_perplexity(reader, start, completions[:size]), together[:size])
    with_others = np.concatenate((space.sample(2_000, np.random.default_rng(2)), completions))
    np.testing.assert_array_equal(score_log_perplexity(reader, start, with_others)[2_000:], together)


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 5, 7, 10])
@pytest.mark.parametrize("kind", [LSTMLanguageModel, BFloat16LanguageModel])
def test_a_row_does_not_depend_on_its_place_in_a_tile(kind: type[LSTMLanguageModel], threads: int) -> None:
    """With the hidden size that is trained, on whatever number of cores."""
    reader = kind(lstm(layers=1, hidden=512))
    draws = torch.Generator().manual_seed(0)
    memory = tuple(torch.randn(TILE, 1, 512, generator=draws) for _ in range(2))
    state = PrefixState(torch.zeros(TILE, len(SYMBOLS)), memory)
    symbols = torch.randint(len(SYMBOLS), (TILE,), generator=draws)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = advance_in_tiles(reader, state, symbols)
        for distance in (1, 3, 100, 171):
            index = torch.arange(TILE).roll(distance)
            moved = advance_in_tiles(reader, state.rows(index), symbols[index])
            assert torch.equal(moved.log2_probs, found.log2_probs[index])
            assert all(torch.equal(a, b[index]) for a, b in zip(moved.cache, found.cache, strict=True))
        assert torch.get_num_threads() == threads, "the caller's own is restored"
    finally:
        torch.set_num_threads(before)


def test_an_empty_prefix_is_read_as_a_line_break() -> None:
    reader = LSTMLanguageModel(lstm())
    assert torch.equal(read_prefix(reader, "").log2_probs, read_prefix(reader, "\n").log2_probs)


def test_scoring_tells_its_progress() -> None:
    told: list[tuple[int, int]] = []
    model = TableModel(SYMBOLS)
    space, start = encoded("{digits:5}", model)
    score_log_perplexity(model, start, space.members()[:20_000], lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert len(told) >= 2 * 5
    assert {(16_384, 20_000), (20_000, 20_000)} <= set(told)


@pytest.mark.parametrize("count", [1, TILE - 1, TILE, TILE + 1, 3 * TILE + 5])
def test_tiles_keep_every_row_in_its_place(count: int) -> None:
    model = TableModel(SYMBOLS, 1)
    state = encoded("{digits:1}", model)[1].rows(torch.zeros(count, dtype=torch.long))
    symbols = torch.arange(count) % len(SYMBOLS)
    found, expected = advance_in_tiles(model, state, symbols), model.advance(state, symbols)
    assert torch.equal(found.log2_probs, expected.log2_probs)
    assert torch.equal(found.cache[0], expected.cache[0])
    few = model.advance(state.rows(torch.arange(1)), symbols[:1])
    parents = torch.zeros(count, dtype=torch.long)
    assert torch.equal(
        advance_in_tiles(model, few, symbols, parents).log2_probs, model.advance(few.rows(parents), symbols).log2_probs
    )


# --- encoded spaces -------------------------------------------------------------------------------------


def decoded(rows: np.ndarray, vocabulary: Vocabulary) -> list[str]:
    return [vocabulary.decode(row[row != PAD]) for row in rows]


@pytest.mark.parametrize("text", TEMPLATES)
def test_members_are_those_of_the_space(text: str) -> None:
    vocabulary, space = Vocabulary(SYMBOLS), Template.parse(text).space("ab-1")
    members = decoded(EncodedSpace.of(space, vocabulary).members(), vocabulary)
    assert len(members) == space.size
    assert set(members) == set(space)


@pytest.mark.parametrize("text", TEMPLATES)
def test_members_sampled_are_uniform(text: str) -> None:
    vocabulary, space = Vocabulary(SYMBOLS), Template.parse(text).space("ab-1")
    drawn = EncodedSpace.of(space, vocabulary).sample(60 * space.size, np.random.default_rng(4))
    found, counts = np.unique(decoded(drawn, vocabulary), return_counts=True)
    assert set(found.tolist()) == set(space)
    assert stats.chisquare(counts).pvalue > 0.001


def test_an_encoded_space_knows_its_size_exactly() -> None:
    space = EncodedSpace.of(Template.parse("{hex:300}").space(SYMBOLS), Vocabulary(SYMBOLS))
    assert space.size == 16**300
    assert space.bits == 1200
    assert space.sample(3, np.random.default_rng(0)).shape == (3, 300)


def test_encoding_pads_behind_short_completions() -> None:
    vocabulary = Vocabulary(SYMBOLS)
    assert encode_completions(["a", "123"], vocabulary, 4).tolist() == [
        [vocabulary.symbols.index("a"), -1, -1, -1],
        [*(vocabulary.symbols.index(c) for c in "123"), -1],
    ]


@pytest.mark.parametrize("text", TEMPLATES)
def test_the_cost_of_each_character_is_that_of_a_plain_forward_pass(text: str) -> None:
    model, template = lstm(), Template.parse(text)
    reader, space = LSTMLanguageModel(model), template.space("ab-1")
    texts = list(space)[::97] or [next(iter(space))]
    completions = encode_completions(texts, reader.vocabulary, space.max_length)
    found = symbol_bits(reader, read_prefix(reader, template.prefix), completions)
    for row, completion in zip(found, texts, strict=True):
        for end in range(len(completion)):
            before, after = (naive_bits(model, template.prefix or "\n", completion[:place]) for place in (end, end + 1))
            assert row[end] == pytest.approx(after - before, abs=1e-3)
        assert not row[len(completion) :].any()
