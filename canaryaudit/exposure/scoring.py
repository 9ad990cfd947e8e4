"""Log-perplexity of many completions under one model, with every shared prefix read once."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from canaryaudit.distributed import SINGLE_PROCESS, Arrays, ProcessGroup, Task
from canaryaudit.exposure.encoded_space import PAD
from canaryaudit.exposure.scoring_models import ScoringModels
from canaryaudit.models.language_model import LanguageModel, PrefixReader, PrefixState

TILE = 512
"""Rows advanced at a time: large enough for full speed, small enough for the cache (measured: 170,000
characters/s at 512 rows in bfloat16 on two cores, half of that at 4,096)."""

_CHUNK = 16_384


Ticker = Callable[[int, int], None]
"""Called with the number of completions done and the number to do."""


def advance_in_tiles(
    model: PrefixReader, state: PrefixState, symbols: Tensor, parents: Tensor | None = None
) -> PrefixState:
    """Add one symbol to each prefix, ``TILE`` rows at a time.

    The last tile is filled up with copies of its first row: matrix products sum in another order for another
    number of rows, and a row's figures must not depend on what else was asked for with it, nor on its place in the
    tile: see ``_rows_alike``. So scoring, sampling and search give a completion the same log-perplexity, to the last
    bit, for as long as a process keeps its number of threads. A reader that has ``most_rows`` gets so many at a time,
    and none that it was not asked for: there, figures agree but for rounding.

    Args:
        model: The model.
        state: After the prefixes.
        symbols: What to add, shape (N,).
        parents: Which row of ``state`` each symbol continues, shape (N,); its own if not given.
    """
    found: list[Tensor] = []
    longer = advance_and_read(model, state, symbols, parents, lambda _, log2_probs: found.append(log2_probs))
    return PrefixState(torch.cat(found) if found else longer.log2_probs, longer.cache)


def advance_and_read(
    model: PrefixReader,
    state: PrefixState,
    symbols: Tensor,
    parents: Tensor | None,
    read: Callable[[int, Tensor], None],
) -> PrefixState:
    """Do as ``advance_in_tiles``, but keep no log-probabilities: of a wide vocabulary they are gigabytes.

    Args:
        model: The model.
        state: After the prefixes; its log-probabilities are not looked at.
        symbols: What to add, shape (N,).
        parents: Which row of ``state`` each symbol continues, shape (N,); its own if not given.
        read: Given each tile's first row and its next-symbol log-probabilities, shape (rows, V).

    Returns:
        The longer prefixes' states, with log-probabilities of shape (N, 0).
    """
    count = len(symbols)
    whole: list[Tensor] = []
    tile = getattr(model, "most_rows", None)
    filled, tile = tile is None, tile or TILE
    empty = state.log2_probs.new_empty((tile, 0))
    for first in range(0, count, tile):
        rows = min(tile, count - first)
        index = torch.arange(first, first + rows, device=symbols.device)
        if filled:
            index = torch.cat((index, index[:1].expand(tile - rows)))
        above = index if parents is None else parents[index]
        with _rows_alike(symbols.device):
            longer = model.advance(PrefixState(empty, tuple(part[above] for part in state.cache)), symbols[index])
        read(first, longer.log2_probs[:rows])
        if count <= tile:
            whole = [part[:rows] for part in longer.cache]
            break
        if not whole:
            whole = [part.new_empty((count, *part.shape[1:])) for part in longer.cache]
        for target, part in zip(whole, longer.cache, strict=True):
            target[first : first + rows] = part[:rows]
    return PrefixState(empty.new_empty((count, 0)), tuple(whole))


@contextmanager
def _rows_alike(device: torch.device) -> Iterator[None]:
    """Let every thread compute on whole vectors of numbers, so that a row's figures do not depend on its place.

    PyTorch cuts a tensor into one piece for each thread and ends a piece that is no whole number of vectors with a
    scalar function, whose sigmoid and tanh round otherwise. With 5, 7 or 10 threads a tile has such pieces; with a
    power of two it has none, for models of our hidden size.
    """
    threads = torch.get_num_threads()
    most = 1 << (threads.bit_length() - 1)
    if device.type != "cpu" or most == threads:
        yield
        return
    torch.set_num_threads(most)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def read_prefix(model: LanguageModel, prefix: str) -> PrefixState:
    """Return the state after a template's prefix; an empty one is read as the line break before a paragraph."""
    return model.read(torch.from_numpy(model.vocabulary.encode(prefix or "\n")).to(model.device))


