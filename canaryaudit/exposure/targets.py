"""Secrets and controls of one space, encoded and scored; the canaries of one template."""

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


@dataclass(frozen=True)
class Targets(ScoredMembers):
    """The canaries and controls of one template.

    Attributes:
        template: The template.
        canaries: K of them.
        character_bits: Log-perplexity character by character, shape (K, max_length).
    """

    template: Template
    canaries: Sequence[Canary]
    character_bits: np.ndarray

    @classmethod
    def of(cls, model: LanguageModel, canary_set: CanarySet, text: str, members: Sequence[Canary]) -> "Targets":
        """Encode a template's canaries and score them."""
        template = Template.parse(text)
        space = EncodedSpace.of(canary_set.space(template), model.vocabulary)
        start = read_prefix(model, template.prefix)
        completions = encode_completions([own.completion for own in members], model.vocabulary, space.max_length)
        return cls(
            space,
            start,
            completions,
            inserted=np.array([not own.control for own in members]),
            log_perplexity_bits=score_log_perplexity(model, start, completions),
            template=template,
            canaries=members,
            character_bits=character_bits(model, start, completions),
        )

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
        return Targets(
            space,
            start,
            rest,
            self.inserted[kept],
            score_log_perplexity(model, start, rest),
            template=self.template,
            canaries=[self.canaries[index] for index in kept.tolist()],
            character_bits=character_bits(model, start, rest),
        )
