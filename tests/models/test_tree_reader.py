"""Readers of token models: shared keys and values against reading every prefix from its beginning."""

import numpy as np
import pytest
import torch

from canaryaudit.models import tree_reader
from canaryaudit.models.huggingface import HuggingFaceModel
from canaryaudit.models.token_model import FullReader, ModuleModel
from canaryaudit.models.tree_reader import TreeReader
from tests.token_models import Arch, make_model, make_tokenizer

pytest.importorskip("transformers")
PROMPT, COLUMNS, DEPTH = [3, 4, 5, 6], np.arange(20, 60), 5


@pytest.mark.parametrize("arch", ["gpt2", "llama", "neox"])
@pytest.mark.parametrize("scarce", [False, True], ids=["roomy", "overwritten"])
def test_shared_keys_and_values_change_nothing(arch: Arch, scarce: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(arch, 80)
    monkeypatch.setattr(tree_reader, "_ROWS", 8)
    monkeypatch.setattr(tree_reader, "_FEWEST_PLACES", 8)
    tree = TreeReader(model, PROMPT, COLUMNS, depth=DEPTH, max_bytes=0 if scarce else 1 << 20)
    full = FullReader(model, PROMPT, COLUMNS, torch.device("cpu"), 1)
    there, here = tree.start(), full.start(DEPTH)
    generator = torch.Generator().manual_seed(0)
    for _ in range(DEPTH):
        rows = torch.randint(0, len(here.log2_probs), (8,), generator=generator)
        symbols = torch.randint(0, len(COLUMNS), (8,), generator=generator)
        there, here = tree.advance(there.rows(rows), symbols), full.advance(here.rows(rows), symbols)
        assert torch.allclose(there.log2_probs, here.log2_probs, atol=1e-3)
        if scarce:
            for _ in range(30):  # Others' tokens take the places.
                tree.advance(tree.start().rows(torch.zeros(8, dtype=torch.long)), symbols)
    read_once = 8 * DEPTH
    assert (tree.read_tokens > 30 * read_once) if scarce else (tree.read_tokens == read_once)
    assert tree.pool_bytes <= 4 * 8 * DEPTH * tree.bytes_per_token


def test_a_model_that_attends_otherwise_is_read_from_the_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = make_tokenizer("single")
    model = HuggingFaceModel(make_model("llama", len(tokenizer)), tokenizer)
    assert isinstance(model.open(PROMPT, COLUMNS, DEPTH)[0], TreeReader)
    right = tree_reader.tree_attention

    def wrong(module: torch.nn.Module, query: torch.Tensor, *rest: object, **others: object) -> object:
        found, weights = right(module, query, *rest, **others)  # type: ignore[arg-type]
        return found * 0.5, weights

    monkeypatch.setattr(tree_reader, "tree_attention", wrong)
    assert isinstance(model.open(PROMPT, COLUMNS, DEPTH)[0], FullReader)


def test_a_model_is_left_as_it_was() -> None:
    tokenizer = make_tokenizer("single")
    module = make_model("gpt2", len(tokenizer)).train()
    before = module.config._attn_implementation
    reader, start = HuggingFaceModel(module, tokenizer).open(PROMPT, COLUMNS, DEPTH)
    reader.advance(start, torch.tensor([1]))
    assert (module.training, module.config._attn_implementation) == (True, before)


def test_any_module_with_logits_will_do() -> None:
    tokenizer = make_tokenizer("single")
    model = make_model("gpt2", len(tokenizer))

    class Bare(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.inner(ids).logits
            return logits

    (bare, here), (tree, there) = (
        own.open(PROMPT, COLUMNS, DEPTH) for own in (ModuleModel(Bare(), tokenizer), HuggingFaceModel(model, tokenizer))
    )
    for symbol in (5, 9):
        here, there = bare.advance(here, torch.tensor([symbol])), tree.advance(there, torch.tensor([symbol]))
        assert torch.allclose(here.log2_probs, there.log2_probs, atol=1e-3)


def test_the_last_column_is_the_likeliest_of_all_other_tokens() -> None:
    tokenizer = make_tokenizer("single")
    model = make_model("llama", len(tokenizer))
    _, start = HuggingFaceModel(model, tokenizer).open(PROMPT, COLUMNS, DEPTH)
    logits = model(torch.tensor([PROMPT])).logits[0, -1].detach()
    bits = torch.log_softmax(logits, 0) / np.log(2)
    others = [index for index in range(len(logits)) if index not in COLUMNS]
    assert start.log2_probs[0, :-1] == pytest.approx(bits[COLUMNS], abs=1e-4)
    assert float(start.log2_probs[0, -1]) == pytest.approx(float(bits[others].max()), abs=1e-4)
