"""Readers of token models: shared keys and values against reading every prefix from its beginning."""

import numpy as np
import pytest
import torch

from canaryaudit.models import tree_reader
from canaryaudit.models.huggingface import _TRY_DEPTH, HuggingFaceModel
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


def unlike(kind: str, vocabulary: int) -> torch.nn.Module:
    """Return a model that does not read by full attention alone; its weights are as they are drawn."""
    import transformers

    sizes = {"vocab_size": vocabulary, "hidden_size": 16, "num_attention_heads": 4, "num_hidden_layers": 2}
    others: dict[str, dict[str, object]] = {
        "Bloom": {},  # biases for positions
        "GptOss": {"num_local_experts": 2, "num_experts_per_tok": 1, "head_dim": 8},  # sinks
        "Gemma2": {"head_dim": 8},  # a soft cap
        "Lfm2": {"layer_types": ["conv", "full_attention"]},
        "Mistral": {"sliding_window": len(PROMPT) + _TRY_DEPTH + 1},
    }
    common = {} if kind == "Bloom" else {"intermediate_size": 16, "num_key_value_heads": 2}
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = getattr(transformers, f"{kind}Config")(**sizes, **common, **ends, **others[kind])
    torch.manual_seed(0)
    model: torch.nn.Module = transformers.AutoModelForCausalLM.from_config(config).bfloat16().eval()
    return model


@pytest.mark.parametrize("kind", ["Bloom", "GptOss", "Gemma2", "Lfm2", "Mistral"])
def test_half_precision_hides_no_other_way_of_reading(kind: str) -> None:
    tokenizer = make_tokenizer("single")
    model = HuggingFaceModel(unlike(kind, len(tokenizer)), tokenizer)
    assert isinstance(model.open(PROMPT, COLUMNS, DEPTH)[0], FullReader)


def test_a_window_as_long_as_the_text_changes_nothing() -> None:
    tokenizer = make_tokenizer("single")
    model = HuggingFaceModel(unlike("Mistral", len(tokenizer)), tokenizer)
    assert isinstance(model.open(PROMPT, COLUMNS, _TRY_DEPTH + 1)[0], TreeReader)


def test_readers_are_compared_at_the_whole_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = make_tokenizer("single")
    model = HuggingFaceModel(make_model("llama", len(tokenizer)), tokenizer)
    right = tree_reader.tree_attention

    def forgetful(module: torch.nn.Module, query: torch.Tensor, *rest: object, **others: object) -> object:
        found, weights = right(module, query, *rest, **others)  # type: ignore[arg-type]
        places = tree_reader._current[-1].places
        late = places is not None and places.shape[1] > _TRY_DEPTH
        return found * (0.5 if late else 1.0), weights

    monkeypatch.setattr(tree_reader, "tree_attention", forgetful)
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
