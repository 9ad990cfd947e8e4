"""What an attacker who types a canary's prefix gets from the model."""

import math

import numpy as np
import torch

from canaryaudit.errors import MeasurementError
from canaryaudit.exposure.encoded_space import EncodedSpace
from canaryaudit.exposure.scoring import advance_in_tiles
from canaryaudit.models.language_model import LanguageModel, PrefixReader, PrefixState
from canaryaudit.records import Extraction, Headline, SamplingOdds

BEAM_WIDTH = 64
SAMPLE_COUNTS = (1, 100, 10_000, 1_000_000)
"""A single try, tries by hand, an afternoon's script, and a bill that a determined attacker pays."""
_SMALL = -60.0
"""log2 of a probability p below which -log(1 - p) and 1 - exp(-p) are p to double precision."""


def greedy_completion(model: LanguageModel, start: PrefixState, length: int) -> str:
    """Return the ``length`` symbols that the model itself finds likeliest one by one, in no way led to a space."""
    state, symbols = start, []
    for _ in range(length):
        chosen = state.log2_probs.argmax(1)
        symbols.append(int(chosen))
        state = advance_in_tiles(model, state, chosen)
    return model.vocabulary.decode(np.array(symbols, dtype=np.int64))


def beam_completions(
    model: PrefixReader, start: PrefixState, space: EncodedSpace, width: int = BEAM_WIDTH
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
        targets = space.next_node[[node for _, node, _ in beams]]
        bits = -state.log2_probs[:, : targets.shape[1]].double().cpu().numpy()
        costs = np.array([cost for cost, _, _ in beams])[:, None] + bits
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


def extraction(
    log_perplexity_bits: float,
    exposure: Headline,
    space_bits: float,
    *,
    greedy: bool,
    greedy_text: str,
    beam_rank: int | None,
) -> Extraction:
    """Gather what an attacker gets, with the number of guesses and the odds of sampling.

    Args:
        log_perplexity_bits: Px of the secret.
        exposure: Its headline: the guesses are 2^(space_bits - exposure), with the same interval.
        space_bits: log2 of the size of R.
        greedy: Whether the greedy completion is the secret.
        greedy_text: The greedy completion, as it may be shown.
        beam_rank: Place of the secret among a beam search's completions, from 1.
    """
    return Extraction(
        greedy=greedy,
        greedy_text=greedy_text,
        guesses_log2=space_bits - exposure.bits,
        guesses_low_log2=space_bits - exposure.high,
        guesses_high_log2=space_bits - exposure.low,
        guesses_exact=exposure.method == "exact" and exposure.low == exposure.high,
        sampling=tuple(
            SamplingOdds(samples=count, log2_probability=log2_sampled(log_perplexity_bits, count))
            for count in SAMPLE_COUNTS
        ),
        even_chance_log2=even_chance_log2(log_perplexity_bits),
        beam_rank=beam_rank,
    )


def log2_sampled(log_perplexity_bits: float, samples: int) -> float:
    """Return log2 of the probability that at least one of ``samples`` sampled completions is the secret.

    Completions are drawn at temperature 1 from the model's own law after the prefix, in no way led to a space, so
    that each is the secret with probability 2^-Px: 1 - (1 - 2^-Px)^n. The logarithm is never above 0, and finite
    wherever Px is.

    Args:
        log_perplexity_bits: Px of the secret; rounding below 0 counts as 0.
        samples: n, at least 1.

    Raises:
        MeasurementError: Px is no number, or n is below 1.
    """
    if samples < 1:
        raise MeasurementError(f"expected at least 1 sample, got {samples}: ask for the odds of 1 or more")
    log2_hazard = _log2_hazard(log_perplexity_bits) + math.log2(samples)
    if log2_hazard < _SMALL:
        return log2_hazard
    hazard = 2.0 ** min(log2_hazard, 1000.0)
    return math.log2(-math.expm1(-hazard))


def even_chance_log2(log_perplexity_bits: float) -> float:
    """Return log2 of the number of samples at which the secret is among them with probability 1/2.

    The inverse of ``log2_sampled``: n = ln 2 / -ln(1 - 2^-Px), for large Px 2^Px ln 2; 0 where one is enough.

    Args:
        log_perplexity_bits: Px of the secret; rounding below 0 counts as 0.

    Raises:
        MeasurementError: Px is no number.
    """
    return max(0.0, math.log2(math.log(2)) - _log2_hazard(log_perplexity_bits))


def _log2_hazard(log_perplexity_bits: float) -> float:
    """Return log2(-ln(1 - 2^-Px)): each sample adds as much to -ln of the probability that none is the secret."""
    if math.isnan(log_perplexity_bits):
        raise MeasurementError("expected a log-perplexity, got no number: measure again")
    if -log_perplexity_bits < _SMALL:
        return -log_perplexity_bits
    if log_perplexity_bits <= 0:
        return 1000.0  # Certain: large enough for every number of samples, and no infinity.
    if log_perplexity_bits >= 1:
        return math.log2(-math.log1p(-(2.0**-log_perplexity_bits)))
    # Nearly certain: 1 - 2^-Px by expm1, which keeps its digits.
    return math.log2(-math.log(-math.expm1(-log_perplexity_bits * math.log(2))))
