"""Small steps over all layers, preconditioned by what the layers see of other text.

Every step lowers, on freshly drawn rows of text,

    F(theta) = sum_i w_i KL(t_i || p_theta(i))

where t is the replacement's law in the secrets' places, along decoys and along the secrets themselves, and what the
original model predicts everywhere else. A gradient G of a weight matrix that is multiplied with inputs x is turned to
G A^(-1/2), and so is the step that Adam makes of it, with A = E[x x'] + lambda tr(E[x x'])/n I over retained text, the
input factor of the Kronecker-factored curvature (Martens & Grosse 2015; alone: Benzing 2022). What other text's inputs
span hardly moves, and the secret is forgotten along the rest.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from canaryaudit.models.char_lstm import CharLSTM
from canaryaudit.models.device import autocast
from canaryaudit.progress import ProgressReporter
from canaryaudit.records import UpdateStep
from canaryaudit.unlearning.decoys import Decoys, distributions_along
from canaryaudit.unlearning.divergence import weighted_divergence
from canaryaudit.unlearning.occurrences import Occurrence, Surroundings, in_turn
from canaryaudit.unlearning.replacement import Replacement

STEPS = 12
"""Steps of a request of up to ``FEW`` canaries. Of more, the steps, and in each the rows of secrets and of other text,
grow with the root of their number, so that what a canary costs stays about the same."""
FEW = 10
LEARNING_RATE = 0.35
"""Of Adam, in the preconditioned weights, for each of a layer's units: what a step does to a unit is a sum over its
inputs, so that wider layers take smaller steps. It falls to zero over the last part of the steps."""
FALLING_SHARE = 0.4
MOMENTS = (0.9, 0.999)
CLIP = 1.0
"""Largest norm of the gradient, as in training."""
INPUT_DAMPING = 0.03
"""lambda: inputs that are rarer than this share of the average one are moved along no further."""
LENGTH = 56
"""Symbols of a row: a step takes as long as its rows are, much more than as they are many."""
BARE_DECOYS, DEEP_DECOYS = 12, 4
"""Decoys in one step after the template's prefix alone, as an attacker types it, and after text that precedes. Half of
them are uniform draws and half are drawn from the law, for what the model will mostly say must end as the text does."""
BARE_SECRETS, DEEP_SECRETS = 16, 2
"""Rows of secrets themselves; after the bare prefix no more than there are canaries."""
BARE_SECRET_WEIGHT, DEEP_SECRET_WEIGHT = 4.0, 0.5
"""Weight of a step's secrets beside 1 for a decoy: after the bare prefix together, but no less than 1 each; after text
each."""
RETAINED_ROWS = 10
RETAINED_WEIGHT = 10.0
"""Weight of the retained positions together, beside 1 for the secrets' places and their ends."""
AROUND_WEIGHT = 0.2
"""The same of the positions around the secrets."""
_READ_AT_ONCE = 256


@dataclass(frozen=True)
class SequenceBatch:
    """Text side by side, and the law of what follows each symbol.

    Attributes:
        symbols: Shape (B, T), padded at the end.
        targets: t, shape (B, T, V).
        weights: w, shape (B, T); 0 where a row is padded.
    """

    symbols: Tensor
    targets: Tensor
    weights: Tensor


@dataclass(frozen=True)
class StepResult:
    """What the steps did.

    Attributes:
        steps: The steps, with their health.
        symbols: Symbols that gradients were taken over.
    """

    steps: tuple[UpdateStep, ...]
    symbols: int


@dataclass(frozen=True)
class _Row:
    """One row of a step, as in ``SequenceBatch``; ``own`` weighs the secret's place and its end, and is 0 around it."""

    symbols: Tensor
    targets: Tensor
    own: Tensor


@dataclass(frozen=True)
class _Around:
    """What stands before one reading of a secret, and what the original model predicts around it."""

    context: Tensor
    before: Tensor
    after: Tensor


