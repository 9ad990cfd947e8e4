"""The final layer's problem from the text: Z-tilde with its contexts, and retention."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from canaryaudit.models.char_lstm import CharLSTM
from canaryaudit.models.device import PRECISIONS, autocast
from canaryaudit.unlearning.final_layer.objective import (
    BLOCK,
    FinalLayerProblem,
    curvature_part,
    log_weight_of_others,
    with_bias,
)
from canaryaudit.unlearning.method import MethodInput
from canaryaudit.unlearning.occurrences import Occurrence, Surroundings
from canaryaudit.unlearning.replacement import Replacement

RIDGE = 1e-5
"""Pull towards the original weights, for each position: small enough never to keep a secret alive (1e-4
does), large enough to make the minimum unique."""
MIN_REPLACEMENTS, REPLACEMENTS_PER_CANARY = 2048, 128
"""Replacements drawn in all, or for each canary if that is more. With 500 the update fits the decoys drawn
rather than the space: references then differ among each other more than the secret does from them."""
CONTEXTS, CONTEXTS_PER_CANARY = 32, 8
"""Different readings of what stands before a secret, in all or for each canary if that is more."""
FORGET_WEIGHT = 0.25
"""Weight of a replacement's position beside 1 for a position to retain: a quarter forgets as well as 1 and costs half
of the accuracy, where a secret's symbols are those of ordinary text."""

SECRET_WEIGHT = 1.0
"""Weight of a secret's own position for each replacement drawn after the same context: one path stands against many."""
STAND_INS = 8
"""Members drawn for a secret to take after; the likeliest of them is put back, and one of the others is taken. A secret
then does not come to stand, by mere chance, among the likeliest eighth of its like."""


@dataclass(frozen=True)
class SecretReading:
    """The model's state before one reading of a secret.

    Attributes:
        place: Which secret.
        state: The LSTM's state after the context.
        weight: What the secret's own position weighs after this reading.
    """

    place: Occurrence
    state: tuple[Tensor, Tensor]
    weight: float


