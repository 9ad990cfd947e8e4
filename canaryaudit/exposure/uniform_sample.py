"""Uniform references in lexicographic order, drawn as they are needed: any number in bounded memory.

A sample of n members of R is split from the top: how many of n uniform draws continue by each symbol is a
multinomial law, so that subtrees can be drawn one after another, each from a generator of its own. What comes
out is a sample of n independent draws, sorted, and the same whatever part of it is looked at, and when.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from canaryaudit.exposure.encoded_space import PAD, EncodedSpace

PART = 65_536
"""Distinct completions that a part has at most, where its space allows: what is scored at a time. With a quarter of it
the short prefixes that a part's completions share fill too few rows (a tenth slower); it is 0.5 GB of states of the
3.3 M-parameter model in bfloat16."""

_Subtree = tuple[tuple[int, ...], int, int]
"""A prefix, the node that it leads to, and the number of draws below."""


@dataclass(frozen=True)
class _Subtrees:
    """Prefixes of one length, in order, and the number of draws below each."""

    prefixes: np.ndarray  # (P, length)
    nodes: np.ndarray  # (P,)
    counts: np.ndarray  # (P,)


class UniformSample:
    """``count`` independent uniform draws of a space, as sorted distinct completions with their multiplicities.

    Attributes:
        space: R.
        count: Number of draws.
        seed: Of the draws; each part has a generator of its own.
        num_parts: Number of parts that the sample falls into.
    """

    def __init__(self, space: EncodedSpace, count: int, seed: Sequence[int]) -> None:
        self.space, self.count, self.seed = space, count, tuple(seed)
        self._parts = list(_grouped(space, _split(space, count, np.random.default_rng([*self.seed, 0]))))
        self.num_parts = len(self._parts)

    def part(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a part's distinct completions, shape (U, max_length), padded with -1, and their counts, (U,)."""
        rng = np.random.default_rng([*self.seed, 1, index])
        space, subtrees = self.space, self._parts[index]
        length = subtrees.prefixes.shape[1]
        completions = np.full((len(subtrees.nodes), space.max_length), PAD, dtype=np.int32)
        completions[:, :length] = subtrees.prefixes
        nodes, counts = subtrees.nodes, subtrees.counts
        for place in range(length, space.max_length):
            rows, symbols, below = _continued(space, nodes, counts, rng)
            completions = completions[rows]
            completions[:, place] = symbols
            # A completion that is whole already stays as it is.
            nodes = np.where(symbols == PAD, space.accept, space.next_node[nodes[rows], symbols])
            counts = below
        return completions, counts


class DrawnSample(UniformSample):
    """Random members that were drawn already, all different, as a sample of one part."""

    def __init__(self, space: EncodedSpace, drawn: np.ndarray, count: int) -> None:
        self.space, self.count, self.seed, self.num_parts = space, min(count, len(drawn)), (), 1
        self._drawn = np.unique(drawn[:count], axis=0)

    def part(self, index: int) -> tuple[np.ndarray, np.ndarray]:  # noqa: ARG002 -- there is one
        """Return the distinct completions, shape (U, max_length), padded with -1, and their counts, (U,)."""
        return self._drawn, np.ones(len(self._drawn), dtype=np.int64)


def _split(space: EncodedSpace, count: int, rng: np.random.Generator) -> Iterator[_Subtree]:
    """Yield prefixes in order, with their nodes and numbers of draws; each below which ``PART`` completions lie."""
    stack: list[_Subtree] = [((), 0, count)]
    while stack:
        prefix, node, draws = stack.pop()
        if node == space.accept or _most_distinct(space, node, draws) <= PART:
            yield prefix, node, draws
            continue
        ids = np.flatnonzero(space.next_node[node] >= 0)
        below = rng.multinomial(draws, space.shares[node, ids] / space.shares[node, ids].sum())
        children = zip(ids.tolist(), below.tolist(), strict=True)
        stack += [((*prefix, s), int(space.next_node[node, s]), n) for s, n in children if n][::-1]


def _most_distinct(space: EncodedSpace, node: int, draws: int) -> float:
    """Return how many distinct completions ``draws`` draws below a node can be."""
    return min(float(draws), math.exp2(min(float(space.log2_counts[node]), 62.0)))


def _grouped(space: EncodedSpace, subtrees: Iterator[_Subtree]) -> Iterator[_Subtrees]:
    """Put neighboring subtrees of one depth together, as far as they fit into a part."""
    group: list[_Subtree] = []
    total = 0.0
    for prefix, node, draws in subtrees:
        size = _most_distinct(space, node, draws)
        if group and (len(prefix) != len(group[0][0]) or total + size > PART):
            yield _packed(group)
            group, total = [], 0.0
        group.append((prefix, node, draws))
        total += size
    yield _packed(group)


def _packed(group: list[_Subtree]) -> _Subtrees:
    prefixes, nodes, counts = zip(*group, strict=True)
    return _Subtrees(np.array(prefixes, dtype=np.int32).reshape(len(group), -1), np.array(nodes), np.array(counts))


def _continued(
    space: EncodedSpace, nodes: np.ndarray, counts: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw the next symbol of ``counts`` draws at each prefix; return the longer prefixes' rows, symbols and counts."""
    size = space.next_node.shape[1] + 1  # one more for the padding, which comes first
    one_by_one = counts.sum() <= 4 * PART
    keys, numbers = [], []
    for node in np.unique(nodes):
        rows = np.flatnonzero(nodes == node)
        if node == space.accept:
            keys.append(rows * size)
            numbers.append(counts[rows])
            continue
        ids = np.flatnonzero(space.next_node[node] >= 0)
        shares = space.shares[node, ids]
        if one_by_one:
            drawn = np.repeat(rows, counts[rows])
            chosen = np.searchsorted(np.cumsum(shares)[:-1], rng.random(len(drawn)) * shares.sum(), side="right")
            unique, number = np.unique(drawn * size + ids[chosen] + 1, return_counts=True)
        else:
            below = rng.multinomial(counts[rows], shares / shares.sum())  # (rows, C)
            row, column = np.nonzero(below)
            unique, number = rows[row] * size + ids[column] + 1, below[row, column]
        keys.append(unique)
        numbers.append(number)
    key, number = np.concatenate(keys), np.concatenate(numbers)
    order = np.argsort(key, kind="stable")
    return key[order] // size, key[order] % size - 1, number[order]
