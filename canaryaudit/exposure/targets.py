"""The canaries of one template after one prompt, and how a model that reads characters is asked for them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from canaryaudit.canaries.canary import Canary, CanarySet
from canaryaudit.canaries.template import Template
from canaryaudit.exposure.effort import LONGEST_CLOSING
from canaryaudit.exposure.encoded_space import PAD, EncodedSpace, encode_completions
from canaryaudit.exposure.execution import Execution
from canaryaudit.exposure.extraction import greedy_completion
from canaryaudit.exposure.probes import TemplateProbes
from canaryaudit.exposure.prompt_scoring import read_prompts, score_each_symbol, symbol_bits_after
from canaryaudit.exposure.scored_members import ScoredMembers
from canaryaudit.exposure.scoring import read_prefix, score_log_perplexity, symbol_bits
from canaryaudit.exposure.token_space import TokenSpace
from canaryaudit.models.language_model import LanguageModel, PrefixReader
from canaryaudit.records import OtherSpellings


@dataclass(frozen=True)
class Targets(ScoredMembers):
    """The canaries and controls of one template, after one prompt.

    Attributes:
        reader: Reads what follows the prompt, by the symbols of the space.
        template: The template.
        canaries: K of them.
        symbol_bits: Log-perplexity symbol by symbol, shape (K, max_length).
        ends: Characters of the completion up to the end of each symbol, shape (K, max_length).
        text_space: R over characters; the same as ``space`` where symbols are characters.
        text_rows: The completions by characters, shape (K, characters), padded with -1.
        tokens: How the space is tokenized; None where symbols are characters.
    """

    reader: PrefixReader
    template: Template
    canaries: Sequence[Canary]
    symbol_bits: np.ndarray
    ends: np.ndarray
    text_space: EncodedSpace
    text_rows: np.ndarray
    tokens: TokenSpace | None = None

    def alike(self, canary: int, given: int) -> np.ndarray:
        """Return the canaries whose first characters are those of one of them, in order."""
        beginning = self.text_rows[canary, :given]
        return np.flatnonzero((self.text_rows[:, :given] == beginning).all(1))


@dataclass(frozen=True)
class ProbeCosts:
    """What probes showed of members of a space.

    Attributes:
        bits: Cost of what is not known, shape (Q, N).
        greedy: Whether what is not known is the greedy completion, shape (Q, N).
        symbols: How many symbols were read.
        unread: Why the model could not read a prompt, by its index; figures under these prompts say nothing.
    """

    bits: np.ndarray
    greedy: np.ndarray
    symbols: int
    unread: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ClosingCosts:
    """What a template's closing text costs after members of its space.

    Attributes:
        bits: After each of them, shape (N,).
        symbols: How many symbols were read.
    """

    bits: np.ndarray
    symbols: int


class Asker(Protocol):
    """How a model is asked for the secrets of templates: by characters, or by tokens."""

    @property
    def device(self) -> torch.device:
        """Of the model."""

    def targets(self, text: str, members: Sequence[Canary]) -> Targets:
        """Encode a template's canaries and score them after the template's own prefix."""

    def asked(self, targets: Targets, prompt: str, canary: int, given: int) -> Targets:
        """Return the same canaries after another prompt, and after the first characters of one of them.

        Args:
            targets: The canaries after the template's own prefix.
            prompt: What is read first.
            canary: Index of the canary whose beginning is given.
            given: Characters of its completion that are given; only canaries that begin alike are left.
        """

    def probe_costs(
        self, targets: Targets, fresh: np.ndarray, probes: TemplateProbes, execution: Execution
    ) -> ProbeCosts:
        """Score the canaries, then fresh members, under every probe.

        Args:
            targets: The canaries after the template's own prefix.
            fresh: Other members by characters, shape (F, characters), padded with -1.
            probes: The template's.
            execution: How to carry it out.
        """

    def closing_costs(self, targets: Targets, members: np.ndarray) -> ClosingCosts | None:
        """Return what the beginning of the closing text costs after members of the space, behind the own prefix.

        Args:
            targets: The canaries after the template's own prefix; the template has a suffix.
            members: By characters, shape (N, characters), padded with -1.

        Returns:
            None where the model cannot be asked for it.
        """

    def other_spellings(self, targets: Targets, rng: np.random.Generator) -> OtherSpellings | None:
        """Return what other spellings of the same text add; None where there is one spelling only."""

    def greedy_text(self, targets: Targets) -> str:
        """Return what the model itself says after the template's prefix, at least as long as a completion."""


