"""Which secrets a model remembers: a look before an update, so that what was never learned is left alone."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from canaryaudit.exposure.encoded_space import PAD
from canaryaudit.models.char_lstm import CharLSTM
from canaryaudit.models.device import autocast
from canaryaudit.unlearning.all_layers.branches import Branch, positions, side_by_side
from canaryaudit.unlearning.all_layers.contexts import Contexts, branch_features
from canaryaudit.unlearning.method import MethodInput
from canaryaudit.unlearning.occurrences import Occurrence

DRAWS = 63
"""Fresh draws of a template's space, beside which its secrets are ranked."""
ENDS = (4, 12, 24)
"""Characters of ordinary text after which they are ranked too, besides the template's prefix."""
REMEMBERED_SHARE = 0.1
"""A secret is remembered where after one of these at most so many of the draws are as likely as it."""


def remembered_canaries(given: MethodInput) -> set[str]:
    """Return the ids of the canaries whose secrets the original model ranks high anywhere that was looked.

    Among secrets never seen, so ranked, about a quarter is taken for remembered; of the others hardly any is missed.
    """
    by_template: dict[str, dict[str, Occurrence]] = defaultdict(dict)
    for place in given.places:
        by_template[place.canary.template][place.canary.id] = place
    found = set()
    for own in by_template.values():
        shares = _smallest_shares(given, list(own.values()))
        found |= {name for name, share in zip(own, shares, strict=True) if share <= REMEMBERED_SHARE}
    return found


def _smallest_shares(given: MethodInput, places: Sequence[Occurrence]) -> np.ndarray:
    """Return each secret's smallest share of draws that are as likely, over all contexts, shape (n,)."""
    drawn = places[0].space.sample(DRAWS, given.rng)
    members = [place.secret for place in places] + [row[row != PAD].astype(np.int64) for row in drawn]
    device = given.data.train.device
    prefix = torch.from_numpy(places[0].prefix).long()[None].to(device)
    contexts = [Contexts(prefix, (prefix.shape[1],))]
    ends = tuple(end for end in ENDS if end < given.retained.shape[1])
    if len(given.retained) and ends:
        window = given.retained[int(given.rng.integers(len(given.retained)))]
        contexts.append(Contexts(window[None, : ends[-1]], ends))
    shares = []
    for text in contexts:
        costs = member_costs(given.model, text, places[0], members, given.config.precision)  # (C, n + DRAWS)
        for row in costs:
            own, others = row[: len(places)], row[len(places) :]
            shares.append(((others[None] <= own[:, None]).sum(1) + 1) / (DRAWS + 1))
    smallest: np.ndarray = np.min(shares, axis=0)
    return smallest


@torch.no_grad()
def member_costs(
    model: CharLSTM, contexts: Contexts, place: Occurrence, members: Sequence[np.ndarray], precision: str
) -> np.ndarray:
    """Return -log p of every member after every context, in nats, shape (C, n)."""
    device, nothing = contexts.symbols.device, np.empty(0, dtype=np.int64)
    branches = [
        Branch(place, member, False, context, nothing, 0, nothing, False, 1.0)
        for context in range(len(contexts))
        for member in members
    ]
    symbols, origins = (part.to(device) for part in side_by_side(branches))
    rows, columns = (part.to(device) for part in positions(branches))
    with autocast(device, precision):
        features = branch_features(model, contexts.read(model), symbols, origins)
        logits = model.output(features[rows, columns])
    said = logits.float().log_softmax(1).gather(1, symbols[rows, columns][:, None])[:, 0]
    costs: Tensor = torch.zeros(len(branches), device=device).index_add(0, rows, -said)
    found: np.ndarray = costs.view(len(contexts), len(members)).cpu().numpy()
    return found
