"""The canaries of one template, encoded for a model."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from canaryaudit.canaries.canary import Canary, CanarySet
from canaryaudit.canaries.template import Template
from canaryaudit.exposure.encoded_space import EncodedSpace, encode_completions
from canaryaudit.exposure.scoring import character_bits, read_prefix, score_log_perplexity
from canaryaudit.models.language_model import LanguageModel, PrefixState


@dataclass(frozen=True)
class Targets:
    """The canaries and controls of one template.

    Attributes:
        template: The template.
        space: R.
        start: The model's state after the prefix, one row.
        canaries: K of them.
        completions: Symbol ids, shape (K, max_length), padded with -1.
        inserted: Which are no controls, shape (K,), bool.
        log_perplexity_bits: Log-perplexity, shape (K,).
        character_bits: The same character by character, shape (K, max_length).
    """

    template: Template
    space: EncodedSpace
    start: PrefixState
    canaries: Sequence[Canary]
    completions: np.ndarray
    inserted: np.ndarray
    log_perplexity_bits: np.ndarray
    character_bits: np.ndarray

    @classmethod
    def of(cls, model: LanguageModel, canary_set: CanarySet, text: str, members: Sequence[Canary]) -> "Targets":
        """Encode a template's canaries and score them."""
        template = Template.parse(text)
        space = EncodedSpace.of(canary_set.space(template), model.vocabulary)
        start = read_prefix(model, template.prefix)
        completions = encode_completions([own.completion for own in members], model.vocabulary, space.max_length)
        costs = score_log_perplexity(model, start, completions)
        inserted = np.array([not own.control for own in members])
        by_character = character_bits(model, start, completions)
        return cls(template, space, start, members, completions, inserted, costs, by_character)

    def asked(self, model: LanguageModel, prompt: str, canary: int, given: int) -> "Targets":
        """Return the same canaries after another prompt, and after the first characters of one of them.

        Args:
            model: The model.
            prompt: What is read first.
            canary: Index of the canary whose beginning is given.
            given: Characters of its completion that are given; only canaries that begin alike are left.
        """
        beginning = self.completions[canary, :given]
        kept = np.flatnonzero((self.completions[:, :given] == beginning).all(1))
        ids = np.concatenate((model.vocabulary.encode(prompt), beginning))
        start = model.read(torch.from_numpy(ids).to(model.device))
        space = self.space.after(beginning)
        rest = self.completions[kept, given:]
        costs = score_log_perplexity(model, start, rest)
        return Targets(
            self.template,
            space,
            start,
            [self.canaries[index] for index in kept.tolist()],
            rest,
            self.inserted[kept],
            costs,
            character_bits(model, start, rest),
        )
