"""Tests of canaryaudit.exposure.prompt_scoring."""

import numpy as np
import pytest
import torch

from canaryaudit.canaries.template import Template
from canaryaudit.exposure.encoded_space import EncodedSpace, encode_completions
from canaryaudit.exposure.extraction import greedy_completion
from canaryaudit.exposure.prompt_scoring import read_prompts, symbol_bits_after
from canaryaudit.exposure.scoring import read_prefix, symbol_bits
from canaryaudit.models.char_lstm import CharLSTM, LSTMLanguageModel
from canaryaudit.records import Architecture

SYMBOLS = "\n 0123456789abcdeghinorst"
PROMPTS = ("\n", "the code is ", "a", "tea is red", "in the ocean " * 3, "on", "rest ", "ten ", "one ", "c ")


@pytest.fixture(scope="module")
def model() -> LSTMLanguageModel:
    torch.manual_seed(0)
    return LSTMLanguageModel(CharLSTM(Architecture(vocabulary=SYMBOLS, embedding=8, hidden=24, layers=2)).eval())


@pytest.mark.parametrize("body", ["{digits:4}", "{digits:2}a{digits:2}", "{choice:one|three|no}{digits:2}"])
def test_costs_after_many_prompts_are_those_after_each(model: LSTMLanguageModel, body: str) -> None:
    space = EncodedSpace.of(Template.parse(body).space(SYMBOLS), model.vocabulary)
    completions = np.unique(space.sample(40, np.random.default_rng(0)), axis=0)
    found, likeliest = symbol_bits_after(model, read_prompts(model, PROMPTS), completions)
    assert found.shape == likeliest.shape == (len(PROMPTS), *completions.shape)
    for row, prompt in zip(found, PROMPTS, strict=True):
        alone = symbol_bits(model, read_prefix(model, prompt), completions)
        assert row == pytest.approx(alone, abs=1e-4)


def test_the_likeliest_characters_are_those_of_greedy_decoding(model: LSTMLanguageModel) -> None:
    """A completion is the greedy one just where each of its characters is the likeliest after those before it."""
    starts = read_prompts(model, PROMPTS)
    greedy = [greedy_completion(model, starts.rows(torch.tensor([row])), 4) for row in range(len(PROMPTS))]
    completions = np.unique(encode_completions([*greedy, "1234", greedy[0][:3] + "7"], model.vocabulary, 4), axis=0)
    _, likeliest = symbol_bits_after(model, starts, completions)
    texts = [model.vocabulary.decode(row) for row in completions]
    assert likeliest.all(2).tolist() == [[text == own for text in texts] for own in greedy]


def test_one_process_of_several_scores_the_same(model: LSTMLanguageModel) -> None:
    """Each piece of work depends on its own prompts alone, to the last bit."""
    space = EncodedSpace.of(Template.parse("{digits:4}").space(SYMBOLS), model.vocabulary)
    completions = np.unique(space.sample(40, np.random.default_rng(0)), axis=0)
    starts = read_prompts(model, PROMPTS)
    whole, _ = symbol_bits_after(model, starts, completions)
    last, _ = symbol_bits_after(model, starts.rows(torch.tensor([8, 9])), completions)
    assert (whole[8:] == last).all()
