"""The objective over all layers: decoys in the secrets' places, the original model's predictions elsewhere.

    F(theta) = sum_i w_i KL(t_i || p_theta(i)),   F(theta*) the secrets' own excess

where i runs over positions of Z-tilde (t the replacement's law in the secret's place; around it what the
original model predicts around the secret), over the secret's own path (t the same law: the layers below are
to mark it no more), and over positions of other text, the retention. In distinction from the final layer's
problem (see ``objective``) F is not convex, and every step draws decoys and retained windows anew.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from canaryaudit.models.char_lstm import CharLSTM
from canaryaudit.unlearning.curvature.products import DifferentiableLoss, as_function
from canaryaudit.unlearning.decoys import Corrected, distributions_along
from canaryaudit.unlearning.divergence import weighted_divergence
from canaryaudit.unlearning.occurrences import Occurrence, Surroundings, in_turn
from canaryaudit.unlearning.replacement import Replacement

READINGS = 8
"""Readings of secrets in one step: half after the template's prefix alone, half after the text that precedes."""
DECOYS = 8
"""Replacements after each reading."""
CONTEXT = 40
"""Characters of text read before the prefix, where there are so many free of secrets."""
RETAINED_BATCH = 16
"""Windows of other text in one step."""
FORGET_SHARE = 1.0
"""Summed weight of the replacements' positions over that of the retained ones; the secret's own path has as much."""
AROUND_WEIGHT = 0.25
"""Weight of a position around a secret, beside 1 for a position to retain."""


@dataclass(frozen=True)
class BranchingBatch:
    """Sequences that branch off shared contexts, and the law of what follows each of their symbols.

    Attributes:
        contexts: Symbol ids, shape (C, D).
        branches: What follows each context, shape (C, n, L); None for nothing.
        targets: t, first of the contexts' positions, then of the branches', shape (C D + C n L, V).
        weights: w, of the same positions.
    """

    contexts: Tensor
    branches: Tensor | None
    targets: Tensor
    weights: Tensor

    @property
    def symbols(self) -> int:
        """Number of symbols read."""
        return self.contexts.numel() + (0 if self.branches is None else self.branches.numel())


class BranchingModel(nn.Module):
    """A model as a function of a ``BranchingBatch``: logits at its positions, shape (P, V).

    In the weights' own precision: without oneDNN, which forward mode must do without, bfloat16 takes a processor
    twice as long.
    """

    def __init__(self, model: CharLSTM) -> None:
        super().__init__()
        self.model = model

    def forward(self, reading: BranchingBatch) -> Tensor:
        """Read the contexts once, and every branch from its context's state."""
        hidden, state = self.model.features(reading.contexts)
        rows = [hidden.flatten(0, 1)]
        if reading.branches is not None:
            count = reading.branches.shape[1]
            repeated = tuple(part.repeat_interleave(count, 1) for part in state)
            hidden, _ = self.model.features(reading.branches.flatten(0, 1), (repeated[0], repeated[1]))
            rows.append(hidden.flatten(0, 1))
        logits: Tensor = self.model.output(torch.cat(rows))
        return logits


def divergence(logits: Tensor, reading: BranchingBatch) -> Tensor:
    """Return sum_i w_i KL(t_i || softmax(logits_i)), in nats."""
    return weighted_divergence(logits, reading.targets, reading.weights)


def secant_curvature(logits: Tensor, reading: BranchingBatch, direction: Tensor) -> Tensor:
    """Return L v with L = w (diag q - q q'), q half-way between what is predicted and what is wanted.

    A memorized secret is predicted with certainty: there the second derivative of its loss is zero, and a
    Gauss-Newton step arbitrarily long.
    """
    distribution = (torch.softmax(logits, 1) + reading.targets) / 2
    return reading.weights[:, None] * distribution * (direction - (distribution * direction).sum(1, keepdim=True))


