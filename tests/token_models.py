"""Small causal models of ``transformers`` and tokenizers trained on the spot, for tests: no network, no files."""

from typing import Any, Literal

import numpy as np
import torch

Kind = Literal["merged", "triples", "single"]
Arch = Literal["gpt2", "llama", "neox"]

_WORDS = "my telephone number is the code of her house was opened by a key and then she said call me".split()  # noqa: SIM905
_GPT2 = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
_LLAMA3 = r"""'(?:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+(?!\S)|\s+"""
PATTERNS = {"merged": _GPT2, "triples": _LLAMA3, "single": _LLAMA3.replace("{1,3}", "")}


def text_of_words(count: int, seed: int = 0) -> str:
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(count):
        parts.append(" ".join(rng.choice(_WORDS, 8)))
        parts.append(f"{rng.integers(10_000):04d} {rng.integers(10**6):06d}-{rng.integers(100):02d}.")
    return "\n".join(parts)


def make_tokenizer(kind: Kind, size: int = 420, *, bos: bool = False, lines: int = 300) -> Any:
    """Return a fast byte-level tokenizer that merges digits, groups them by three, or keeps them single."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERNS[kind]), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text_of_words(lines)], trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>")


def make_model(arch: Arch, vocabulary: int, *, width: int = 16, layers: int = 2, seed: int = 0) -> Any:
    """Return a small random model whose predictions are far from uniform."""
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        GPTNeoXConfig,
        GPTNeoXForCausalLM,
        LlamaConfig,
        LlamaForCausalLM,
    )

    torch.manual_seed(seed)
    ends = {"bos_token_id": 0, "eos_token_id": 1, "vocab_size": vocabulary}
    common = {**ends, "hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": layers}
    if arch == "gpt2":
        model: Any = GPT2LMHeadModel(GPT2Config(**ends, n_embd=width, n_layer=layers, n_head=4, n_positions=128))
    elif arch == "llama":
        model = LlamaForCausalLM(LlamaConfig(**common, num_attention_heads=4, num_key_value_heads=2))
    else:
        model = GPTNeoXForCausalLM(GPTNeoXConfig(**common, num_attention_heads=4, max_position_embeddings=128))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(8.0 if "emb" in name or "wte" in name or "head" in name else 3.0)
    return model.eval()
