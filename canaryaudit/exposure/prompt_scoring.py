"""Cost of the same completions after many prompts, character by character, with every shared prefix read once."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from canaryaudit.distributed import SINGLE_PROCESS, Arrays, ProcessGroup, Task
from canaryaudit.exposure.scoring import (
    Children,
    Ticker,
    advance_and_read,
    packed_state,
    prefix_levels,
    unpacked_state,
)
from canaryaudit.exposure.scoring_models import ScoringModels
from canaryaudit.models.language_model import LanguageModel, PrefixReader, PrefixState

_CHUNK = 8
"""Prompts scored at a time: with 512 completions 4,096 rows, 70 MB of states of the 3.3 M-parameter model."""


def read_prompts(model: LanguageModel, prompts: Sequence[str]) -> PrefixState:
    """Return the states after several prompts, one row each, as many as can be read at a time.

    Args:
        model: The model.
        prompts: None of them empty; what they are read together with is always the same, so that figures are too.
    """
    ids = [model.vocabulary.encode(prompt) for prompt in prompts]
    states = [model.read(torch.from_numpy(own[:1]).to(model.device)) for own in ids]
    parts = zip(*((state.log2_probs, *state.cache) for state in states), strict=True)
    joined = [torch.cat(part) for part in parts]
    lengths = np.array([len(own) for own in ids])
    for place in range(1, int(lengths.max())):
        going_on = torch.from_numpy(np.flatnonzero(lengths > place)).to(model.device)
        symbols = torch.tensor([own[place] for own in ids if len(own) > place], device=model.device)
        longer = model.advance(PrefixState(joined[0], tuple(joined[1:])).rows(going_on), symbols)
        for part, new in zip(joined, (longer.log2_probs, *longer.cache), strict=True):
            part[going_on] = new
    return PrefixState(joined[0], tuple(joined[1:]))


def symbol_bits_after(
    model: PrefixReader,
    starts: PrefixState,
    completions: np.ndarray,
    tick: Ticker | None = None,
    processes: ProcessGroup = SINGLE_PROCESS,
) -> tuple[np.ndarray, np.ndarray]:
    """Teacher-forced cost of each character: -log2 p(x_i given prompt, x_<i).

    Args:
        model: The model.
        starts: States after P prompts, one row each.
        completions: Symbol ids, sorted, all different, shape (N, L), padded with -1.
        tick: Told of progress, in prompts.
        processes: Who shares the work.

    Returns:
        Bits, shape (P, N, L), float32, 0 where there is no character; and whether each is the likeliest of all
        symbols there, of the same shape.
    """
    count = len(starts.log2_probs)
    tensors = {"completions": torch.from_numpy(completions), **packed_state(starts)}
    found: list[Arrays] = []
    firsts = range(0, count, _CHUNK)

    def tell(share: float) -> None:
        if tick:
            tick(round(1000 * min(1.0, (len(found) + share) * _CHUNK / count)), 1000)

    for own in processes.map_tasks("prompts", tensors, {}, _bits_of(model, starts, completions, tell), firsts):
        found.append(own)
        tell(0.0)
    return np.concatenate([own["bits"] for own in found]), np.concatenate([own["likeliest"] for own in found])


def prompt_worker(task: Task, models: ScoringModels[PrefixReader], processes: ProcessGroup) -> None:
    """Take this process's part in the leader's ``symbol_bits_after``."""
    model = models.model
    starts = unpacked_state(task.tensors, model.device)
    processes.run_tasks(_bits_of(model, starts, task.tensors["completions"].numpy()), task.facts["indices"])


def _bits_of(
    model: PrefixReader, starts: PrefixState, completions: np.ndarray, tell: Callable[[float], None] | None = None
) -> Callable[[int], Arrays]:
    def piece(first: int) -> Arrays:
        rows = torch.arange(first, min(first + _CHUNK, len(starts.log2_probs)), device=model.device)
        share = len(rows) / _CHUNK
        within = None if tell is None else lambda done, total: tell(share * done / total)
        bits, likeliest = score_each_symbol(model, starts.rows(rows), completions, within)
        return {"bits": bits, "likeliest": likeliest}

    return piece


def score_each_symbol(
    model: PrefixReader, state: PrefixState, completions: np.ndarray, tick: Ticker | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Score sorted completions after each of a few prompts, level by level: shape (P, N, L) each."""
    prompts, (count, length) = len(state.log2_probs), completions.shape
    bits = np.zeros((prompts, count, length), dtype=np.float32)
    likeliest = np.ones((prompts, count, length), dtype=bool)
    levels = prefix_levels(completions)
    level = next(levels)
    symbols = torch.from_numpy(level.symbols).to(model.device)
    step = (-state.log2_probs[:, symbols]).cpu().numpy()  # (P, U)
    first = (state.log2_probs[:, symbols] == state.log2_probs.amax(1, keepdim=True)).cpu().numpy()
    above = 1  # prefixes of the level above
    for place in range(length):
        here = level.row_of >= 0
        bits[:, here, place] = step[:, level.row_of[here]]
        likeliest[:, here, place] = first[:, level.row_of[here]]
        if tick:
            tick(place + 1, length)
        if (following := next(levels, None)) is None:
            break
        children = Children(
            _for_each(prompts, following.parents, len(level.symbols)), np.tile(following.symbols, prompts), model.device
        )
        step = np.zeros((prompts, len(following.symbols)), dtype=np.float32)
        first = np.zeros(step.shape, dtype=bool)
        flat_step, flat_first = step.reshape(-1), first.reshape(-1)

        def read(
            row: int,
            log2_probs: Tensor,
            flat_step: np.ndarray = flat_step,
            flat_first: np.ndarray = flat_first,
            children: Children = children,
        ) -> None:
            own, found = children.of(row, log2_probs)
            _, largest = children.of(row, log2_probs.amax(1, keepdim=True).expand_as(log2_probs))
            flat_step[own], flat_first[own] = -found.cpu().numpy(), (found == largest).cpu().numpy()

        parents = torch.from_numpy(_for_each(prompts, level.parents, above)).to(model.device)
        chosen = torch.from_numpy(np.tile(level.symbols, prompts)).to(model.device)
        state = advance_and_read(model, state, chosen, parents, read)
        above, level = len(level.symbols), following
    return bits, likeliest


def _for_each(prompts: int, parents: np.ndarray, size: int) -> np.ndarray:
    """Return rows of a level of ``size`` prefixes as rows of all prompts' levels, prompt by prompt."""
    rows: np.ndarray = (np.arange(prompts)[:, None] * size + parents).reshape(-1)
    return rows