class AllLayersProblem:
    """Draws the objective of one step after another.

    Args:
        model: The original model, which tells what is to be retained.
        text: The audited text, shape (N,).
        places: Where the secrets stand.
        replacement: What is to take their place.
        retained: Windows of other text, shape (W, T + 1).
        window: T.
        rng: Source of all draws.
    """

    def __init__(
        self,
        model: CharLSTM,
        text: Tensor,
        places: Sequence[Occurrence],
        replacement: Replacement,
        retained: Tensor,
        *,
        window: int,
        rng: np.random.Generator,
    ) -> None:
        self.model, self.replacement = model, replacement
        self.retained, self.window, self.rng = retained, window, rng
        self._surroundings, self._turns = Surroundings(text, places), in_turn(places, rng)
        self._reader = BranchingModel(model)

    @property
    def retained_weight(self) -> float:
        """Summed weight of the positions to retain in one step."""
        return float(self.window * max(1, min(RETAINED_BATCH, len(self.retained))))

    def draw(self) -> list[BranchingBatch]:
        """Return the next step's readings: of secrets, of which each comes in turn, and of other text."""
        chosen = self.rng.permutation(len(self.retained))[:RETAINED_BATCH]
        kept = [self._kept(self.retained[torch.from_numpy(chosen)][:, :-1])] if len(chosen) else []
        weight = FORGET_SHARE * self.retained_weight / READINGS
        secrets = []
        for index in range(READINGS):
            secrets += self._around(next(self._turns), bare=index % 2 == 0, weight=weight)
        return merged(secrets) + kept

    def loss(self, model: CharLSTM, readings: Sequence[BranchingBatch]) -> DifferentiableLoss[BranchingBatch]:
        """Return the objective of these readings at the weights of ``model``."""
        parameters, predict = as_function(BranchingModel(model))
        return DifferentiableLoss(parameters, predict, divergence, readings, secant_curvature)

    @torch.no_grad()
    def accuracy(self, model: CharLSTM, readings: Sequence[BranchingBatch]) -> float:
        """Return the accuracy on the retained windows."""
        hits = positions = 0
        for own in readings:
            if own.branches is None:
                likeliest = BranchingModel(model)(own).argmax(1).view_as(own.contexts)
                hits += int((likeliest[:, :-1] == own.contexts[:, 1:]).sum())
                positions += own.contexts[:, 1:].numel()
        return hits / max(1, positions)

    @torch.no_grad()
    def _laws(self, contexts: Tensor, branches: Tensor | None = None) -> Tensor:
        """Return the original model's laws, shape (P, V)."""
        nothing = torch.empty(0, device=contexts.device)
        distributions: Tensor = self._reader(BranchingBatch(contexts, branches, nothing, nothing)).softmax(1)
        return distributions

    def _kept(self, windows: Tensor) -> BranchingBatch:
        distributions = self._laws(windows)
        return BranchingBatch(windows, None, distributions, distributions.new_ones(len(distributions)))

    def _around(self, place: Occurrence, *, bare: bool, weight: float) -> list[BranchingBatch]:
        """Return a secret's context with its replacements and its own path, one reading for each of their lengths."""
        depth = 0 if bare else min(self._surroundings.free(place), CONTEXT)
        context = self._surroundings.context(place, depth)[None]
        secret, suffix = (torch.from_numpy(part).to(context.device) for part in (place.secret, place.suffix))
        whole = torch.cat((secret, suffix))[None, None]
        truly = self._laws(context, whole)
        before, after = truly[: context.shape[1] - 1], truly[context.shape[1] - 1 + len(secret) :]
        proxy_member = self.replacement.proxy_member(place, self.rng)
        readings = []
        corrected = self.replacement.correct(place, DECOYS, self.rng)
        for item in corrected:
            share = weight * len(item.symbols) / sum(len(own.symbols) for own in corrected)
            readings.append(self._branching(context, item, suffix, before, after, share))
        if proxy_member is not None:
            own = Corrected(
                secret[None].cpu(),
                torch.from_numpy(distributions_along(place.space, place.space.shares, place.secret))[None],
            )
            path = self._branching(context, own, suffix, before, after, weight)
            lengths = [item.symbols.shape[1] for item in corrected]
            if len(secret) in lengths:
                alike = lengths.index(len(secret))
                readings[alike] = _joined(readings[alike], path)
            else:  # a choice of words, and none of the secret's length was drawn
                readings.append(path)
        return readings

    def _branching(
        self, context: Tensor, corrected: Corrected, suffix: Tensor, before: Tensor, after: Tensor, weight: float
    ) -> BranchingBatch:
        """Return the reading of a context that replacements and the suffix follow."""
        symbols, targets = corrected.symbols.to(context.device), corrected.targets.to(context.device)
        count, length = symbols.shape
        branches = torch.cat((symbols, suffix.expand(count, -1)), 1)  # (n, L + S)
        along = torch.cat((targets[:, 1:], after.expand(count, -1, -1)), 1)  # (n, L + S, V)
        each = weight / (count * length)
        own = torch.full((count, along.shape[1]), each * AROUND_WEIGHT, device=context.device)
        own[:, : length - 1] = each
        around = torch.full((len(before),), AROUND_WEIGHT * each, device=context.device)
        return BranchingBatch(
            context,
            branches[None],
            torch.cat((before, targets[:, 0].mean(0, keepdim=True), along.flatten(0, 1))),
            torch.cat((around, around.new_full((1,), weight / length), own.flatten())),
        )


def merged(readings: Sequence[BranchingBatch]) -> list[BranchingBatch]:
    """Join readings of equal shapes into one: sequences side by side cost little more than one."""
    groups: dict[tuple[int, ...], list[BranchingBatch]] = {}
    for own in readings:
        groups.setdefault(
            (own.contexts.shape[1], *own.branches.shape[1:]) if own.branches is not None else (), []
        ).append(own)
    joined = []
    for group in groups.values():
        # Rows come context by context, then branch by branch: of all contexts first.
        split = [own.contexts.numel() for own in group]
        rows = [
            torch.cat(
                [part[:at] for part, at in zip(parts, split, strict=True)]
                + [part[at:] for part, at in zip(parts, split, strict=True)]
            )
            for parts in ([own.targets for own in group], [own.weights for own in group])
        ]
        branches = [own.branches for own in group if own.branches is not None]
        joined.append(
            BranchingBatch(torch.cat([own.contexts for own in group]), torch.cat(branches) if branches else None, *rows)
        )
    return joined


def _joined(one: BranchingBatch, other: BranchingBatch) -> BranchingBatch:
    """Join two readings of one context whose branches are equally long."""
    depth = one.contexts.shape[1]
    return BranchingBatch(
        one.contexts,
        torch.cat([own.branches for own in (one, other) if own.branches is not None], 1),
        torch.cat((one.targets, other.targets[depth:])),
        torch.cat((one.weights[:depth] + other.weights[:depth], one.weights[depth:], other.weights[depth:])),
    )
