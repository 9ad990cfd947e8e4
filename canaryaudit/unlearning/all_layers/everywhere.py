"""The objective of the default update: a secret is to look like a decoy wherever it is asked for.

    F(theta) = 10 KL(what the model predicted of other text || p)  +  3 L(after text)  +  2 L(after the prefix)

L is the loss in a secret's place (see ``conditional``), averaged over secrets and decoys. They are read after text that
has nothing to do with them, some of them after the end of the template's prefix, some from the middle on; and after
the prefix itself, where what closes them is kept too. All of it is drawn once: a minimization needs an objective that
stays. What the alphabet is to weigh together along a secret is what it weighs along decoys, lest the secret be told by
that; after the template's prefix, what it weighed along the secret.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from canaryaudit.exposure.encoded_space import PAD
from canaryaudit.models.char_lstm import CharLSTM
from canaryaudit.models.device import autocast
from canaryaudit.unlearning.all_layers.branches import (
    Batch,
    Branch,
    alphabets,
    batch_of,
    positions,
    side_by_side,
)
from canaryaudit.unlearning.all_layers.conditional import conditional_loss, log_masses
from canaryaudit.unlearning.all_layers.contexts import ENDS, Contexts, States, branch_features
from canaryaudit.unlearning.decoys import Decoys
from canaryaudit.unlearning.divergence import weighted_divergence
from canaryaudit.unlearning.method import MethodInput
from canaryaudit.unlearning.occurrences import Occurrence, completion_mask

WINDOWS = 14
"""Windows of text that contexts are cut from, for one canary; of more, as the cube root of their number."""
DECOYS_EACH = 2
"""One context in so many has a decoy beside the secret."""
LEAD_SHARES = {"symbol": 0.35, "part": 0.2, "whole": 0.1}
"""Branches that begin with an end of the template's prefix: its last symbol (mostly a space: an attacker's words are
whole), a part of it, all of it."""
INSIDE_SHARE = 0.3
"""Branches that begin in the member's middle: part of a secret may be known."""
SECRET_SHARE = 0.75
"""Of the weight after text; the rest is the decoys'."""
MOST_SECRETS, FEW = 24, 10
"""Secrets after their prefixes, of all templates together, for up to ``FEW`` canaries; of more, as the root of their
number. No fewer than four each."""
PREFIX_DECOYS = 12
"""Decoys after the prefixes, together: half uniform draws, a quarter draws from the replacement's own distribution, and
a quarter the likeliest of all, which the model will mostly say, and which must end as the text does."""
CLOSING, FIRST_CLOSING_WEIGHT, CLOSING_WEIGHT = 5, 3.0, 0.2
"""Symbols after the member that are held to the text's own, and what the first of them and each of the others weigh
beside a symbol of the member."""
RETAINED_WEIGHT, TEXT_WEIGHT, PREFIX_WEIGHT, OTHERS_WEIGHT = 10.0, 3.0, 2.0, 3.0
OTHERS, BEFORE, AFTER = 48, 32, 6
"""Places of other canaries that are held to what the model predicts, and the symbols before and after them."""


@dataclass(frozen=True)
class _Kept:
    """Text that is held to what the original model predicts there, shapes (B, T), (B, T, V), (B, T)."""

    symbols: Tensor
    targets: Tensor
    weights: Tensor


@dataclass(frozen=True)
class _AfterPrefix:
    """One template's prefix, what branches off it, and what is kept after the members."""

    prefix: Contexts
    batch: Batch
    closing: _Kept