def score_log_perplexity(
    model: PrefixReader,
    start: PrefixState,
    completions: np.ndarray,
    tick: Ticker | None = None,
    processes: ProcessGroup = SINGLE_PROCESS,
) -> np.ndarray:
    """Teacher-forced cost of completions: Px(s) = -sum log2 p(x_i given prefix, x_<i)   (Carlini et al. 2019).

    Completions are sorted, and each distinct prefix among them is read once.

    Args:
        model: The model.
        start: State after the template's prefix, one row.
        completions: Symbol ids, shape (N, L), padded with -1.
        tick: Told of progress.
        processes: Who shares the work.

    Returns:
        Bits, shape (N,), float64; a completion's figure does not depend on the others.
    """
    if _ascends(completions):  # as all members do: sorting a million rows takes longer than reading them
        unique, inverse = completions, np.arange(len(completions))
    else:
        unique, inverse = np.unique(completions, axis=0, return_inverse=True)
    found = [np.empty(0)]  # for no completions at all
    tensors = {"completions": torch.from_numpy(unique), **packed_state(start)}
    firsts = range(0, len(unique), _CHUNK)

    def tell(share: float) -> None:
        if tick:
            tick(round(min((len(found) - 1 + share) * _CHUNK, len(unique))), len(unique))

    for own in processes.map_tasks("costs", tensors, {}, _costs_of(model, start, unique, tell), firsts):
        found.append(own["bits"])
        tell(0.0)
    return np.concatenate(found)[inverse.reshape(-1)]


def _ascends(completions: np.ndarray) -> bool:
    """Return whether rows are sorted and all different."""
    differs = completions[1:] != completions[:-1]
    if not differs.any(1).all():
        return False
    first = differs.argmax(1)
    rows = np.arange(len(first))
    return bool((completions[1:][rows, first] > completions[:-1][rows, first]).all())


def score_worker(task: Task, readers: ScoringModels[PrefixReader], processes: ProcessGroup) -> None:
    """Take this process's part in the leader's ``score_log_perplexity``."""
    model = readers.model
    start = unpacked_state(task.tensors, model.device)
    processes.run_tasks(_costs_of(model, start, task.tensors["completions"].numpy()), task.facts["indices"])


def _costs_of(
    model: PrefixReader, start: PrefixState, completions: np.ndarray, tell: Callable[[float], None] | None = None
) -> Callable[[int], Arrays]:
    def piece(first: int) -> Arrays:
        own = completions[first : first + _CHUNK]
        share = len(own) / _CHUNK
        within = None if tell is None else lambda done, total: tell(share * done / total)
        return {"bits": score_sorted(model, start, own, within)}

    return piece


def packed_state(state: PrefixState) -> dict[str, Tensor]:
    """Return a state as tensors by name."""
    return {"log2_probs": state.log2_probs} | {f"memory.{k}": part for k, part in enumerate(state.cache)}


def unpacked_state(tensors: Mapping[str, Tensor], device: torch.device) -> PrefixState:
    """Return the state that ``packed_state`` took apart."""
    memory = [tensors[f"memory.{k}"].to(device) for k in range(sum(name.startswith("memory.") for name in tensors))]
    return PrefixState(tensors["log2_probs"].to(device), tuple(memory))


