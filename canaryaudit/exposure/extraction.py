"""What an attacker who types a canary's prefix gets from the model."""

import numpy as np
import torch

from canaryaudit.model import LanguageModel, PrefixState
from canaryaudit.scoring import EncodedSpace, advance_in_tiles

BEAM_WIDTH = 64


def greedy_completion(model: LanguageModel, start: PrefixState, length: int) -> str:
    """Return the ``length`` symbols that the model itself finds likeliest one by one, in no way led to a space."""
    state, symbols = start, []
    for _ in range(length):
        chosen = state.log2_probs.argmax(1)
        symbols.append(int(chosen))
        state = advance_in_tiles(model, state, chosen)
    return model.vocabulary.decode(np.array(symbols, dtype=np.int64))


def beam_completions(
    model: LanguageModel, start: PrefixState, space: EncodedSpace, width: int = BEAM_WIDTH
) -> list[tuple[int, ...]]:
    """Return the members of R that a beam search finds, likeliest first, as symbol ids.

    Args:
        model: The model.
        start: State after the template's prefix, one row.
        space: R, to which the attacker holds the search.
        width: Prefixes kept at each length.
    """
    beams: list[tuple[float, int, tuple[int, ...]]] = [(0.0, 0, ())]
    state = start
    whole: list[tuple[float, tuple[int, ...]]] = []
    while beams:
        costs = np.array([cost for cost, _, _ in beams])[:, None] - state.log2_probs.double().cpu().numpy()
        targets = space.next_node[[node for _, node, _ in beams]]
        rows, symbols = np.nonzero(targets >= 0)
        order = np.argsort(costs[rows, symbols], kind="stable")
        rows, symbols = rows[order], symbols[order]  # cheapest first
        ends = targets[rows, symbols] == space.accept
        for row, symbol in zip(rows[ends][:width].tolist(), symbols[ends][:width].tolist(), strict=True):
            whole.append((float(costs[row, symbol]), (*beams[row][2], symbol)))
        parents, added = rows[~ends][:width].tolist(), symbols[~ends][:width].tolist()
        beams = [
            (float(costs[row, symbol]), int(targets[row, symbol]), (*beams[row][2], symbol))
            for row, symbol in zip(parents, added, strict=True)
        ]
        if beams:
            device = model.device
            state = advance_in_tiles(
                model, state, torch.tensor(added, device=device), torch.tensor(parents, device=device)
            )
    return [text for _, text in sorted(whole)[:width]]