class EverywhereProblem:
    """Draws the objective's text once, and evaluates it.

    Args:
        given: The request.
        decoys: What takes the secrets' place.
    """

    def __init__(self, given: MethodInput, decoys: Decoys) -> None:
        self.decoys, self.rng, self.device = decoys, given.rng, given.data.train.device
        self.precision, self.model = given.config.precision, given.model
        self._places = list({place.canary.id: place for place in given.places}.values())
        with torch.no_grad(), autocast(self.device, self.precision):
            self._text = self._draw_text(given.retained)
            self._contexts_kept = self._keep(self._text.symbols, RETAINED_WEIGHT) if len(self._text) else None
            self._after_text = self._draw_after_text() if len(self._text) else []
            self._others = self._draw_others(given)
            self._after_prefix = self._draw_after_prefixes()

    @property
    def symbols(self) -> int:
        """Symbols that one evaluation reads."""
        own = [part.batch.symbols.numel() + part.prefix.symbols.numel() for part in self._after_prefix]
        batches = sum(batch.symbols.numel() for batch in self._after_text)
        others = 0 if self._others is None else self._others.symbols.numel()
        return self._text.symbols.numel() + batches + others + sum(own)

    def objective(self, model: CharLSTM) -> Tensor:
        """Return F at the weights of ``model``, in nats."""
        total = model.output.weight.new_zeros(())
        with autocast(self.device, self.precision):
            if self._contexts_kept is not None:
                states = self._text.read(model)
                total = total + _held(model.output(states.features), self._contexts_kept)
                for batch in self._after_text:
                    total = total + conditional_loss(batch.logits(model, states)[0].float(), batch.targets)
            if self._others is not None:
                total = total + _held(model(self._others.symbols), self._others)
            for own in self._after_prefix:
                logits, features = own.batch.logits(model, own.prefix.read(model))
                total = total + conditional_loss(logits.float(), own.batch.targets)
                total = total + _held(model.output(features), own.closing)
        return total

    def _draw_text(self, retained: Tensor) -> Contexts:
        count = round(WINDOWS * len(self._places) ** (1 / 3))
        ends = tuple(end for end in ENDS if end < retained.shape[1])
        chosen = retained[torch.from_numpy(self.rng.permutation(len(retained))[:count])]
        if not ends or not len(chosen):
            return Contexts(retained[:0], ends)
        first = int(self.rng.integers(0, retained.shape[1] - ends[-1]))
        return Contexts(chosen[:, first : first + ends[-1]].contiguous(), ends)

    def _draw_after_text(self) -> list[Batch]:
        """Return branches after every context: without and with an end of the prefix before them."""
        secrets, others, branches = self._in_turn(), self._in_turn(), []
        for context in range(len(self._text)):
            branches.append(self._branch(next(secrets), context, secret=True))
            if context % DECOYS_EACH == 0:
                branches.append(self._branch(next(others), context, secret=False))
        states = self._text.read(self.model)
        masses = [self._log_masses(states, own) for own in branches]
        pooled: dict[tuple[str, int], list[float]] = defaultdict(list)
        for own, found in zip(branches, masses, strict=True):
            if not own.secret:
                for index, mass in enumerate(found):
                    pooled[own.place.canary.template, index].append(mass)
        for own, found in zip(branches, masses, strict=True):
            for index in range(1, len(found)):  # before the first symbol secrets and decoys are one
                if alike := pooled.get((own.place.canary.template, index)):
                    found[index] = float(np.mean(alike))
        batches = []
        for group in (False, True):
            chosen = [index for index, own in enumerate(branches) if (len(own.lead) > 1) is group]
            if chosen:
                wanted = torch.tensor([mass for index in chosen for mass in masses[index]]).exp()
                batches.append(batch_of([branches[index] for index in chosen], self.decoys, wanted, self.device))
        return batches

    def _branch(self, place: Occurrence, context: int, *, secret: bool) -> Branch:
        rng = self.rng
        member = place.secret if secret else self._decoy(place)
        lengths = {"symbol": 1, "part": int(rng.integers(1, len(place.prefix) + 1)), "whole": len(place.prefix)}
        kind = rng.choice([*LEAD_SHARES, "none"], p=[*LEAD_SHARES.values(), 1 - sum(LEAD_SHARES.values())])
        lead = place.prefix[len(place.prefix) - lengths.get(str(kind), 0) :]
        first = int(rng.integers(1, len(member) - 3)) if len(member) > 4 and rng.random() < INSIDE_SHARE else 0
        count = len(self._text)
        share = SECRET_SHARE / count if secret else (1 - SECRET_SHARE) / -(-count // DECOYS_EACH)
        return Branch(place, member, secret, context, lead, first, lead[:0], TEXT_WEIGHT * share)

    def _log_masses(self, states: States, branch: Branch) -> list[float]:
        symbols, origins = (part.to(self.device) for part in side_by_side([branch]))
        rows, columns = positions([branch])
        logits = self.model.output(branch_features(self.model, states, symbols, origins)[rows, columns])
        found: list[float] = log_masses(logits.float().log_softmax(1), alphabets([branch]).to(self.device)).tolist()
        return found

    def _draw_after_prefixes(self) -> list[_AfterPrefix]:
        """Return each template's secrets and decoys after its prefix, and after them what closes them."""
        by_template: dict[str, list[Occurrence]] = defaultdict(list)
        for place in self._places:
            by_template[place.canary.template].append(place)
        room = round(MOST_SECRETS * max(1.0, len(self._places) / FEW) ** 0.5)
        return [self._after_template(own, len(by_template), room) for own in by_template.values()]

    def _after_template(self, places: Sequence[Occurrence], templates: int, room: int) -> _AfterPrefix:
        chosen = [places[index] for index in self.rng.permutation(len(places))[: max(4, room // templates)]]
        draws = (
            lambda: self._decoy(places[0]),
            lambda: self.decoys.likely(places[0], self.rng),
            lambda: self._decoy(places[0]),
            lambda: self.decoys.likeliest(places[0]),
        )
        decoys = [draws[index % len(draws)]() for index in range(max(len(draws), PREFIX_DECOYS // templates))]
        each = max(1.0, 4.0 / len(chosen))  # the secrets together weigh as much as four decoys, or each as much as one
        shares = np.array([each] * len(chosen) + [1.0] * len(decoys))
        weights = PREFIX_WEIGHT * shares / shares.sum() / templates
        members = [(place, place.secret, True) for place in chosen] + [(places[0], own, False) for own in decoys]
        nothing = np.empty(0, dtype=np.int64)
        branches = [
            Branch(place, own, secret, 0, nothing, 0, place.suffix[:CLOSING], weight)
            for (place, own, secret), weight in zip(members, weights.tolist(), strict=True)
        ]
        known = {place.canary.id: self._known(place) for place in chosen}
        masses, symbols = [], side_by_side(branches)[0]
        size = len(self.model.architecture.vocabulary)
        targets, kept = torch.full((*symbols.shape, size), 1 / size), torch.zeros(symbols.shape)
        for index, own in enumerate(branches):
            distributions = known.get(own.place.canary.id, next(iter(known.values())))
            end = len(own.place.secret)
            along = distributions[[min(at, end - 1) for at in range(len(own.member))]]
            masses.append((along * alphabets([own])).sum(1))
            closed = slice(own.span.stop, own.span.stop + len(own.closing))
            targets[index, closed] = distributions[end : end + len(own.closing)]
            kept[index, closed] = CLOSING_WEIGHT * own.weight / len(own.member)
            kept[index, closed.start : closed.start + 1] = FIRST_CLOSING_WEIGHT * own.weight / len(own.member)
        prefix = Contexts(torch.from_numpy(places[0].prefix).long()[None].to(self.device), (len(places[0].prefix),))
        batch = batch_of(branches, self.decoys, torch.cat(masses), self.device)
        return _AfterPrefix(prefix, batch, _Kept(batch.symbols, targets.to(self.device), kept.to(self.device)))

    def _known(self, place: Occurrence) -> Tensor:
        """Return what the original model predicts for each symbol of a secret and its closing, shape (L + S, V)."""
        whole = np.concatenate((place.prefix, place.secret, place.suffix[:CLOSING])).astype(np.int64)
        logits = self.model(torch.from_numpy(whole)[None].to(self.device))[0]
        found: Tensor = logits.float().softmax(1)[len(place.prefix) - 1 : -1].cpu()
        return found

    def _draw_others(self, given: MethodInput) -> _Kept | None:
        """Return places of canaries that are not to be forgotten, with the text around them; None without such."""
        if not given.config.retain_windows:
            return None
        secret = given.data.secret.cpu().numpy()
        going = completion_mask(len(secret), given.places)
        others = np.flatnonzero(np.diff(np.concatenate(([0], (secret & ~going).astype(np.int8)))) == 1)
        rows = []
        for start in self.rng.permutation(others)[:OTHERS]:
            end = start + int(np.argmin(np.append(secret[start:], False)))
            first = max(0, start - BEFORE)
            if not going[first : end + AFTER].any():
                rows.append(given.data.train[first : end + AFTER].long())
        if not rows:
            return None
        lengths = torch.tensor([len(row) for row in rows])
        symbols = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        inside = torch.arange(symbols.shape[1])[None] < lengths[:, None] - 1
        return self._keep(symbols, OTHERS_WEIGHT, inside.to(self.device))

    def _keep(self, symbols: Tensor, weight: float, inside: Tensor | None = None) -> _Kept:
        """Return text with the original model's own predictions as targets; ``weight`` is that of all of it."""
        targets = self.model(symbols).float().softmax(2)
        inside = torch.ones_like(symbols, dtype=torch.bool) if inside is None else inside
        return _Kept(symbols, targets, weight * inside / inside.sum())

    def _decoy(self, place: Occurrence) -> np.ndarray:
        drawn = place.space.sample(1, self.rng)[0]
        member: np.ndarray = drawn[drawn != PAD].astype(np.int64)
        return member

    def _in_turn(self) -> Iterator[Occurrence]:
        """Yield the canaries' places, each canary in turn, in ever new orders."""
        while True:
            for index in self.rng.permutation(len(self._places)):
                yield self._places[index]


def _held(logits: Tensor, kept: _Kept) -> Tensor:
    return weighted_divergence(logits.float(), kept.targets, kept.weights)
