"""The objective of the default update: a secret is to look like a decoy wherever it is asked for.

    F(theta) = 10 KL(what the model predicted of other text || p)  +  3 L(after text)  +  2 L(after the prefix)

L is the loss in a secret's place (see ``conditional``), averaged over secrets and decoys. They are read after text that
has nothing to do with them, some of them after the end of the template's prefix, some from the middle on; and after the
prefix itself, where what closes them is kept too: as it was predicted after decoys, lest a secret be confirmed by what
comes after it. All of it is drawn once: a minimization needs an objective that stays. What the alphabet is to weigh
together along a secret is what it weighs along decoys, lest the secret be told by that; after the template's prefix,
what it weighed along the secret. Canaries that are to stay are held to what the model predicts along them after their
own prefixes. Where a secret or a decoy begins as some of them do, what is wanted is how they go on: so would a model
predict that was trained without the secret.
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
from canaryaudit.unlearning.all_layers.branches import Batch, Branch, alphabets, batch_of, positions, side_by_side
from canaryaudit.unlearning.all_layers.conditional import closings, conditional_loss, log_masses
from canaryaudit.unlearning.all_layers.contexts import ENDS, Contexts, States, branch_features
from canaryaudit.unlearning.all_layers.kept import KeptCanaries
from canaryaudit.unlearning.decoys import Decoys
from canaryaudit.unlearning.divergence import weighted_divergence
from canaryaudit.unlearning.method import MethodInput
from canaryaudit.unlearning.occurrences import Occurrence

WINDOWS = 18
"""Windows of text that contexts are cut from, for one canary; of more, as the cube root of their number."""
DECOYS_EACH = 2
"""One context in so many has a decoy beside the secret."""
SYMBOL_SHARE, PART_SHARE, LONGEST_PART = 0.4, 0.25, 12
"""Branches that begin with the end of the template's prefix: with its last symbol (mostly a space: an attacker's words
are whole), or with a part of it, of so many symbols at most."""
INSIDE_SHARE = 0.3
"""Branches that begin in the member's middle: part of a secret may be known."""
SECRET_SHARE = 0.75
"""Of the weight after text; the rest is the decoys'."""
MOST_SECRETS, FEW = 24, 10
"""Secrets after their prefixes, of all templates together, for up to ``FEW`` canaries; of more, as the root of their
number. No fewer than four each. Where other canaries stay there, all of them: what is not read would stay too."""
PREFIX_DECOYS = 12
"""Decoys after the prefixes, together: half uniform draws, a quarter draws from the replacement's own distribution, and
a quarter the likeliest of all, which the model will mostly say, and which must end as the text does."""
CLOSING, FIRST_CLOSING_WEIGHT, CLOSING_WEIGHT = 10, 3.0, 0.2
"""Symbols after the member that are held to what was predicted after decoys, and what the first of them and each of the
others weigh beside a symbol of the member."""
CLOSED_DECOYS, SECRET_CLOSING = 64, 4.0
"""Decoys whose closings are averaged, and what a secret's closing weighs beside a decoy's."""
RETAINED_WEIGHT, TEXT_WEIGHT, PREFIX_WEIGHT = 10.0, 3.0, 2.0
MOST_KEPT, KEPT_FACTOR, AFTER = 512, 3.0, 6
"""Canaries not to be forgotten that are held to what the model predicts, what a symbol of them weighs beside one of
other text, and the symbols held after them."""


