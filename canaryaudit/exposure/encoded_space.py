"""A space of completions as an automaton over symbol ids."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from canaryaudit.canaries.space import Space
from canaryaudit.corpus.vocabulary import Vocabulary

PAD = -1


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

    @cached_property
    def num_symbols(self) -> int:
        """The largest number of symbols that may follow a prefix."""
        return int((self.next_node >= 0).sum(1).max())

    @cached_property
    def prefix_counts(self) -> np.ndarray:
        """Number of prefixes of each length from 1 to that of the longest member, shape (max_length,); may be infinite.

        Members that are whole are not counted.
        """
        sources, symbols = np.nonzero(self.next_node >= 0)
        pairs, times = np.unique(np.stack((sources, self.next_node[sources, symbols])), axis=1, return_counts=True)
        inner = pairs[1] != self.accept
        (sources, targets), times = pairs[:, inner], times[inner]
        found = np.zeros(self.max_length)
        at_node: np.ndarray = np.zeros(len(self.next_node))
        at_node[0] = 1
        with np.errstate(over="ignore"):
            for place in range(self.max_length):
                at_node = np.bincount(targets, times * at_node[sources], len(at_node)).astype(np.float64)
                found[place] = at_node.sum()
        return found

    def reading_symbols(self, count: float) -> float:
        """Return the most symbols that a model reads to score so many members, each shared prefix read once."""
        return float(np.minimum(self.prefix_counts, count).sum())

    def after(self, symbols: np.ndarray) -> "EncodedSpace":
        """Return the space of what may follow the first symbols of a member, shape (k,)."""
        node = 0
        for symbol in symbols.tolist():
            node = int(self.next_node[node, symbol])
        below = {node}
        waiting = [node]
        while waiting:
            targets = self.next_node[waiting.pop()]
            new = {*targets[targets >= 0].tolist()} - below
            below |= new
            waiting += new
        kept = sorted(below)  # nodes come after those that lead to them
        renumbered = np.full(len(self.next_node) + 1, -1, dtype=np.int32)
        renumbered[kept] = np.arange(len(kept))
        next_node = renumbered[self.next_node[kept]]
        counts = [1] * len(kept)
        longest = [0] * len(kept)
        for place in reversed(range(len(kept) - 1)):
            targets = next_node[place][next_node[place] >= 0].tolist()
            counts[place] = sum(counts[target] for target in targets)
            longest[place] = 1 + max(longest[target] for target in targets)
        return EncodedSpace(counts[0], next_node, self.shares[kept], self.log2_counts[kept], len(kept) - 1, longest[0])

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
        # The edges of all nodes in one list, each node's together; a whole completion goes on with padding.
        nodes, symbols = np.nonzero(self.next_node >= 0)
        nodes, symbols = np.r_[nodes, self.accept], np.r_[symbols, PAD]
        order = np.argsort(nodes, kind="stable")
        nodes, symbols = nodes[order], symbols[order]
        targets = np.where(symbols == PAD, self.accept, self.next_node[nodes, symbols])
        degrees = np.bincount(nodes, minlength=len(self.next_node))
        firsts = np.cumsum(degrees) - degrees
        completions = np.empty((1, 0), dtype=np.int32)
        reached = np.zeros(1, dtype=np.int64)
        for _ in range(self.max_length):
            counts = degrees[reached]
            rows = np.repeat(np.arange(len(reached)), counts)
            edges = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts - firsts[reached], counts)
            completions = np.concatenate((completions[rows], symbols[edges, None].astype(np.int32)), axis=1)
            reached = targets[edges]
        return completions


def encode_completions(completions: list[str], vocabulary: Vocabulary, max_length: int) -> np.ndarray:
    """Return symbol ids, shape (N, max_length), padded with -1."""
    encoded = np.full((len(completions), max_length), PAD, dtype=np.int32)
    for row, text in enumerate(completions):
        encoded[row, : len(text)] = vocabulary.encode(text)
    return encoded


def match_targets(completions: np.ndarray, targets: np.ndarray) -> np.ndarray:
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
