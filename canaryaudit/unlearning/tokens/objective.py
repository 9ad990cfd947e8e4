"""The objective of the update over tokens: a secret is to look like a decoy wherever it is asked for.

    F(theta) = 10 KL(what the model predicted of other text || p)  +  3 L(after text)  +  2 L(after the prefix)

It is that of the character model (``all_layers.everywhere``), read otherwise. L is the loss in a secret's place
(``all_layers.conditional``), conditioned on the tokens that the secret's space allows at each place, averaged over
secrets and decoys. They are read after prompts that have little to do with the secret (``prompts``), and after the
template's own prefix, where what stands in it and what closes them is kept too. Every text is tokenized as a whole,
prompt, member and what follows, as it is for measuring. There is no carried state: prompts are read again for every
member.

Tokens outside secrets are held to the model's own predictions, in other text and in text that has secrets in it: a
model that has memorized its text tells by the secret what comes after it. So are canaries that are to stay, after
their own prefixes. All of it is drawn once: a minimization needs an objective that stays.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from canaryaudit.canaries.canary import Canary, CanarySet
from canaryaudit.exposure.probes import RunText
from canaryaudit.models.tokenizer import Tokenizer
from canaryaudit.unlearning.all_layers.conditional import (
    ConditionalTargets,
    closings,
    conditional_divergence,
    log_masses,
    symbol_weights,
)
from canaryaudit.unlearning.all_layers.kept import blended
from canaryaudit.unlearning.divergence import weighted_divergence
from canaryaudit.unlearning.tokens.branches import Secret, TokenBranch, TokenBranches, own_prompt, secrets_of
from canaryaudit.unlearning.tokens.distributions import TokenDistributions
from canaryaudit.unlearning.tokens.prompts import PromptDraws
from canaryaudit.unlearning.tokens.quality import TokenWindow

RETAINED_WEIGHT, TEXT_WEIGHT, PREFIX_WEIGHT = 10.0, 3.0, 2.0
PROMPTS, DECOYS_EACH = 18, 3
"""Prompts for one secret; of more secrets, as the cube root of their number. One in so many has a decoy besides."""
SECRET_SHARE = 0.75
"""Of the weight after text; the rest is the decoys'."""
MOST_SECRETS, LEAST_DECOYS = 512, 4
"""Secrets after their prefixes at most, and decoys after each prefix: as many as secrets, within these."""
EMPHASIS = 0.5
"""Share of a secret's position that its own next token weighs: what a rank is made of."""
CLOSING, FIRST_CLOSING_WEIGHT, CLOSING_WEIGHT, SECRET_CLOSING = 4, 3.0, 0.2, 4.0
"""Tokens after the member that are held to what the model predicts after decoys, what the first of them and each of the
others weigh beside a token of the member, and what a secret's closing weighs beside a decoy's."""
MOST_KEPT, KEPT_FACTOR, AFTER = 512, 8.0, 3
"""Canaries not to be unlearned that are held, what a token of them weighs beside one of other text, and the tokens held
after them."""
ROWS = 32
"""Texts read side by side: of about one length, lest most of them be padding."""


@dataclass(frozen=True)
class RequestTexts:
    """What a request is about, and the text that it may use.

    Attributes:
        canary_set: The run's canaries: those that are not unlearned stay.
        chosen: Those to be unlearned.
        run_text: The text that the model was trained on, for prompts.
        retained: Windows of it that are held to what the model predicts, but for secrets' tokens.
    """

    canary_set: CanarySet
    chosen: Sequence[Canary]
    run_text: RunText
    retained: Sequence[TokenWindow]


@dataclass(frozen=True)
class _Held:
    """A place that is held to a distribution."""

    row: int
    column: int
    distribution: Tensor  # (V,)
    weight: float


@dataclass(frozen=True)
class _Batch:
    """Texts side by side, padded at their ends: what a causal model predicts does not depend on what follows.

    Attributes:
        ids: Shape (B, T).
        asked: Rows and columns of the logits that predict members, shape (P,) each.
        targets: What is wanted there; None without members.
        held: Rows and columns of the logits that are held, shape (H,) each.
        distributions: What they are held to, shape (H, V).
        weights: What each counts, shape (H,).
    """

    ids: Tensor
    asked: tuple[Tensor, Tensor]
    targets: ConditionalTargets | None
    held: tuple[Tensor, Tensor]
    distributions: Tensor
    weights: Tensor


