"""Reads a tree of prefixes under one prompt with a transformer, each token once.

The keys and values of the prompt are kept once, those of every token read after it in a pool of fixed size; a prefix is
the list of its tokens' places in the pool. Attention is computed by a function of our own, registered with
``transformers``: over the prompt's keys, which all prefixes share, and over each prefix's own. Nothing is copied per
prefix but the keys of its few own tokens. Where the pool is full, the oldest tokens are overwritten and read again when
they are needed. Models that read otherwise (biases for positions, sinks, soft caps, windows shorter than the text,
layers without attention) are refused by what they hand over, and by comparing with the model itself.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from canaryaudit.models.language_model import PrefixState
from canaryaudit.models.token_model import column_log2_probs

ATTENTION = "canaryaudit_tree"
"""Name of the attention function among those of ``transformers``."""
_ROWS = 256
"""Prefixes read at a time: enough for full speed, and logits of 256 x 50,000 tokens take 50 MB."""
_FEWEST_PLACES = 4096
_HARMLESS = frozenset({"dropout", "position_ids", "cache_position", "sliding_window"})
"""Numbers handed to an attention function that change nothing here; windows are compared with the text's length."""
_LAYERS = frozenset({"full_attention", "sliding_attention"})
"""Kinds of layers that read through the attention function alone."""


@dataclass
class _Pass:
    """One pass through the model: what its attention reads, and the keys and values that it finds.

    Attributes:
        reach: How many tokens a text has at most.
        prompt: Keys and values of the prompt, by layer: shape (heads, P, d) each; empty while the prompt is read.
        pool: Keys and values by place, by layer: shape (places, heads, d) each.
        places: The places of each prefix's tokens, 0 where there is none, shape (N, D).
        absent: Where there is none, shape (N, D), bool.
        found: Keys and values of what is read, by layer: shape (N, heads, T, d) each.
    """

    reach: int
    prompt: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    pool: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    places: Tensor | None = None
    absent: Tensor | None = None
    found: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)


_current: list[_Pass] = []
"""The pass that is under way: ``transformers`` hands nothing through to an attention function in every model."""


def tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attend to a shared prompt and to each prefix's own tokens.

    Args:
        module: The attention layer.
        query: Shape (N, query heads, T, d): T tokens of a prompt, or one token of each prefix.
        key: Of the same tokens, shape (N, heads, T, d).
        value: The same.
        attention_mask: None, as no mask is made for a function that ``transformers`` does not know.
        scaling: Of the products; 1 / sqrt(d) if not given.
        **others: What other attention functions read.

    Raises:
        NotImplementedError: The layer attends to something else besides, or not to everything.
    """
    own = _current[-1]
    window = others.get("sliding_window")
    besides = [name for name, value in others.items() if name not in _HARMLESS and _is_number(value)]
    if attention_mask is not None or besides or (window is not None and window < own.reach):
        raise NotImplementedError(f"attention with {', '.join(besides) or 'a mask'}")
    if scaling is None:
        scaling = query.shape[-1] ** -0.5
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    own.found[layer] = (key, value)
    groups = query.shape[1] // key.shape[1]
    if own.places is None or own.absent is None:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        read = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling)
        return read.transpose(1, 2).contiguous(), None
    rows, heads, _, size = key.shape
    query = query[:, :, 0].reshape(rows, heads, groups, size)
    shared_key, shared_value = own.prompt[layer]  # (heads, P, d)
    flat = query.transpose(0, 1).reshape(heads, rows * groups, size)
    shared = (flat @ shared_key.transpose(1, 2)).reshape(heads, rows, groups, -1).transpose(0, 1)
    pool_key, pool_value = own.pool[layer]
    deep, places = own.places.shape[1], own.places.reshape(-1).to(key.device)
    above_key = pool_key[places].reshape(rows, deep, heads, size).transpose(1, 2)
    above_value = pool_value[places].reshape(rows, deep, heads, size).transpose(1, 2)
    above_key, above_value = torch.cat((above_key, key), 2), torch.cat((above_value, value), 2)  # (N, heads, D + 1, d)
    alone = query @ above_key.transpose(2, 3)  # (N, heads, groups, D + 1)
    alone[..., :deep].masked_fill_(own.absent[:, None, None].to(key.device), -torch.inf)
    weights = (torch.cat((shared, alone), -1).float() * scaling).softmax(-1).to(value.dtype)
    length = shared.shape[-1]
    by_head = weights[..., :length].transpose(0, 1).reshape(heads, rows * groups, length)
    read = (by_head @ shared_value).reshape(heads, rows, groups, size).transpose(0, 1)
    read = read + weights[..., length:] @ above_value
    return read.reshape(rows, 1, heads * groups, size), None


def _is_number(value: Any) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, int | float) and not isinstance(value, bool))


class TreeReader:
    """Reads what may follow one prompt, token by token.

    A state's cache holds the serial numbers of a prefix's tokens, shape (N, depth), the columns themselves, of the same
    shape, and their number, shape (N,). The place of a token in the pool is its serial number modulo the pool's size.

    Args:
        model: A causal model of ``transformers``.
        prompt: Token ids, at least one.
        columns: Ids of the tokens that may follow, shape (A,).
        depth: How many tokens are added at most.
        max_bytes: What the keys and values after the prompt may take.

    Attributes:
        device: Of the model.
        read_tokens: How many tokens were read after the prompt.

    Raises:
        NotImplementedError: The model does not read by full attention alone.
    """

    most_rows = _ROWS

    def __init__(
        self, model: nn.Module, prompt: Sequence[int], columns: np.ndarray, *, depth: int, max_bytes: int
    ) -> None:
        self._model = model
        self.device = next(model.parameters()).device
        self._columns = torch.from_numpy(columns.astype(np.int64)).to(self.device)
        self._length, self._depth = len(prompt), max(1, depth)
        ids = torch.tensor([list(prompt)], dtype=torch.long, device=self.device)
        first = _Pass(self._length + self._depth)
        self._start = column_log2_probs(self._run(first, ids, torch.arange(len(prompt))[None])[:, -1], self._columns)
        config: Any = getattr(model, "config", None)
        text = config.get_text_config()
        if len(first.found) != text.num_hidden_layers or not _LAYERS.issuperset(
            getattr(text, "layer_types", None) or ()
        ):
            raise NotImplementedError("layers without attention")
        self._prompt = {layer: (key[0], value[0]) for layer, (key, value) in first.found.items()}
        per_token = sum(part.numel() * part.element_size() for own in self._prompt.values() for part in own)
        self.bytes_per_token = per_token // len(prompt)
        self._places = max(_FEWEST_PLACES, 4 * _ROWS * self._depth, max_bytes // max(1, self.bytes_per_token))
        self._pool: dict[int, tuple[Tensor, Tensor]] = {}
        self._room = self._next = self.read_tokens = 0

    @property
    def multiplications(self) -> int:
        """How many reading one token takes."""
        return sum(parameter.numel() for parameter in self._model.parameters())

    @property
    def most_completions(self) -> int:
        """How many completions can be scored at a time with all their prefixes in the pool."""
        return max(_ROWS, self._places // self._depth)

    @property
    def pool_bytes(self) -> int:
        """What the pool takes."""
        return self._room * self.bytes_per_token

    def start(self) -> PrefixState:
        """Return the state after the prompt."""
        empty = torch.full((1, self._depth), -1, dtype=torch.long, device=self.device)
        return PrefixState(self._start, (empty, empty, torch.zeros(1, dtype=torch.long, device=self.device)))

    @torch.no_grad()
    def advance(self, state: PrefixState, symbols: Tensor) -> PrefixState:
        """Add one token, shape (N,), to each of N prefixes; at most ``most_rows``."""
        serials, path, length = state.cache
        symbols = symbols.long()
        if int(length.max()) > 0 and int(serials[serials >= 0].min()) < self._next - self._places:
            serials = self._read_again(serials, path, length)
        logits, new = self._extend(serials, length, symbols)
        serials = serials.scatter(1, length[:, None], new[:, None])
        path = path.scatter(1, length[:, None], symbols[:, None])
        return PrefixState(column_log2_probs(logits, self._columns), (serials, path, length + 1))

    def _extend(self, serials: Tensor, length: Tensor, symbols: Tensor) -> tuple[Tensor, Tensor]:
        """Read one token after each prefix; return logits, shape (N, V), and the tokens' serial numbers."""
        deep = int(length.max())
        absent = torch.arange(deep, device=self.device)[None] >= length[:, None]
        places = (serials[:, :deep] % self._places).masked_fill(absent, 0)
        if not self._pool:
            self._grow(len(symbols))
        own = _Pass(self._length + self._depth, self._prompt, self._pool, places, absent)
        logits = self._run(own, self._columns[symbols][:, None], self._length + length[:, None])[:, 0]
        new = torch.arange(self._next, self._next + len(symbols), device=self.device)
        self._next += len(symbols)
        self.read_tokens += len(symbols)
        self._grow(min(self._next, self._places))
        for layer, (key, value) in own.found.items():
            places = (new % self._places).to(key.device)
            self._pool[layer][0][places] = key[:, :, 0]
            self._pool[layer][1][places] = value[:, :, 0]
        return logits, new

    def _read_again(self, serials: Tensor, path: Tensor, length: Tensor) -> Tensor:
        """Read the tokens that were overwritten in the pool; return serial numbers that are all there."""
        serials = serials.clone()
        oldest = self._next - self._places + _ROWS * (self._depth + 1)  # what is written meanwhile spares the rest
        lost = (serials >= 0) & (serials < oldest)
        # What follows a lost token is read again too: its keys are there, but this is simpler, and rare.
        lost = (lost.cumsum(1) > 0) & (serials >= 0)
        for place in range(int(length.max())):
            rows = torch.nonzero(lost[:, place])[:, 0]
            if len(rows) == 0:
                continue
            _, first, inverse = np.unique(serials[rows, place].cpu().numpy(), return_index=True, return_inverse=True)
            chosen = rows[torch.from_numpy(first).to(self.device)]
            above = torch.full((len(chosen),), place, device=self.device)
            _, new = self._extend(serials[chosen], above, path[chosen, place])
            serials[rows, place] = new[torch.from_numpy(inverse.reshape(-1)).to(self.device)]
        return serials

    def _grow(self, places: int) -> None:
        """Make room for so many tokens, by doubling: a pool that is not needed takes nothing."""
        if places <= self._room:
            return
        room = min(self._places, max(places, 2 * self._room, _FEWEST_PLACES))
        for layer, parts in self._prompt.items():
            grown = []
            for index, part in enumerate(parts):
                larger = part.new_zeros((room, part.shape[0], part.shape[2]))
                if layer in self._pool:
                    larger[: self._room] = self._pool[layer][index]
                grown.append(larger)
            self._pool[layer] = (grown[0], grown[1])
        self._room = room

    @torch.no_grad()
    def _run(self, own: _Pass, ids: Tensor, positions: Tensor) -> Tensor:
        with _tree_attention_of(self._model, own):
            found = self._model(input_ids=ids, position_ids=positions.to(self.device), use_cache=False)
        logits: Tensor = found.logits.to(self.device)
        return logits


@contextmanager
def _tree_attention_of(model: Any, own: _Pass) -> Iterator[None]:
    """Let a model attend by ``tree_attention`` for one pass; afterwards it is as it was."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, tree_attention)
    config, training = model.config, model.training
    before = config._attn_implementation
    model.eval()
    config._attn_implementation = ATTENTION
    _current.append(own)
    try:
        yield
    finally:
        _current.pop()
        config._attn_implementation = before
        model.train(training)