class CharacterAsker:
    """Asks a model that reads characters.

    Args:
        model: The model.
        canary_set: Tells the spaces of templates.
    """

    def __init__(self, model: LanguageModel, canary_set: CanarySet) -> None:
        self._model, self._canary_set = model, canary_set

    @property
    def device(self) -> torch.device:
        """Of the model."""
        return self._model.device

    def targets(self, text: str, members: Sequence[Canary]) -> Targets:
        """Encode a template's canaries and score them; see ``Asker``."""
        template, model = Template.parse(text), self._model
        space = EncodedSpace.of(self._canary_set.space(template), model.vocabulary)
        completions = encode_completions([own.completion for own in members], model.vocabulary, space.max_length)
        inserted = np.array([not own.control for own in members])
        start = read_prefix(model, template.prefix)
        return self._scored(ScoredMembers(space, start, completions, inserted, np.empty(0)), template, members)

    def asked(self, targets: Targets, prompt: str, canary: int, given: int) -> Targets:
        """Return the same canaries after another prompt, and after some characters; see ``Asker``."""
        model, kept = self._model, targets.alike(canary, given)
        beginning = targets.completions[canary, :given]
        ids = np.concatenate((model.vocabulary.encode(prompt), beginning))
        start = model.read(torch.from_numpy(ids).to(model.device))
        rest = targets.completions[kept, given:]
        members = ScoredMembers(targets.space.after(beginning), start, rest, targets.inserted[kept], np.empty(0))
        return self._scored(members, targets.template, [targets.canaries[index] for index in kept.tolist()])

    def _scored(self, own: ScoredMembers, template: Template, canaries: Sequence[Canary]) -> Targets:
        length = own.completions.shape[1]
        return Targets(
            own.space,
            own.start,
            own.completions,
            own.inserted,
            score_log_perplexity(self._model, own.start, own.completions),
            reader=self._model,
            template=template,
            canaries=canaries,
            symbol_bits=symbol_bits(self._model, own.start, own.completions),
            ends=np.tile(np.arange(1, length + 1), (len(canaries), 1)),
            text_space=own.space,
            text_rows=own.completions,
        )

    def probe_costs(
        self, targets: Targets, fresh: np.ndarray, probes: TemplateProbes, execution: Execution
    ) -> ProbeCosts:
        """Score the canaries, then fresh members, under every probe, in one pass; see ``Asker``."""
        members = np.concatenate((targets.completions, fresh))
        ordered, inverse = np.unique(members, axis=0, return_inverse=True)
        bits, likeliest = symbol_bits_after(
            self._model,
            read_prompts(self._model, [prompt.text for prompt in probes.prompts]),
            ordered,
            execution.ticker("probes"),
            execution.processes,
        )
        inverse = inverse.reshape(-1)
        # From the last character back: the cost of what follows each, and whether it is all greedy.
        rest = np.cumsum(bits[:, :, ::-1].astype(float), 2)[:, :, ::-1]
        ahead = np.logical_and.accumulate(likeliest[:, :, ::-1], 2)[:, :, ::-1]
        return ProbeCosts(
            np.stack([rest[probe.prompt, :, probe.given] for probe in probes.probes])[:, inverse],
            np.stack([ahead[probe.prompt, :, probe.given] for probe in probes.probes])[:, inverse],
            int(len(probes.prompts) * targets.space.reading_symbols(len(members))),
        )

    def closing_costs(self, targets: Targets, members: np.ndarray) -> ClosingCosts | None:
        """Return what the closing text costs after members of the space; see ``Asker``."""
        closing = targets.template.suffix[:LONGEST_CLOSING]
        if not set(closing) <= set(self._model.vocabulary.symbols):
            return None
        ids = self._model.vocabulary.encode(closing)
        count, width = members.shape
        rows = np.full((count, width + len(ids)), PAD, dtype=np.int32)
        rows[:, :width] = members
        places = (members != PAD).sum(1)[:, None] + np.arange(len(ids))  # (N, characters of the closing text)
        np.put_along_axis(rows, places, ids[None].astype(np.int32), 1)
        ordered, inverse = np.unique(rows, axis=0, return_inverse=True)
        bits, _ = score_each_symbol(self._model, targets.start, ordered)  # (1, U, L)
        costs = np.take_along_axis(bits[0][inverse.reshape(-1)].astype(float), places, 1).sum(1)
        return ClosingCosts(costs, int(targets.space.reading_symbols(count)) + count * len(ids))

    def other_spellings(self, targets: Targets, rng: np.random.Generator) -> OtherSpellings | None:  # noqa: ARG002
        """Return None: a text has one spelling in characters."""
        return None

    def greedy_text(self, targets: Targets) -> str:
        """Return what the model itself says after the template's prefix; see ``Asker``."""
        return greedy_completion(self._model, targets.start, targets.space.max_length)