@dataclass(frozen=True)
class _Held:
    """Positions that are held to what the original model predicts there.

    Attributes:
        rows: Of the text side by side, shape (P,).
        columns: Of the same.
        targets: Shape (P, V).
        weights: Shape (P,).
    """

    rows: Tensor
    columns: Tensor
    targets: Tensor
    weights: Tensor

    def loss(self, model: CharLSTM, features: Tensor) -> Tensor:
        """Return the divergence from what was predicted, of features of shape (B, T, H)."""
        logits = model.output(features[self.rows, self.columns])
        return weighted_divergence(logits.float(), self.targets, self.weights)


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
        self._kept = KeptCanaries(given.kept, {place.canary.template for place in self._places})
        with torch.no_grad(), autocast(self.device, self.precision):
            self._draw_contexts(given.retained)
            states = self._contexts.read(self.model)
            self._batches = self._draw_batches(states)
            self._others = self._draw_kept(states)

    @property
    def symbols(self) -> int:
        """Symbols that one evaluation reads."""
        batches = sum(batch.symbols.numel() for batch, _ in self._batches)
        others = 0 if self._others is None else self._others[0].numel()
        return self._contexts.symbols.numel() + batches + others

    def objective(self, model: CharLSTM) -> Tensor:
        """Return F at the weights of ``model``, in nats."""
        with autocast(self.device, self.precision):
            states = self._contexts.read(model)
            total = self._contexts_kept.loss(model, states.features)
            for batch, closing in self._batches:
                logits, features = batch.logits(model, states)
                total = total + conditional_loss(logits.float(), batch.targets) + closing.loss(model, features)
            if self._others is not None:
                symbols, origins, held = self._others
                total = total + held.loss(model, branch_features(model, states, symbols, origins))
        return total

    def _draw_contexts(self, retained: Tensor) -> None:
        """Put windows of text and the templates' prefixes side by side: rows of one reading."""
        count = round(WINDOWS * len(self._places) ** (1 / 3))
        self._text_ends = tuple(end for end in ENDS if end < retained.shape[1])
        length = self._text_ends[-1] if self._text_ends else 0
        chosen = retained[torch.from_numpy(self.rng.permutation(len(retained))[:count])] if length else retained[:0]
        first = int(self.rng.integers(0, retained.shape[1] - length)) if length else 0
        self._windows = len(chosen)
        self._prefixes = {place.canary.template: place.prefix for place in (*self._places, *self._kept.places)}
        rows = [*chosen[:, first : first + length], *(torch.from_numpy(own).long() for own in self._prefixes.values())]
        symbols = torch.nn.utils.rnn.pad_sequence([row.to(self.device) for row in rows], batch_first=True)
        ends = {*(self._text_ends if self._windows else ()), *map(len, self._prefixes.values())}
        self._contexts = Contexts(symbols, tuple(sorted(ends)))
        inside = torch.zeros_like(symbols, dtype=torch.bool)
        inside[: self._windows, :length] = True
        self._contexts_kept = self._keep(self.model.features(symbols)[0], inside, RETAINED_WEIGHT)

    def _context(self, row: int, end: int) -> int:
        return self._contexts.ends.index(end) * len(self._contexts.symbols) + row

    def _prefix_context(self, template: str) -> int:
        row = self._windows + list(self._prefixes).index(template)
        return self._context(row, len(self._prefixes[template]))

    def _draw_batches(self, states: States) -> list[tuple[Batch, _Held]]:
        """Return all branches, short ones and long ones side by side, and what is kept after their members."""
        branches = self._branches_after_text() + self._branches_after_prefixes()
        short = max(len(own.secret) for own in self._places) + 1
        groups = [[own for own in branches if (len(own.symbols) > short) is long] for long in (False, True)]
        groups = [group for group in groups if group]
        masses: dict[int, list[float]] = {}
        for group in groups:
            symbols, origins = (part.to(self.device) for part in side_by_side(group))
            rows, columns = positions(group)
            logits = self.model.output(branch_features(self.model, states, symbols, origins)[rows, columns])
            found = log_masses(logits.float().log_softmax(1), alphabets(group).to(self.device)).cpu()
            masses |= {id(own): found[rows == index].tolist() for index, own in enumerate(group)}
        self._pool(branches, masses)
        known = {place.canary.id: self._known(place) for place in self._places}
        endings = {place.canary.template: self._closing(place) for place in self._places}
        return [self._batch(group, masses, known, endings) for group in groups]

    def _batch(
        self,
        group: Sequence[Branch],
        masses: dict[int, list[float]],
        known: dict[str, Tensor],
        endings: dict[str, tuple[Tensor, Tensor]],
    ) -> tuple[Batch, _Held]:
        wanted, rows, columns, targets, weights = [], [], [], [], []
        for index, own in enumerate(group):
            end, predicted = len(own.place.secret), known[own.place.canary.id]
            if not own.after_prefix:
                wanted.append(torch.tensor(masses[id(own)]).exp())
                continue
            along = predicted[[min(at, end - 1) for at in range(len(own.member))]]
            wanted.append((along * alphabets([own])).sum(1))
            for at in range(len(own.closing)):
                rows.append(index)
                columns.append(own.span.stop + at)
                targets.append(endings[own.place.canary.template][own.secret][at])
                factor = (CLOSING_WEIGHT if at else FIRST_CLOSING_WEIGHT) * (SECRET_CLOSING if own.secret else 1.0)
                weights.append(factor * own.weight / len(own.member))
        batch = batch_of(group, self.decoys, torch.cat(wanted), self.device, self._kept)
        size = len(self.model.architecture.vocabulary)
        kept = _Held(
            torch.tensor(rows, dtype=torch.int64, device=self.device),
            torch.tensor(columns, dtype=torch.int64, device=self.device),
            torch.stack(targets).to(self.device) if targets else torch.empty(0, size, device=self.device),
            torch.tensor(weights, device=self.device),
        )
        return batch, kept

    @staticmethod
    def _pool(branches: Sequence[Branch], masses: dict[int, list[float]]) -> None:
        """Let the alphabet weigh along a secret, after text, what it weighs along decoys."""
        pooled: dict[tuple[str, int], list[float]] = defaultdict(list)
        after_text = [own for own in branches if not own.after_prefix]
        for own in after_text:
            for index, mass in enumerate(() if own.secret else masses[id(own)]):
                pooled[own.place.canary.template, index].append(mass)
        for own in after_text:
            found = masses[id(own)]
            for index in range(1, len(found)):  # before the first symbol secrets and decoys are one
                if alike := pooled.get((own.place.canary.template, index)):
                    found[index] = float(np.mean(alike))

    def _branches_after_text(self) -> list[Branch]:
        """Return a secret after every context, and a decoy after some."""
        contexts = [self._context(row, end) for end in self._text_ends for row in range(self._windows)]
        secrets, others, branches = self._in_turn(), self._in_turn(), []
        for index, context in enumerate(contexts):
            branches.append(self._branch(next(secrets), context, SECRET_SHARE / len(contexts), secret=True))
            if index % DECOYS_EACH == 0:
                share = (1 - SECRET_SHARE) / -(-len(contexts) // DECOYS_EACH)
                branches.append(self._branch(next(others), context, share, secret=False))
        return branches

    def _branch(self, place: Occurrence, context: int, share: float, *, secret: bool) -> Branch:
        rng = self.rng
        member = place.secret if secret else self._decoy(place)
        chance, longest = rng.random(), min(LONGEST_PART, len(place.prefix))
        part = int(rng.integers(1, longest + 1))
        length = 1 if chance < SYMBOL_SHARE else part if chance < SYMBOL_SHARE + PART_SHARE else 0
        lead = place.prefix[len(place.prefix) - length :]
        first = int(rng.integers(1, len(member) - 3)) if len(member) > 4 and rng.random() < INSIDE_SHARE else 0
        return Branch(place, member, secret, context, lead, first, lead[:0], False, TEXT_WEIGHT * share)

    def _branches_after_prefixes(self) -> list[Branch]:
        """Return each template's secrets and decoys after its prefix, and after them what closes them."""
        by_template: dict[str, list[Occurrence]] = defaultdict(list)
        for place in self._places:
            by_template[place.canary.template].append(place)
        room = round(MOST_SECRETS * max(1.0, len(self._places) / FEW) ** 0.5) // len(by_template)
        branches = []
        for template, places in by_template.items():
            context = self._prefix_context(template)
            most = max(MOST_KEPT, room) if self._kept.places else room
            chosen = [places[index] for index in self.rng.permutation(len(places))[: max(4, most)]]
            decoys = self._decoys_after_prefix(places[0], max(4, PREFIX_DECOYS // len(by_template)))
            members = [(place, place.secret, True) for place in chosen] + [(places[0], own, False) for own in decoys]
            # The secrets together weigh as much as four decoys, or each as much as one.
            each = max(1.0, 4.0 / len(chosen))
            shares = np.array([each] * len(chosen) + [1.0] * len(decoys))
            weights = PREFIX_WEIGHT * shares / shares.sum() / len(by_template)
            branches += [
                Branch(place, own, secret, context, own[:0], 0, place.suffix[:CLOSING], True, weight)
                for (place, own, secret), weight in zip(members, weights.tolist(), strict=True)
            ]
        return branches

    def _decoys_after_prefix(self, place: Occurrence, count: int) -> list[np.ndarray]:
        draws = (
            lambda: self._decoy(place),
            lambda: self.decoys.likely(place, self.rng),
            lambda: self._decoy(place),
            lambda: self.decoys.likeliest(place),
        )
        return [draws[index % len(draws)]() for index in range(count)]

    def _known(self, place: Occurrence) -> Tensor:
        """Return what the original model predicts for each symbol of a secret, shape (L, V)."""
        whole = np.concatenate((place.prefix, place.secret[:-1])).astype(np.int64)
        logits = self.model(torch.from_numpy(whole)[None].to(self.device))[0]
        found: Tensor = logits.float().softmax(1)[len(place.prefix) - 1 :].cpu()
        return found

    def _closing(self, place: Occurrence) -> tuple[Tensor, Tensor]:
        """Return what is to be predicted for each symbol that closes a decoy, and a secret, shape (S, V) each."""
        decoys = [self._decoy(place) for _ in range(CLOSED_DECOYS)]
        closing = place.suffix[:CLOSING]
        rows = [torch.from_numpy(np.concatenate((place.prefix, own, closing)).astype(np.int64)) for own in decoys]
        features = self.model.features(torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(self.device))[0]
        ends = torch.tensor([len(place.prefix) + len(own) - 1 for own in decoys])
        columns = ends[:, None] + torch.arange(len(closing))
        there = features[torch.arange(len(rows))[:, None], columns]
        distributions = self.model.output(there).float().softmax(2).cpu()
        return closings(distributions, torch.from_numpy(closing.astype(np.int64)))

    def _draw_kept(self, states: States) -> tuple[Tensor, Tensor, _Held] | None:
        """Return the canaries that are not to be forgotten, after their prefixes; None without such.

        A symbol of these weighs as much as ``KEPT_FACTOR`` of other text. Each secret counts once, however often it
        stands there: what was learned from one place is lost the soonest.
        """
        places = self._kept.places
        if not places:
            return None
        chosen = [places[index] for index in self.rng.permutation(len(places))[:MOST_KEPT]]
        rows = [torch.from_numpy(np.concatenate((own.secret, own.suffix[:AFTER])).astype(np.int64)) for own in chosen]
        symbols = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(self.device)
        origins = torch.tensor([self._prefix_context(own.canary.template) for own in chosen], device=self.device)
        inside = torch.arange(symbols.shape[1])[None] < torch.tensor([len(row) for row in rows])[:, None]
        features = branch_features(self.model, states, symbols, origins)
        count = int(inside.sum())
        weight = KEPT_FACTOR * RETAINED_WEIGHT * count / max(len(self._contexts_kept.rows), count)
        return symbols, origins, self._keep(features, inside.to(self.device), weight)

    def _keep(self, features: Tensor, inside: Tensor, weight: float) -> _Held:
        """Hold positions to the original model's own predictions; ``weight`` is that of all of them."""
        rows, columns = inside.nonzero(as_tuple=True)
        targets = self.model.output(features[rows, columns]).float().softmax(1)
        each = weight / max(1, len(rows))
        return _Held(rows, columns, targets, torch.full((len(rows),), each, device=self.device))

    def _decoy(self, place: Occurrence) -> np.ndarray:
        drawn = place.space.sample(1, self.rng)[0]
        member: np.ndarray = drawn[drawn != PAD].astype(np.int64)
        return member

    def _in_turn(self) -> Iterator[Occurrence]:
        """Yield the canaries' places, each canary in turn, in ever new orders."""
        while True:
            for index in self.rng.permutation(len(self._places)):
                yield self._places[index]