@torch.no_grad()
def build_problem(
    given: MethodInput, replacement: Replacement
) -> tuple[FinalLayerProblem, Tensor, list[SecretReading]]:
    """Read Z-tilde and the retained windows with the model, and put the final layer's objective together.

    Each secret is read in several contexts: after the template's prefix alone, as an attacker types it,
    and after up to a window of what stands before it in the text, but of no other secret. In the secret's
    places the targets are the replacement's; around them, what the original model predicts around the
    secret itself.

    Args:
        given: The copy to change, and what may be used.
        replacement: What takes the secrets' place.

    Returns:
        The problem, the active symbols' ids, shape (A,), and the secrets' readings.
    """
    text, places, rng = given.data.train, given.places, given.rng
    active = np.unique(np.concatenate([replacement.active_symbols(place.space) for place in places]))
    ids = torch.from_numpy(active).to(text.device)
    rows = _PositionBuffer(given.updated, given.config.precision, ids)
    readings: list[SecretReading] = []
    names = dict.fromkeys(place.canary.id for place in places)
    contexts = max(CONTEXTS_PER_CANARY, CONTEXTS // len(names))
    draws = max(REPLACEMENTS_PER_CANARY, MIN_REPLACEMENTS // len(names)) // contexts
    surroundings = Surroundings(text, places)
    for name in names:
        own = [place for place in places if place.canary.id == name]
        draws_after: dict[tuple[int, int], int] = {}
        for index in range(contexts):
            place = own[index % len(own)]
            whole = len(place.prefix) + len(place.secret) + len(place.suffix)
            deepest = min(surroundings.free(place), max(1, given.config.window - whole))
            bare = index % 4 == 0  # the attacker's reading, and the one that is measured
            depth = 0 if bare or deepest == 0 else int(rng.integers(0, deepest + 1))
            # After the prefix alone all occurrences read alike: they are one reading.
            reading = (index % len(own), depth) if depth else (0, 0)
            draws_after[reading] = draws_after.get(reading, 0) + draws
        for (occurrence, depth), count in draws_after.items():
            place = own[occurrence]
            context = surroundings.context(place, depth)
            readings.append(rows.add_occurrence(context, place, replacement, count, rng))
    for windows in torch.tensor_split(given.retained, max(1, len(given.retained) // 64)):
        if len(windows):
            rows.add_retained(windows[:, :-1])
    return rows.problem(), ids, readings


@torch.no_grad()
def swap_target_distributions(
    given: MethodInput,
    replacement: Replacement,
    problem: FinalLayerProblem,
    active: Tensor,
    columns: Tensor,
    readings: Sequence[SecretReading],
) -> FinalLayerProblem:
    """Give each secret's own path the law that the updated layer has for a member of R it never saw.

    Decoys teach the layer about the space, and not about the one path on which the lower layers still mark
    the secret: there it may stay likelier than its like, or become conspicuously unlikely. So for each
    secret one fresh member d of R is drawn, and at every place after the first the secret's position gets
    the law that the layer has along d, with the two symbols exchanged. The secret then costs about what d
    costs: it stands like a uniform draw from R, which is what a secret never seen is, save that the
    likeliest of ``STAND_INS`` draws is never taken.

    Args:
        given: The copy to change, its final layer as it was, and what may be used.
        replacement: Draws the members to stand in; where it names none, the secret gets no positions.
        problem: The objective on decoys and retention.
        active: Ids of the active symbols, shape (A,).
        columns: The layer that minimizes it, shape (D, A).
        readings: The secrets' readings.

    Returns:
        The problem with the secrets' own positions.
    """
    layer = _layer(given.updated)
    column_of = torch.full((layer.shape[1],), -1, device=layer.device)
    column_of[active] = torch.arange(len(active), device=layer.device)
    reader = _PositionBuffer(given.updated, given.config.precision, active)

    def along(members: Tensor, reading: SecretReading) -> tuple[Tensor, Tensor, Tensor]:
        """Return features (n, L - 1, D), the others' log weight and the active symbols' law after each first place."""
        state = tuple(part.expand(-1, len(members), -1).contiguous() for part in reading.state)
        hidden, _ = reader.read(members[:, :-1], (state[0], state[1]))
        hidden = with_bias(hidden)
        others = log_weight_of_others(hidden, layer, active)
        return hidden, others, torch.softmax(torch.cat((hidden @ columns, others), 2), 2)[..., :-1]

    def log_likelihood(members: Tensor, reading: SecretReading) -> Tensor:
        """Return the log-likelihood of members, shape (n, L) -> (n,), after their first place."""
        _, _, distributions = along(members, reading)
        return distributions.gather(2, column_of[members[:, 1:], None]).clamp_min(1e-30).log().sum((1, 2))

    stand_ins: dict[str, np.ndarray | None] = {}
    added: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for reading in readings:
        place = reading.place
        if place.canary.id not in stand_ins:
            drawn = [replacement.proxy_member(place, given.rng) for _ in range(STAND_INS)]
            members = [member for member in drawn if member is not None and len(member) > 1]
            symbols = torch.from_numpy(np.stack(members)).to(layer.device) if members else None
            stand_ins[place.canary.id] = (
                None if symbols is None else members[choose_stand_in(log_likelihood(symbols, reading), given.rng)]
            )
        proxy_member = stand_ins[place.canary.id]
        if proxy_member is None:
            continue
        pair = torch.from_numpy(np.stack((place.secret, proxy_member))).to(layer.device)  # (2, L)
        hidden, others, distributions = along(pair, reading)
        distribution = distributions[1]  # (L - 1, A)
        mine, theirs = (column_of[row[1:], None] for row in pair)
        distribution = distribution.scatter(1, mine, distribution.gather(1, theirs)).scatter(
            1, theirs, distribution.gather(1, mine)
        )
        added.append((hidden[0], distribution, hidden.new_full((len(distribution),), reading.weight), others[0]))
    return problem.with_rows(*(torch.cat(parts) for parts in zip(*added, strict=True))) if added else problem


def _layer(model: CharLSTM) -> Tensor:
    """Return the final layer's weights with the bias as last row, shape (D, V)."""
    return torch.cat((model.output.weight.T, model.output.bias[None])).float()


def choose_stand_in(log_likelihoods: Tensor, rng: np.random.Generator) -> int:
    """Return the index of one member, uniformly among all but the likeliest; of the only one if there is one."""
    fit = torch.argsort(log_likelihoods)[: max(1, len(log_likelihoods) - 1)]
    return int(fit[int(rng.integers(len(fit)))])


def write_columns(model: CharLSTM, active: Tensor, columns: Tensor) -> None:
    """Put updated columns, shape (D, A), into the final layer."""
    with torch.no_grad():
        model.output.weight[active] = columns[:-1].T.to(model.output.weight)
        model.output.bias[active] = columns[-1].to(model.output.bias)


class _PositionBuffer:
    """Positions of the objective, gathered batch by batch.

    Of each position only what the objective needs is kept: the features as the model computes them, in half of the
    memory where that is bfloat16, and the active symbols' targets.
    """

    def __init__(self, model: CharLSTM, precision: str, active: Tensor) -> None:
        self.model, self.precision, self.active = model, precision, active
        self.layer = _layer(model)
        self.kind = PRECISIONS[precision]
        self._blocks: list[Tensor] = []
        self._pending: list[Tensor] = []
        self._small: list[tuple[Tensor, Tensor, Tensor]] = []

    def problem(self) -> FinalLayerProblem:
        """Return the objective of all positions."""
        self._close_block()
        targets, weights, others = (torch.cat(parts) for parts in zip(*self._small, strict=True))
        return FinalLayerProblem(
            features=tuple(self._blocks),
            targets=targets,
            weights=weights,
            others=others,
            origin=self.layer[:, self.active].clone(),
            ridge=RIDGE * float(weights.sum()),
            **curvature_part(self._blocks, weights, self.kind),
        )

    def add_occurrence(
        self, context: Tensor, place: Occurrence, replacement: Replacement, draws: int, rng: np.random.Generator
    ) -> SecretReading:
        """Add one reading of a secret's context, continued by ``draws`` replacements and the suffix."""
        before, state = self.read(context[None])
        secret = torch.from_numpy(place.secret).to(context.device)
        suffix = torch.from_numpy(place.suffix).to(context.device)
        around = self._law(before[0])  # (C, V); its last row predicts the secret's first character
        truly, _ = self.read(torch.cat((secret, suffix))[None], state)
        after = self._law(truly[0, len(secret) - 1 :])  # (1 + S, V); the last row predicts what follows the canary
        self._add(before[0, :-1], around[:-1])
        for corrected in replacement.correct(place, draws, rng):
            symbols, targets = corrected.symbols.to(context.device), corrected.targets.to(context.device)
            count, length = symbols.shape
            sequence = torch.cat((symbols, suffix.expand(count, -1)), 1)[:, :-1] if len(suffix) else symbols
            repeated = tuple(part.expand(-1, count, -1).contiguous() for part in state)
            hidden, _ = self.read(sequence, (repeated[0], repeated[1]))
            self._add(before[0, -1:], targets[:, 0].mean(0, keepdim=True), weight=FORGET_WEIGHT * count)
            self._add(hidden[:, : length - 1].flatten(0, 1), targets[:, 1:].flatten(0, 1), weight=FORGET_WEIGHT)
            tail = hidden[:, length - 1 :]
            self._add(tail.flatten(0, 1), after[: tail.shape[1]].expand(count, -1, -1).flatten(0, 1))
        return SecretReading(place, state, SECRET_WEIGHT * draws)

    def add_retained(self, windows: Tensor) -> None:
        """Add windows of other text, shape (W, T), to be predicted as the original model predicts them."""
        hidden, _ = self.read(windows)
        self._add(hidden.flatten(0, 1), self._law(hidden.flatten(0, 1)))

    def read(self, symbols: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return what the final layer sees, (B, T) -> (B, T, H), and the LSTM's last state."""
        with autocast(symbols.device, self.precision):
            hidden, state = self.model.features(symbols, state)
        return hidden.float(), state

    def _law(self, features: Tensor) -> Tensor:
        output = self.model.output
        return nn.functional.linear(features, output.weight.float(), output.bias.float()).softmax(-1)

    def _add(self, features: Tensor, targets: Tensor, weight: float = 1.0) -> None:
        features = with_bias(features)
        others = log_weight_of_others(features, self.layer, self.active)
        self._small.append((targets[:, self.active], features.new_full((len(features),), weight), others))
        self._pending.append(features.to(self.kind))
        if sum(map(len, self._pending)) >= BLOCK:
            self._close_block()

    def _close_block(self) -> None:
        if self._pending:
            self._blocks.append(torch.cat(self._pending))
            self._pending = []
