"""Secrets and decoys read on from contexts, and what is wanted at each of their characters."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from canaryaudit.models.char_lstm import CharLSTM
from canaryaudit.unlearning.all_layers.conditional import ConditionalTargets, symbol_weights
from canaryaudit.unlearning.all_layers.contexts import States, branch_features
from canaryaudit.unlearning.all_layers.kept import KeptCanaries
from canaryaudit.unlearning.decoys import Decoys, distributions_along
from canaryaudit.unlearning.occurrences import Occurrence

EMPHASIS = 0.5
"""Share of a secret's position that its own next symbol weighs: what a rank is made of."""


@dataclass(frozen=True)
class Branch:
    """A member of a secret's space after a context.

    Attributes:
        place: Whose space it is.
        member: Symbol ids of the whole member, shape (L,).
        secret: Whether it is the secret itself.
        context: The context that it follows.
        lead: Symbols read before it: the end of the template's prefix, or none, shape (P,).
        first: Characters of the member that are left out at its beginning.
        closing: Symbols that follow it, shape (S,).
        after_prefix: Whether the context is the template's own prefix.
        weight: What it counts, all its positions together.
    """

    place: Occurrence
    member: np.ndarray
    secret: bool
    context: int
    lead: np.ndarray
    first: int
    closing: np.ndarray
    after_prefix: bool
    weight: float

    @property
    def symbols(self) -> np.ndarray:
        """What is read after the context, shape (P + L - first + S,)."""
        return np.concatenate((self.lead, self.member[self.first :], self.closing)).astype(np.int64)

    @property
    def span(self) -> slice:
        """Where the member stands in ``symbols``."""
        return slice(len(self.lead), len(self.lead) + len(self.member) - self.first)


@dataclass(frozen=True)
class Batch:
    """Branches side by side.

    Attributes:
        symbols: Padded at the end, shape (B, L).
        origins: The context that each follows, shape (B,).
        rows: Of the positions with targets, shape (P,).
        columns: Of the same.
        targets: What is wanted there.
    """

    symbols: Tensor
    origins: Tensor
    rows: Tensor
    columns: Tensor
    targets: ConditionalTargets

    def logits(self, model: CharLSTM, states: States) -> tuple[Tensor, Tensor]:
        """Return the logits at the positions with targets, shape (P, V), and the features of all, shape (B, L, H)."""
        features = branch_features(model, states, self.symbols, self.origins)
        return model.output(features[self.rows, self.columns]), features


def side_by_side(branches: Sequence[Branch]) -> tuple[Tensor, Tensor]:
    """Return the branches' symbols, padded, shape (B, L), and their contexts, shape (B,)."""
    rows = [torch.from_numpy(own.symbols) for own in branches]
    padded: Tensor = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return padded, torch.tensor([own.context for own in branches])


def positions(branches: Sequence[Branch]) -> tuple[Tensor, Tensor]:
    """Return rows and columns of the members' symbols, shape (P,) each, branch after branch."""
    spans = [range(own.span.start, own.span.stop) for own in branches]
    rows = [index for index, span in enumerate(spans) for _ in span]
    return torch.tensor(rows), torch.tensor([column for span in spans for column in span])


def alphabets(branches: Sequence[Branch]) -> Tensor:
    """Return what each position's space allows there, shape (P, V), bool."""
    along = [distributions_along(own.place.space, own.place.space.shares, own.member)[own.first :] for own in branches]
    return torch.from_numpy(np.concatenate(along)) > 0


def batch_of(
    branches: Sequence[Branch], decoys: Decoys, masses: Tensor, device: torch.device, kept: KeptCanaries
) -> Batch:
    """Put branches side by side, with the replacement's distributions as their targets.

    Args:
        branches: At least one.
        decoys: Say how likely each symbol is to be.
        masses: What each position's alphabet is to weigh together, shape (P,).
        device: Where the tensors are to be.
        kept: Canaries that stay.
    """
    allowed = alphabets(branches)
    wanted = torch.from_numpy(np.concatenate([_along(own, decoys, kept)[own.first :] for own in branches]))
    following = torch.from_numpy(np.concatenate([own.member[own.first :] for own in branches]).astype(np.int64))
    emphasis = torch.tensor([EMPHASIS * own.secret for own in branches for _ in own.member[own.first :]])
    each = [own.weight / (len(own.member) - own.first) for own in branches for _ in own.member[own.first :]]
    targets = ConditionalTargets(
        allowed=allowed.to(device),
        log_distributions=torch.where(allowed, wanted.clamp_min(1e-9).log(), 0.0).to(device),
        symbol_weights=symbol_weights(allowed, wanted, following, emphasis).to(device),
        masses=masses.to(device),
        weights=torch.tensor(each, device=device),
    )
    symbols, origins = side_by_side(branches)
    rows, columns = positions(branches)
    return Batch(symbols.to(device), origins.to(device), rows.to(device), columns.to(device), targets)


def _along(own: Branch, decoys: Decoys, kept: KeptCanaries) -> np.ndarray:
    along = distributions_along(own.place.space, decoys.distributions(own.place), own.member)
    return kept.blended(along, own.place.canary.template, own.member) if own.after_prefix else along
