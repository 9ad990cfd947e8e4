"""Secrets and controls of one space, encoded and scored."""

from dataclasses import dataclass

import numpy as np

from canaryaudit.exposure.encoded_space import EncodedSpace
from canaryaudit.models.language_model import PrefixState


@dataclass(frozen=True)
class ScoredMembers:
    """Members of one space, with what they cost after one prompt: what is to be ranked.

    Attributes:
        space: R.
        start: The model's state after the prompt, one row.
        completions: Symbol ids, distinct members, shape (K, max_length), padded with -1.
        inserted: Which are inserted, and so nobody's reference, shape (K,), bool; the others are controls.
        log_perplexity_bits: Log-perplexity, shape (K,).
    """

    space: EncodedSpace
    start: PrefixState
    completions: np.ndarray
    inserted: np.ndarray
    log_perplexity_bits: np.ndarray
