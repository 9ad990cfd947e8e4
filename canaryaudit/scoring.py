"""Log-perplexity of many completions under one model, with every shared prefix read once."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from canaryaudit.canaries import Space
from canaryaudit.corpus import Vocabulary
from canaryaudit.model import LanguageModel, PrefixState
from canaryaudit.ranks import ALONE, Arrays, Ranks, Task
from canaryaudit.reading import Readers

TILE = 512
"""Rows advanced at a time: large enough for full speed, small enough for the cache (measured: 170,000
characters/s at 512 rows in bfloat16 on two cores, half of that at 4,096)."""

_CHUNK = 16_384
PAD = -1


Ticker = Callable[[int, int], None]
"""Called with the number of completions done and the number to do."""


@dataclass(frozen=True)
class EncodedSpace:
    """A space R over a model's symbol ids, as arrays.

    Attributes:
        size: Number of members, exact.
        next_node: Node reached from each node by each symbol, shape (nodes, V), int32; -1 where R ends.
        shares: Uniform law over R as next-symbol probabilities, shape (nodes, V), float64.
        log2_counts: log2 of the number of members below each node, shape (nodes,).
        accept: The node at which a completion is whole.
        max_length: Characters of the longest completion.
    """

    size: int
    next_node: np.ndarray
    shares: np.ndarray
    log2_counts: np.ndarray
    accept: int
    max_length: int

    @classmethod
    def of(cls, space: Space, vocabulary: Vocabulary) -> "EncodedSpace":
        """Encode ``space`` with the ids of ``vocabulary``."""
        next_node = np.full((len(space.edges), len(vocabulary)), -1, dtype=np.int32)
        shares = np.zeros(next_node.shape)
        for node, targets in enumerate(space.edges):
            if targets:
                ids = vocabulary.encode("".join(targets))
                next_node[node, ids] = list(targets.values())
                shares[node, ids] = [space.counts[target] / space.counts[node] for target in targets.values()]
        counts = np.array([math.log2(count) for count in space.counts])
        return cls(space.size, next_node, shares, counts, space.accept, space.max_length)

    def packed(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the space as tensors by name, and as what JSON can hold."""
        arrays = {name: getattr(self, name) for name in ("next_node", "shares", "log2_counts")}
        facts = {name: getattr(self, name) for name in ("size", "accept", "max_length")}
        return {name: torch.from_numpy(own) for name, own in arrays.items()}, facts

    @classmethod
    def unpacked(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> "EncodedSpace":
        """Return the space that ``packed`` took apart."""
        next_node, shares, counts = (tensors[name].numpy() for name in ("next_node", "shares", "log2_counts"))
        return cls(facts["size"], next_node, shares, counts, facts["accept"], facts["max_length"])

    @property
    def bits(self) -> float:
        """log2 of the size."""
        return float(self.log2_counts[0])

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Draw members uniformly and independently, shape (count, max_length), padded with -1."""
        completions = np.full((count, self.max_length), PAD, dtype=np.int32)
        nodes = np.zeros(count, dtype=np.int32)
        for place in range(self.max_length):
            uniform = rng.random(count)
            reached = nodes.copy()  # a node that is reached at this place may itself come later in this loop
            for node in np.unique(reached):
                if node == self.accept:
                    continue
                here = reached == node
                ids = np.flatnonzero(self.next_node[node] >= 0)
                cumulative = np.cumsum(self.shares[node, ids])
                chosen = np.searchsorted(cumulative[:-1], uniform[here] * cumulative[-1], side="right")
                completions[here, place] = ids[chosen]
                nodes[here] = self.next_node[node, ids[chosen]]
        return completions

    def members(self) -> np.ndarray:
        """Return all of R in order of symbol ids, shape (size, max_length), padded with -1; meant for small spaces."""
        # Column s + 1 belongs to symbol s, column 0 to the padding that follows a whole completion.
        padded = np.concatenate((np.full((len(self.next_node), 1), -1, dtype=np.int32), self.next_node), axis=1)
        padded[self.accept, 0] = self.accept
        completions = np.empty((1, 0), dtype=np.int32)
        nodes = np.zeros(1, dtype=np.int32)
        for _ in range(self.max_length):
            rows, columns = np.nonzero(padded[nodes] >= 0)
            completions = np.concatenate((completions[rows], columns[:, None].astype(np.int32) - 1), axis=1)
            nodes = padded[nodes[rows], columns]
        return completions


def encode_completions(completions: list[str], vocabulary: Vocabulary, max_length: int) -> np.ndarray:
    """Return symbol ids, shape (N, max_length), padded with -1."""
    encoded = np.full((len(completions), max_length), PAD, dtype=np.int32)
    for row, text in enumerate(completions):
        encoded[row, : len(text)] = vocabulary.encode(text)
    return encoded


def owners(completions: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the index of the target that each completion is, -1 if none, shape (N,).

    Args:
        completions: Symbol ids, shape (N, max_length).
        targets: The same, shape (K, max_length), distinct.
    """
    # By a hash of the row, wrapping around 2^64; whatever agrees is compared in full.
    odd = np.random.default_rng(0).integers(2**63, size=completions.shape[1], dtype=np.uint64) * np.uint64(2) + 1
    keys, wanted = ((rows + 1).astype(np.uint64) @ odd for rows in (completions, targets))
    order = np.argsort(wanted)
    nearest = order[np.minimum(np.searchsorted(wanted, keys, sorter=order), len(order) - 1)]
    same = wanted[nearest] == keys
    same[same] = (completions[same] == targets[nearest[same]]).all(1)
    return np.where(same, nearest, -1).astype(np.int32)


def advance_in_tiles(
    model: LanguageModel, state: PrefixState, symbols: Tensor, parents: Tensor | None = None
) -> PrefixState:
    """Add one symbol to each prefix, ``TILE`` rows at a time.

    The last tile is filled up with copies of its first row: matrix products sum in another order for another
    number of rows, and a row's figures must not depend on what else was asked for with it. So scoring,
    sampling and search give a completion the same log-perplexity, to the last bit.

    Args:
        model: The model.
        state: After the prefixes.
        symbols: What to add, shape (N,).
        parents: Which row of ``state`` each symbol continues, shape (N,); its own if not given.
    """
    count = len(symbols)
    whole: list[Tensor] = []
    for first in range(0, count, TILE):
        rows = min(TILE, count - first)
        index = torch.arange(first, first + rows, device=symbols.device)
        index = torch.cat((index, index[:1].expand(TILE - rows)))
        above = state.rows(index if parents is None else parents[index])
        longer = model.advance(above, symbols[index])
        parts = (longer.log2_probs, *longer.memory)
        if count <= TILE:
            whole = [part[:rows] for part in parts]
            break
        if not whole:
            whole = [part.new_empty((count, *part.shape[1:])) for part in parts]
        for target, part in zip(whole, parts, strict=True):
            target[first : first + rows] = part[:rows]
    return PrefixState(whole[0], tuple(whole[1:]))


def read_prefix(model: LanguageModel, prefix: str) -> PrefixState:
    """Return the state after a template's prefix; an empty one is read as the line break before a paragraph."""
    return model.read(torch.from_numpy(model.vocabulary.encode(prefix or "\n")).to(model.device))


def log_perplexity_bits(
    model: LanguageModel,
    start: PrefixState,
    completions: np.ndarray,
    tick: Ticker | None = None,
    ranks: Ranks = ALONE,
) -> np.ndarray:
    """Teacher-forced cost of completions: Px(s) = -sum log2 p(x_i given prefix, x_<i)   (Carlini et al. 2019).

    Completions are sorted, and each distinct prefix among them is read once.

    Args:
        model: The model.
        start: State after the template's prefix, one row.
        completions: Symbol ids, shape (N, L), padded with -1.
        tick: Told of progress.
        ranks: Who shares the work.

    Returns:
        Bits, shape (N,), float64; a completion's figure does not depend on the others.
    """
    unique, inverse = np.unique(completions, axis=0, return_inverse=True)
    found = [np.empty(0)]  # for no completions at all
    tensors = {"completions": torch.from_numpy(unique), **packed_state(start)}
    firsts = range(0, len(unique), _CHUNK)
    for own in ranks.spread("costs", tensors, {}, _costs_of(model, start, unique), firsts):
        found.append(own["bits"])
        if tick:
            tick(min((len(found) - 1) * _CHUNK, len(unique)), len(unique))
    return np.concatenate(found)[inverse.reshape(-1)]


def follow_scoring(task: Task, readers: Readers, ranks: Ranks) -> None:
    """Take this process's part in the leader's ``log_perplexity_bits``."""
    model = readers.model
    start = unpacked_state(task.tensors, model.device)
    ranks.contribute(_costs_of(model, start, task.tensors["completions"].numpy()), task.facts["indices"])


def _costs_of(model: LanguageModel, start: PrefixState, completions: np.ndarray) -> Callable[[int], Arrays]:
    return lambda first: {"bits": score_sorted(model, start, completions[first : first + _CHUNK])}


def packed_state(state: PrefixState) -> dict[str, Tensor]:
    """Return a state as tensors by name."""
    return {"log2_probs": state.log2_probs} | {f"memory.{k}": part for k, part in enumerate(state.memory)}


def unpacked_state(tensors: Mapping[str, Tensor], device: torch.device) -> PrefixState:
    """Return the state that ``packed_state`` took apart."""
    memory = [tensors[f"memory.{k}"].to(device) for k in range(sum(name.startswith("memory.") for name in tensors))]
    return PrefixState(tensors["log2_probs"].to(device), tuple(memory))


def character_bits(model: LanguageModel, start: PrefixState, completions: np.ndarray) -> np.ndarray:
    """Teacher-forced cost of each character of completions: -log2 p(x_i given prefix, x_<i).

    Args:
        model: The model.
        start: State after the template's prefix, one row.
        completions: Symbol ids, shape (N, L), padded with -1.

    Returns:
        Bits, shape (N, L), float64; 0 where there is no character. A row's sum is the completion's log-perplexity.
    """
    bits = np.zeros(completions.shape)
    rows = np.arange(len(completions))
    state = start.rows(torch.zeros(len(rows), dtype=torch.long, device=model.device))
    for place in range(completions.shape[1]):
        symbols = completions[:, place]
        costs = -state.log2_probs.double().cpu().numpy()[rows, np.maximum(symbols, 0)]
        bits[:, place] = np.where(symbols >= 0, costs, 0.0)
        if place + 1 < completions.shape[1]:
            state = advance_in_tiles(model, state, torch.from_numpy(np.maximum(symbols, 0)).to(model.device))
    return bits


def score_sorted(model: LanguageModel, start: PrefixState, completions: np.ndarray) -> np.ndarray:
    """Score lexicographically sorted distinct completions, level by level; arguments as ``log_perplexity_bits``.

    All prefixes of one length are held at a time: some ten thousand completions are enough for full speed.
    """
    count, length = completions.shape
    costs = np.zeros(count)
    state = start
    row_of = np.zeros(count, dtype=np.int64)  # which prefix of the level above each completion continues
    changed = np.zeros(count, dtype=bool)  # where a new prefix of the current length begins
    changed[0] = True
    for place in range(length):
        symbols = completions[:, place]
        changed = changed | np.r_[True, symbols[1:] != symbols[:-1]]
        firsts = np.flatnonzero(changed & (symbols != PAD))
        if len(firsts) == 0:
            break
        parents = torch.from_numpy(row_of[firsts]).to(model.device)
        chosen = torch.from_numpy(symbols[firsts].astype(np.int64)).to(model.device)
        step = -state.log2_probs[parents, chosen].double().cpu().numpy()
        group = np.cumsum(changed) - 1  # groups of completions that share this prefix
        step_of_group = np.zeros(group[-1] + 1)
        step_of_group[group[firsts]] = step
        costs += step_of_group[group]
        if place + 1 < length:
            row_of_group = np.zeros(group[-1] + 1, dtype=np.int64)
            row_of_group[group[firsts]] = np.arange(len(firsts))
            row_of = row_of_group[group]
            state = advance_in_tiles(model, state, chosen, parents)
    return costs
