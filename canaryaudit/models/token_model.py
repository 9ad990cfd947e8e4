"""Models over tokens, and the adapter of any module that returns logits.

A reader is opened on one prompt and on the *columns* that are asked for: the tokens that secrets of one template can
contain. Their log-probabilities are normalized over the whole vocabulary; one more column holds the likeliest of all
other tokens, so that greedy decoding can be seen to leave the space.
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from canaryaudit.models.language_model import LOG2_E, PrefixReader, PrefixState
from canaryaudit.models.tokenizer import FastTokenizer, Tokenizer

_ROWS = 64
"""Prefixes read at a time by a model that reads each from its beginning."""


@runtime_checkable
class TokenModel(Protocol):
    """A causal model over the tokens of a tokenizer.

    Examples:
        Any object with these members will do; ``canaryaudit.HuggingFaceModel`` and ``ModuleModel`` have them:

        >>> from tokenizers import Tokenizer, models
        >>> from transformers import PreTrainedTokenizerFast
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({"0": 0, "1": 1}, [])))
        >>> isinstance(ModuleModel(nn.Embedding(2, 2), tokenizer), TokenModel)
        True
    """

    @property
    def tokenizer(self) -> Tokenizer:
        """How text becomes tokens."""

    @property
    def device(self) -> torch.device:
        """The device of the model."""

    @property
    def multiplications(self) -> int:
        """How many reading one token takes."""

    def open(self, prompt: Sequence[int], columns: np.ndarray, depth: int) -> tuple[PrefixReader, PrefixState]:
        """Read a prompt.

        Args:
            prompt: Token ids, at least one.
            columns: Ids of the tokens that may follow, shape (A,); symbols of the reader are indices into them.
            depth: How many tokens are added to the prompt at most.

        Returns:
            A reader of what follows the prompt, and its state after it: log-probabilities of shape (1, A + 1).
        """


class ModuleModel:
    r"""Any ``torch.nn.Module`` that returns logits, as a ``TokenModel``: each prefix is read from its beginning.

    Args:
        module: Called with token ids of shape (B, T), returns logits (B, T, V), or an object that has them as
            ``logits``. It must be causal: what is read later must not change what was predicted before.
        tokenizer: How text becomes tokens: a fast tokenizer of ``transformers``, or a ``Tokenizer``.

    Examples:
        A model for which every token is as likely as any other, and three tokens that may follow a prompt:

        >>> from tokenizers import Tokenizer, models
        >>> from transformers import PreTrainedTokenizerFast
        >>> symbols = {symbol: index for index, symbol in enumerate("0123456789 .abcdefghijklmnopqrstuvwxyz\n")}
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(symbols, [])))
        >>> class Flat(nn.Module):
        ...     def forward(self, ids):
        ...         return torch.zeros(*ids.shape, 64)
        >>> model = ModuleModel(Flat(), tokenizer)
        >>> _, state = model.open(model.tokenizer.encode(["code "])[0].ids, np.arange(3), depth=2)
        >>> state.log2_probs
        tensor([[-6., -6., -6., -6.]])
    """

    def __init__(self, module: nn.Module, tokenizer: Any) -> None:
        self.module = module.eval()
        self.tokenizer: Tokenizer = as_tokenizer(tokenizer)
        parameter = next(module.parameters(), None)
        self.device = torch.device("cpu") if parameter is None else parameter.device
        self.multiplications = sum(parameter.numel() for parameter in module.parameters())

    def open(self, prompt: Sequence[int], columns: np.ndarray, depth: int) -> tuple["FullReader", PrefixState]:
        """Read a prompt; see ``TokenModel.open``."""
        reader = FullReader(self.module, prompt, columns, self.device, self.multiplications)
        return reader, reader.start(depth)


class FullReader:
    """Reads every prefix from the prompt's beginning: right for any causal module, and slow.

    A state's cache holds the columns read so far, shape (N, depth), and their number, shape (N,).
    """

    most_rows = _ROWS

    def __init__(
        self, module: nn.Module, prompt: Sequence[int], columns: np.ndarray, device: torch.device, multiplications: int
    ) -> None:
        self.device = device
        self._module, self._columns = module, torch.from_numpy(columns.astype(np.int64)).to(device)
        self._prompt = torch.tensor(list(prompt), dtype=torch.long, device=device)
        self.multiplications = multiplications * len(prompt)

    @torch.no_grad()
    def start(self, depth: int) -> PrefixState:
        """Return the state after the prompt."""
        path = torch.full((1, max(1, depth)), -1, dtype=torch.long, device=self.device)
        length = torch.zeros(1, dtype=torch.long, device=self.device)
        return PrefixState(self._predicted(path, length), (path, length))

    @torch.no_grad()
    def advance(self, state: PrefixState, symbols: Tensor) -> PrefixState:
        """Add one token, shape (N,), to each of N prefixes."""
        path, length = state.cache
        path = path.scatter(1, length[:, None], symbols.long()[:, None])
        length = length + 1
        return PrefixState(self._predicted(path, length), (path, length))

    @torch.no_grad()
    def after(self, paths: Tensor) -> Tensor:
        """Return the log-probabilities after N prefixes, given as columns of shape (N, k): shape (N, A + 1)."""
        return self._predicted(paths, torch.full((len(paths),), paths.shape[1], device=self.device))

    def _predicted(self, path: Tensor, length: Tensor) -> Tensor:
        longest = int(length.max())
        own = self._columns[path[:, :longest].clamp(min=0)] if len(self._columns) else path[:, :longest]
        ids = torch.cat((self._prompt.expand(len(path), -1), own), 1)
        found = self._module(ids)
        logits = getattr(found, "logits", found)
        last = logits[torch.arange(len(path), device=self.device), len(self._prompt) - 1 + length]
        return column_log2_probs(last, self._columns)


def column_log2_probs(logits: Tensor, columns: Tensor) -> Tensor:
    """Return the log-probabilities of some tokens, and of the likeliest of all others.

    Args:
        logits: Shape (N, V); overwritten.
        columns: Token ids, distinct, shape (A,); impossible where the model has no logit of them.

    Returns:
        Base 2, at most 0, float32, shape (N, A + 1).
    """
    logits = logits.float()
    if len(columns) and (beyond := int(columns.max()) + 1 - logits.shape[1]) > 0:
        logits = nn.functional.pad(logits, (0, beyond), value=-torch.inf)
    total = logits.logsumexp(1, keepdim=True)
    own = logits[:, columns]
    others = logits.index_fill(1, columns, -torch.inf).amax(1, keepdim=True)
    found = (torch.cat((own, others), 1) - total) * LOG2_E
    return found.clamp(-1e4, 0.0)


def as_tokenizer(tokenizer: Any) -> Tokenizer:
    """Return a tokenizer of ``transformers`` as a ``Tokenizer``; one that is one already stays as it is."""
    return FastTokenizer(tokenizer) if hasattr(tokenizer, "backend_tokenizer") else tokenizer