class PreconditionedProblem:
    """Draws the rows of one step after another.

    Args:
        model: The original model, which tells what is to be retained.
        text: The audited text, shape (N,).
        places: Where the secrets stand.
        replacement: What is to take their place.
        retained: Windows of other text, shape (W, T + 1).
        precision: ``fp32`` or ``bf16``.
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
        precision: str,
        rng: np.random.Generator,
    ) -> None:
        self.model, self.device, self.replacement = model, text.device, replacement
        self.precision, self.rng = precision, rng
        self._surroundings, self._turns = Surroundings(text, places), in_turn(places, rng)
        names = list(dict.fromkeys(place.canary.id for place in places))
        growth = math.sqrt(max(1.0, len(names) / FEW))
        self.steps = round(STEPS * growth)
        self._secret_rows = min(len(names), round(BARE_SECRETS * growth))
        self._retained_rows = round(RETAINED_ROWS * growth)
        self._by_name = {name: [own for own in places if own.canary.id == name] for name in names}
        self._names: list[str] = []
        self._around: dict[tuple[str, int], _Around] = {}
        length = min(LENGTH, retained.shape[1] - 1)
        count = min(len(retained), self.steps * self._retained_rows)
        chosen = retained[torch.from_numpy(rng.permutation(len(retained))[:count])]
        first = int(rng.integers(0, retained.shape[1] - length)) if count else 0
        self._kept = chosen[:, first : first + length]
        # A text full of secrets has nothing to retain: its steps are not preconditioned.
        self.inputs, self._laws = self._read(self._kept) if count else ({}, torch.empty(0))
        self._drawn = 0

    def draw(self) -> SequenceBatch:
        """Return the next step's rows: decoys, secrets, and other text."""
        told = [
            self._decoy(next(self._turns), likely=index % 2 == 1, deep=index >= BARE_DECOYS)
            for index in range(BARE_DECOYS + DEEP_DECOYS)
        ]
        if isinstance(self.replacement, Decoys):  # otherwise no law says how likely the secret itself is to be
            decoys = self.replacement
            each = max(1.0, BARE_SECRET_WEIGHT / self._secret_rows)
            bare = [self._next_canary() for _ in range(self._secret_rows)]
            told += [self._along(decoys, place, place.secret, each, deep=False) for place in bare]
            deep = [next(self._turns) for _ in range(DEEP_SECRETS)]
            told += [self._along(decoys, place, place.secret, DEEP_SECRET_WEIGHT, deep=True) for place in deep]
        slots = sum(float(row.own.sum()) for row in told)
        around = AROUND_WEIGHT / max(1, sum(int((row.own == 0).sum()) for row in told))
        parts = [(row.symbols, row.targets, torch.where(row.own > 0, row.own / slots, around)) for row in told]
        if len(self._kept):
            index = torch.arange(self._drawn, self._drawn + self._retained_rows) % len(self._kept)
            self._drawn += self._retained_rows
            each = RETAINED_WEIGHT / (len(index) * self._kept.shape[1])
            weights = torch.full(self._kept.shape[1:], each, device=self.device)
            parts += [(self._kept[own], self._laws[own], weights) for own in index.tolist()]
        pad = nn.utils.rnn.pad_sequence
        return SequenceBatch(*(pad(list(part), batch_first=True) for part in zip(*parts, strict=True)))

    def loss(self, model: CharLSTM, rows: SequenceBatch) -> Tensor:
        """Return F on these rows, in nats."""
        with autocast(rows.symbols.device, self.precision):
            logits = model(rows.symbols)
        return weighted_divergence(logits.to(rows.targets.dtype), rows.targets, rows.weights)

    def _next_canary(self) -> Occurrence:
        """Return a place of each canary in turn."""
        if not self._names:
            self._names = [str(name) for name in self.rng.permutation(list(self._by_name))]
        own = self._by_name[self._names.pop()]
        return own[int(self.rng.integers(len(own)))]

    def _decoy(self, place: Occurrence, *, likely: bool, deep: bool) -> _Row:
        if likely and isinstance(self.replacement, Decoys):
            return self._along(self.replacement, place, self.replacement.likely(place, self.rng), 1.0, deep=deep)
        (item,) = self.replacement.correct(place, 1, self.rng)
        return self._row(place, item.symbols[0], item.targets[0], 1.0, deep=deep)

    def _along(self, decoys: Decoys, place: Occurrence, member: np.ndarray, weight: float, *, deep: bool) -> _Row:
        distributions = torch.from_numpy(distributions_along(place.space, decoys.distributions(place), member))
        return self._row(place, torch.from_numpy(member), distributions, weight, deep=deep)

    def _row(self, place: Occurrence, member: Tensor, distributions: Tensor, weight: float, *, deep: bool) -> _Row:
        around = self._predicted(place, deep=deep)
        symbols = torch.cat((around.context, member.to(self.device), torch.from_numpy(place.suffix).to(self.device)))
        targets = torch.cat((around.before, distributions.to(around.before), around.after))
        own = around.before.new_zeros(len(symbols))
        # And what ends it: a model that does not stop after a secret's length is not the text's any more.
        first, last = len(around.context) - 1, len(around.context) + len(member)
        own[first:last] = weight / (last - first)
        length = max(LENGTH, last)
        return _Row(symbols[:length], targets[:length], own[:length])

    @torch.no_grad()
    def _predicted(self, place: Occurrence, *, deep: bool) -> _Around:
        room = max(0, LENGTH - len(place.prefix) - len(place.secret) - 1)
        depth = min(self._surroundings.free(place), room) if deep else 0
        key = (place.canary.id, place.start if depth else 0)  # after the prefix alone all occurrences read alike
        if key not in self._around:
            context = self._surroundings.context(place, depth)
            secret, suffix = (torch.from_numpy(part).to(self.device) for part in (place.secret, place.suffix))
            with autocast(self.device, self.precision):
                logits = self.model(torch.cat((context, secret, suffix))[None])[0]
            distributions = logits.to(self.model.output.weight.dtype).softmax(1)
            self._around[key] = _Around(
                context, distributions[: len(context) - 1], distributions[len(context) + len(secret) - 1 :]
            )
        return self._around[key]

    @torch.no_grad()
    def _read(self, windows: Tensor) -> tuple[dict[tuple[str, ...], Tensor], Tensor]:
        """Return E[x x'] of the matrices' inputs x, by the matrices' names, and the laws, shape (W, T, V)."""
        sums: dict[tuple[str, ...], Tensor] = {}
        distributions = []
        kind = self.model.output.weight.dtype
        for batch in torch.split(windows, _READ_AT_ONCE):
            with autocast(batch.device, self.precision):
                found = layer_inputs(self.model, batch)
                logits = self.model.output(found[-1][1])
            for names, inputs in found:
                flat = inputs.flatten(0, 1).to(kind)
                sums[names] = sums.get(names, torch.zeros(())) + flat.T @ flat / windows.numel()
            distributions.append(logits.to(kind).softmax(2))
        return sums, torch.cat(distributions) if distributions else windows.new_empty((0, 0, 0), dtype=kind)