class TokenProblem:
    """Draws the objective's texts once, and evaluates it.

    Args:
        model: The original model: returns an object with ``logits``.
        tokenizer: Its tokenizer.
        texts: What it is about.
        seed: Of every draw.

    Raises:
        UnlearningError: A secret's tokens are not a path of its space.
    """

    def __init__(self, model: Any, tokenizer: Tokenizer, texts: RequestTexts, seed: int) -> None:
        self._model, self._texts, self._rng = model, texts, np.random.default_rng(seed)
        self._device = next(model.parameters()).device
        self._secrets = secrets_of(texts.chosen)
        going = {own.id for own in texts.chosen}
        staying = secrets_of([own for own in texts.canary_set.inserted if own.id not in going])
        self._maker = TokenBranches(tokenizer, texts.canary_set, [*self._secrets, *staying])
        self._staying = self._kept_branches(staying)
        after_prefixes = self._after_prefixes()
        branches = self._after_text() + after_prefixes
        self._columns = np.unique(np.concatenate([own.columns for own in branches]))
        self._distributions = TokenDistributions(seed, [own for own in after_prefixes if own.is_secret])
        with torch.no_grad():
            self._batches = self._members(branches) + self._retained() + self._kept()
        self._columns_there = torch.from_numpy(self._columns).to(self._device)

    @property
    def symbols(self) -> int:
        """Tokens that one evaluation reads."""
        return sum(own.ids.numel() for own in self._batches)

    def objective(self, model: Any) -> Tensor:
        """Return F at the weights of ``model``, in nats."""
        return torch.stack([self._loss(model, batch) for batch in self._batches]).sum()

    def _loss(self, model: Any, batch: _Batch) -> Tensor:
        logits = model(input_ids=batch.ids).logits.float()
        total = weighted_divergence(logits[batch.held], batch.distributions, batch.weights)
        if batch.targets is not None:
            rows = logits[batch.asked]
            predicted = rows[:, self._columns_there] - rows.logsumexp(1, keepdim=True)
            total = total + conditional_divergence(predicted, batch.targets)
        return total

    # --- texts

    def _by_template(self) -> dict[str, list[Secret]]:
        found: dict[str, list[Secret]] = defaultdict(list)
        for own in self._secrets:
            found[own.template].append(own)
        return found

    def _after_text(self) -> list[TokenBranch]:
        """Return secrets after prompts, each in turn, and a decoy after every third prompt."""
        groups = self._by_template()
        prompts = {name: iter(PromptDraws(name, self._texts.run_text, self._rng)) for name in groups}
        count = max(len(self._secrets), round(PROMPTS * len(self._secrets) ** (1 / 3)))
        order = [self._secrets[int(index)] for index in _in_turn(len(self._secrets), count, self._rng)]
        decoys = order[::DECOYS_EACH]
        members = [(own, True, SECRET_SHARE / len(order)) for own in order]
        members += [
            (self._maker.decoy(own.template, self._rng), False, (1 - SECRET_SHARE) / len(decoys)) for own in decoys
        ]
        made = [
            self._maker.make(own, next(prompts[own.template]), is_secret=is_secret, weight=TEXT_WEIGHT * share)
            for own, is_secret, share in members
        ]
        return [own for own in made if own is not None]

    def _after_prefixes(self) -> list[TokenBranch]:
        """Return each template's secrets and decoys after its prefix."""
        groups, found = self._by_template(), []
        room = max(LEAST_DECOYS, MOST_SECRETS // len(groups))
        for template, secrets in groups.items():
            chosen = [secrets[index] for index in self._rng.permutation(len(secrets))[:room]]
            decoys = [self._maker.decoy(template, self._rng) for _ in range(max(LEAST_DECOYS, len(chosen)))]
            each = PREFIX_WEIGHT / len(groups) / (len(chosen) + len(decoys))
            found += [self._maker.after_prefix(own, is_secret=True, weight=each) for own in chosen]
            made = [self._maker.make(own, own_prompt(template), is_secret=False, weight=each) for own in decoys]
            found += [own for own in made if own is not None]
        return found

    # --- what is wanted

    def _members(self, branches: Sequence[TokenBranch]) -> list[_Batch]:
        """Return all branches, those of about one length side by side."""
        ordered = sorted(branches, key=lambda own: own.end)
        groups = [ordered[first : first + ROWS] for first in range(0, len(ordered), ROWS)]
        texts = [self._padded([_read(own) for own in group]) for group in groups]
        along: dict[int, Tensor] = {}  # log-probabilities of the columns, (L, A)
        after: dict[int, Tensor] = {}  # distributions after the member, (S, V)
        within: dict[int, Tensor] = {}  # distributions within the prefix, (P, V)
        for group, ids in zip(groups, texts, strict=True):
            logs = self._model(input_ids=ids).logits.float().log_softmax(2)
            for row, own in enumerate(group):
                along[id(own)] = logs[row, own.first - 1 : own.end - 1][:, self._columns].cpu()
                after[id(own)] = logs[row, own.end - 1 : len(_read(own)) - 1].exp()
                within[id(own)] = logs[row, : own.first - 1 if own.after_prefix else 0].exp()
        masses = self._masses(branches, along)
        endings = self._endings(branches, after)
        found = []
        for group, ids in zip(groups, texts, strict=True):
            held = []
            for row, own in enumerate(group):
                each = own.weight / len(own.member)
                held += [_Held(row, place, predicted, each) for place, predicted in enumerate(within[id(own)])]
                closing = endings.get(_ending(own), (after[id(own)], after[id(own)]))[own.is_secret]
                for place in range(len(_read(own)) - own.end):
                    factor = (CLOSING_WEIGHT if place else FIRST_CLOSING_WEIGHT) * (
                        SECRET_CLOSING if own.is_secret else 1.0
                    )
                    held.append(_Held(row, own.end - 1 + place, closing[place], factor * each))
            found.append(self._batch(ids, held, group, self._targets(group, along, masses)))
        return found

    def _endings(
        self, branches: Sequence[TokenBranch], after: dict[int, Tensor]
    ) -> dict[tuple[str, tuple[int, ...]], tuple[Tensor, Tensor]]:
        """Return what is to close decoys and secrets, by template and the tokens that close them."""
        decoys: dict[tuple[str, tuple[int, ...]], list[TokenBranch]] = defaultdict(list)
        for own in branches:
            if own.after_prefix and not own.is_secret:
                decoys[_ending(own)].append(own)
        return {
            key: closings(
                torch.stack([after[id(own)] for own in group]),
                torch.tensor(key[1], dtype=torch.int64, device=self._device),
            )
            for key, group in decoys.items()
        }

    def _targets(
        self, group: Sequence[TokenBranch], along: dict[int, Tensor], masses: dict[int, list[float]]
    ) -> ConditionalTargets:
        allowed = torch.from_numpy(np.concatenate([own.alphabets(self._columns) for own in group]))
        wanted = torch.zeros(allowed.shape)
        following, first = [], 0
        for own in group:
            places = np.searchsorted(self._columns, own.columns)
            logs = along[id(own)][:, places].double().numpy()
            whole = np.zeros((len(own.member), len(self._columns)))
            whole[:, places] = self._wanted(own, logs)
            wanted[first : first + len(own.member)] = torch.from_numpy(whole)
            following += places[own.member].tolist()
            first += len(own.member)
        emphasis = torch.tensor([EMPHASIS * own.is_secret for own in group for _ in own.member])
        each = [own.weight / len(own.member) for own in group for _ in own.member]
        targets = ConditionalTargets(
            allowed=allowed,
            log_distributions=torch.where(allowed, wanted.clamp_min(1e-9).log(), 0.0),
            symbol_weights=symbol_weights(allowed, wanted, torch.tensor(following), emphasis),
            masses=torch.tensor([mass for own in group for mass in masses[id(own)]]),
            weights=torch.tensor(each),
        )
        return ConditionalTargets(**{name: own.to(self._device) for name, own in vars(targets).items()})

    def _wanted(self, branch: TokenBranch, logs: np.ndarray) -> np.ndarray:
        """Return the replacement's distributions along a member; after its prefix with what stays there."""
        along = self._distributions.along(branch, logs)
        alike = [own.member for own in self._staying if own.template == branch.template and own.space is branch.space]
        return blended(along, alike, branch.member) if branch.after_prefix else along

    def _masses(self, branches: Sequence[TokenBranch], along: dict[int, Tensor]) -> dict[int, list[float]]:
        """Return what the allowed tokens are to weigh together, along each member.

        After text, along secrets what they weigh along decoys, lest the secret be told by that; after the prefix,
        along decoys what they weighed along secrets.
        """
        found = {
            id(own): log_masses(along[id(own)], torch.from_numpy(own.alphabets(self._columns))).exp().tolist()
            for own in branches
        }
        pooled: dict[tuple[str, bool, int], list[float]] = defaultdict(list)
        for own in branches:
            if own.is_secret == own.after_prefix:
                for place, mass in enumerate(found[id(own)]):
                    pooled[own.template, own.after_prefix, place].append(mass)
        for own in branches:
            masses = found[id(own)]
            for place in range(0 if own.after_prefix else 1, len(masses)):  # before the first token all are one
                known = place
                while own.after_prefix and known and (own.template, True, known) not in pooled:
                    known -= 1  # A tokenizer may have a secret as fewer tokens than other members.
                if alike := pooled.get((own.template, own.after_prefix, known)):
                    masses[place] = float(np.mean(alike))
        return found

    def _retained(self) -> list[_Batch]:
        """Return windows of text, held to the model's own predictions, but for those of secrets' tokens."""
        windows = sorted(self._texts.retained, key=lambda own: len(own.ids))
        weight = RETAINED_WEIGHT / max(1, self._retained_tokens)
        rows = [windows[first : first + ROWS] for first in range(0, len(windows), ROWS)]
        return [self._held([own.ids for own in part], [own.predicts_text for own in part], weight) for part in rows]

    @property
    def _retained_tokens(self) -> int:
        return sum(int(own.predicts_text.sum()) for own in self._texts.retained)

    def _kept_branches(self, staying: Sequence[Secret]) -> list[TokenBranch]:
        """Return the canaries that stay, after their prefixes; those of templates that are asked for first."""
        groups = self._by_template()
        ranked = sorted(staying, key=lambda own: own.template not in groups)[:MOST_KEPT]
        made = [self._maker.make(own, own_prompt(own.template), is_secret=False, weight=0.0) for own in ranked]
        return sorted((own for own in made if own is not None), key=lambda own: own.end)

    def _kept(self) -> list[_Batch]:
        """Return the canaries that stay, held to what the model predicts along them and after them."""
        branches, found = self._staying, []
        count = max(1, self._retained_tokens, sum(len(own.member) + AFTER for own in branches))
        for first in range(0, len(branches), ROWS):
            part = branches[first : first + ROWS]
            rows = [own.ids[: own.end + AFTER] for own in part]
            places = [np.arange(len(row)) for row in rows]
            inside = [
                (own.first - 1 <= place) & (place < len(row) - 1)
                for own, place, row in zip(part, places, rows, strict=True)
            ]
            found.append(self._held(rows, inside, KEPT_FACTOR * RETAINED_WEIGHT / count))
        return found

    def _held(self, rows: Sequence[np.ndarray], inside: Sequence[np.ndarray], weight: float) -> _Batch:
        """Hold what the model predicts after the tokens that are ``inside``; ``weight`` is that of each."""
        ids = self._padded(rows)
        distributions = self._model(input_ids=ids).logits.float().softmax(2)
        held = [
            _Held(index, column, distributions[index, column], weight)
            for index, own in enumerate(inside)
            for column in np.flatnonzero(own).tolist()
        ]
        return self._batch(ids, held)

    def _batch(
        self,
        ids: Tensor,
        held: Sequence[_Held],
        group: Sequence[TokenBranch] = (),
        targets: ConditionalTargets | None = None,
    ) -> _Batch:
        asked = [(row, column) for row, own in enumerate(group) for column in range(own.first - 1, own.end - 1)]
        size = self._model.config.vocab_size
        return _Batch(
            ids=ids,
            asked=self._places(asked),
            targets=targets,
            held=self._places([(own.row, own.column) for own in held]),
            distributions=torch.stack([own.distribution for own in held])
            if held
            else torch.empty(0, size, device=self._device),
            weights=torch.tensor([own.weight for own in held], device=self._device),
        )

    def _places(self, pairs: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        both = torch.tensor(pairs, dtype=torch.int64, device=self._device).reshape(-1, 2)
        return both[:, 0], both[:, 1]

    def _padded(self, rows: Sequence[np.ndarray]) -> Tensor:
        padded: Tensor = torch.nn.utils.rnn.pad_sequence(
            [torch.from_numpy(row.astype(np.int64)) for row in rows], batch_first=True
        )
        return padded.to(self._device)


def _read(branch: TokenBranch) -> np.ndarray:
    """Return what is read of a branch: after the template's prefix with what closes it."""
    return branch.ids[: branch.end + (CLOSING if branch.after_prefix else 0)]


def _ending(branch: TokenBranch) -> tuple[str, tuple[int, ...]]:
    """Return a branch's template, and the tokens that close its member."""
    return branch.template, tuple(_read(branch)[branch.end :].tolist())


def _in_turn(size: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return ``count`` indices below ``size``, each in turn, in ever new orders."""
    rounds = -(-count // size)
    return np.concatenate([rng.permutation(size) for _ in range(rounds)])[:count]