def symbol_bits(model: PrefixReader, start: PrefixState, completions: np.ndarray) -> np.ndarray:
    """Teacher-forced cost of each symbol of completions: -log2 p(x_i given prefix, x_<i).

    Args:
        model: The model.
        start: State after the template's prefix, one row.
        completions: Symbol ids, shape (N, L), padded with -1.

    Returns:
        Bits, shape (N, L), float64; 0 where there is no symbol. A row's sum is the completion's log-perplexity.
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


def score_sorted(
    model: PrefixReader, start: PrefixState, completions: np.ndarray, tick: Ticker | None = None
) -> np.ndarray:
    """Score lexicographically sorted distinct completions, level by level; arguments as ``score_log_perplexity``.

    All prefixes of one length are held at a time: some ten thousand completions are enough for full speed. A reader
    that has ``most_completions`` gets so many at a time.
    """
    most = getattr(model, "most_completions", len(completions))
    if len(completions) <= most:
        return _score_levels(model, start, completions, tick)
    found = []
    for first in range(0, len(completions), most):
        found.append(_score_levels(model, start, completions[first : first + most]))
        if tick:
            tick(min(first + most, len(completions)), len(completions))
    return np.concatenate(found)


def _score_levels(
    model: PrefixReader, start: PrefixState, completions: np.ndarray, tick: Ticker | None = None
) -> np.ndarray:
    costs = np.zeros(len(completions))
    levels = prefix_levels(completions)
    level, state = next(levels), start
    step = -start.log2_probs[0, torch.from_numpy(level.symbols).to(model.device)].double().cpu().numpy()
    row_of = np.zeros(1, dtype=np.int64)  # of the state, by prefix of the level above
    for place in range(1, completions.shape[1] + 1):
        costs += np.where(level.row_of >= 0, step[level.row_of], 0.0)
        if tick:
            tick(place, completions.shape[1])
        if (following := next(levels, None)) is None:
            break
        going_on = np.unique(following.parents)  # A whole completion is not read to its end.
        below = np.full(len(level.symbols), -1)
        below[going_on] = np.arange(len(going_on))
        children = Children(below[following.parents], following.symbols, model.device)
        step = np.zeros(len(following.symbols))

        def read(first: int, log2_probs: Tensor, step: np.ndarray = step, children: Children = children) -> None:
            own, found = children.of(first, log2_probs)
            step[own] = -found.double().cpu().numpy()

        parents = torch.from_numpy(row_of[level.parents[going_on]]).to(model.device)
        chosen = torch.from_numpy(level.symbols[going_on]).to(model.device)
        state = advance_and_read(model, state, chosen, parents, read)
        level, row_of = following, below
    return costs


@dataclass(frozen=True)
class PrefixLevel:
    """The distinct prefixes of one length among sorted completions.

    Attributes:
        parents: Which of the prefixes that are one symbol shorter each continues, ascending, shape (U,).
        symbols: The last symbol of each, shape (U,).
        row_of: Which of them each completion begins with, -1 where the completion is shorter, shape (N,).
    """

    parents: np.ndarray
    symbols: np.ndarray
    row_of: np.ndarray


def prefix_levels(completions: np.ndarray) -> Iterator[PrefixLevel]:
    """Yield the distinct prefixes of sorted completions by length, from one symbol on; at least one completion."""
    above = np.zeros(len(completions), dtype=np.int64)
    changed = np.zeros(len(completions), dtype=bool)  # where a new prefix of the current length begins
    for place in range(completions.shape[1]):
        symbols = completions[:, place]
        changed |= np.r_[True, symbols[1:] != symbols[:-1]]
        begins = changed & (symbols != PAD)
        firsts = np.flatnonzero(begins)
        if len(firsts) == 0:
            return
        row_of = np.where(symbols == PAD, -1, np.cumsum(begins) - 1)
        yield PrefixLevel(above[firsts], symbols[firsts].astype(np.int64), row_of)
        above = row_of


class Children:
    """One-symbol continuations of prefixes, to be looked up as the prefixes are read.

    Args:
        parents: Which prefix each continues, ascending, shape (C,).
        symbols: By what, shape (C,).
        device: Of the log-probabilities.
    """

    def __init__(self, parents: np.ndarray, symbols: np.ndarray, device: torch.device) -> None:
        self._parents = parents
        self._rows, self._symbols = (torch.from_numpy(part).to(device) for part in (parents, symbols))

    def of(self, first: int, log2_probs: Tensor) -> tuple[slice, Tensor]:
        """Return which continue a tile's prefixes, and their log-probabilities.

        Args:
            first: The tile's first prefix.
            log2_probs: Of the tile, shape (rows, V).
        """
        begin, end = np.searchsorted(self._parents, (first, first + len(log2_probs))).tolist()
        return slice(begin, end), log2_probs[self._rows[begin:end] - first, self._symbols[begin:end]]