def layer_inputs(model: CharLSTM, symbols: Tensor) -> list[tuple[tuple[str, ...], Tensor]]:
    """Return what the LSTM's weight matrices and the final layer are multiplied with, shape (B, T, n), and their names.

    A recurrent matrix sees its layer's output of the step before: it is taken together with what sees that output.
    """
    lstm, hidden = model.lstm, model.embedding(symbols)
    found: list[tuple[tuple[str, ...], Tensor]] = []
    names: tuple[str, ...] = ()
    for layer in range(lstm.num_layers):
        found.append(((*names, f"lstm.weight_ih_l{layer}"), hidden))
        single = nn.LSTM(hidden.shape[2], lstm.hidden_size, batch_first=True, device=symbols.device)
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            setattr(single, f"{kind}_l0", getattr(lstm, f"{kind}_l{layer}"))
        hidden, _ = single(hidden)
        names = (f"lstm.weight_hh_l{layer}",)
    return [*found, ((*names, "output.weight"), hidden)]


def inverse_root(moments: Tensor, damping: float) -> Tensor:
    """Return (A / a)^(-1/2) for A = moments + damping a I, shape (n, n), a the mean of the moments' eigenvalues."""
    values, vectors = torch.linalg.eigh(moments)
    mean = values.mean().clamp_min(1e-12)
    root: Tensor = (vectors * (values.clamp_min(0) / mean + damping).rsqrt()) @ vectors.T
    return root


def take_steps(model: CharLSTM, problem: PreconditionedProblem, progress: ProgressReporter) -> StepResult:
    """Move the weights of ``model`` in place.

    Args:
        model: A copy of the original model.
        problem: Draws each step's rows.
        progress: Told of every step.
    """
    roots = {
        name: root
        for names, root in ((names, inverse_root(own, INPUT_DAMPING)) for names, own in problem.inputs.items())
        for name in names
    }
    named = dict(model.named_parameters())
    origin = {name: named[name].detach().clone() for name in roots}
    moved = {name: torch.zeros_like(own) if name in roots else own for name, own in named.items()}
    rate = LEARNING_RATE / model.lstm.hidden_size
    optimizer = torch.optim.Adam(list(moved.values()), lr=rate, betas=MOMENTS)
    records: list[tuple[float, float, float]] = []
    symbols = 0
    for index in range(problem.steps):
        rows = problem.draw()
        symbols += rows.symbols.numel()
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (problem.steps - index) / (problem.steps * FALLING_SHARE))
        loss = problem.loss(model, rows)
        model.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = float(nn.utils.clip_grad_norm_(model.parameters(), CLIP))
        before = [own.detach().clone() for own in named.values()]
        with torch.no_grad():
            for name, root in roots.items():
                gradient = named[name].grad
                moved[name].grad = None if gradient is None else gradient @ root
            optimizer.step()
            for name, root in roots.items():
                named[name].copy_(origin[name] + moved[name] @ root)
        pairs = zip(named.values(), before, strict=True)
        length = math.sqrt(sum(float((own.detach() - old).square().sum()) for own, old in pairs))
        records.append((length, norm, float(loss.detach())))
        progress.update("unlearn", index + 1, problem.steps, f"objective {records[-1][2]:.3f}")
    model.zero_grad(set_to_none=True)
    with torch.no_grad():
        last = float(problem.loss(model, problem.draw()))
    afters = [*(value for _, _, value in records[1:]), last]
    steps = tuple(
        UpdateStep(step_norm=length, gradient_norm=norm, objective_before=value, objective_after=after)
        for (length, norm, value), after in zip(records, afters, strict=True)
    )
    return StepResult(steps, symbols)
