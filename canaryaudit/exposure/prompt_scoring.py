"""Cost of the same completions after many prompts, character by character, with every shared prefix read once."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from canaryaudit.distributed import SINGLE_PROCESS, Arrays, ProcessGroup, Task
from canaryaudit.exposure.encoded_space import PAD
from canaryaudit.exposure.scoring import Ticker, advance_in_tiles, packed_state, unpacked_state
from canaryaudit.exposure.scoring_models import ScoringModels
from canaryaudit.models.language_model import LanguageModel, PrefixState

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


def character_bits_after(
    model: LanguageModel,
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
    for own in processes.map_tasks("prompts", tensors, {}, _bits_of(model, starts, completions), firsts):
        found.append(own)
        if tick:
            tick(min(len(found) * _CHUNK, count), count)
    return np.concatenate([own["bits"] for own in found]), np.concatenate([own["likeliest"] for own in found])


def prompt_worker(task: Task, models: ScoringModels, processes: ProcessGroup) -> None:
    """Take this process's part in the leader's ``character_bits_after``."""
    model = models.model
    starts = unpacked_state(task.tensors, model.device)
    processes.run_tasks(_bits_of(model, starts, task.tensors["completions"].numpy()), task.facts["indices"])


def _bits_of(model: LanguageModel, starts: PrefixState, completions: np.ndarray) -> Callable[[int], Arrays]:
    def piece(first: int) -> Arrays:
        rows = torch.arange(first, min(first + _CHUNK, len(starts.log2_probs)), device=model.device)
        bits, likeliest = _score_sorted(model, starts.rows(rows), completions)
        return {"bits": bits, "likeliest": likeliest}

    return piece


def _score_sorted(model: LanguageModel, state: PrefixState, completions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Score sorted completions after each of a few prompts, level by level: shape (P, N, L) each."""
    prompts, (count, length) = len(state.log2_probs), completions.shape
    bits = np.zeros((prompts, count, length), dtype=np.float32)
    likeliest = np.ones((prompts, count, length), dtype=bool)
    row_of = np.repeat(np.arange(prompts)[:, None], count, axis=1)  # which state each completion continues
    changed = np.zeros(count, dtype=bool)  # where a new prefix of the current length begins
    changed[0] = True
    for place in range(length):
        symbols = completions[:, place]
        changed = changed | np.r_[True, symbols[1:] != symbols[:-1]]
        firsts = np.flatnonzero(changed & (symbols != PAD))
        if len(firsts) == 0:
            break
        parents = torch.from_numpy(row_of[:, firsts].reshape(-1)).to(model.device)
        chosen = torch.from_numpy(np.tile(symbols[firsts].astype(np.int64), prompts)).to(model.device)
        step = state.log2_probs[parents, chosen]
        first = step == state.log2_probs.amax(1)[parents]
        group = np.cumsum(changed) - 1  # completions that share this prefix
        for kept, own in ((bits, -step), (likeliest, first)):
            of_group = np.full((prompts, group[-1] + 1), kept.dtype == bool, dtype=kept.dtype)
            of_group[:, group[firsts]] = own.cpu().numpy().reshape(prompts, -1)
            kept[:, :, place] = of_group[:, group]
        if place + 1 < length:
            row_of_group = np.zeros((prompts, group[-1] + 1), dtype=np.int64)
            row_of_group[:, group[firsts]] = np.arange(prompts * len(firsts)).reshape(prompts, -1)
            row_of = row_of_group[:, group]
            state = advance_in_tiles(model, state, chosen, parents)
    return bits, likeliest
