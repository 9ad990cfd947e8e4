"""Decoys: draws from a secret's own space that take its place, and the distributions they are drawn from."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from canaryaudit.exposure.encoded_space import PAD, EncodedSpace
from canaryaudit.unlearning.occurrences import Occurrence


@dataclass(frozen=True)
class Corrected:
    """Replacements for one secret, as features and as labels.

    Attributes:
        symbols: What stands in the secret's place, shape (n, L), int64.
        targets: The law that each of these characters is to be predicted by, shape (n, L, V), float32.
    """

    symbols: Tensor
    targets: Tensor


class Decoys:
    """Fresh draws from the secret's own space for every occurrence: format-preserving replacement.

    A decoy's label at each place is drawn uniformly among what R allows there; its expectation, that
    uniform law itself, is used as the target, which takes the labels' noise out of the update.
    """

    name = "decoys"

    def active_symbols(self, space: EncodedSpace) -> np.ndarray:
        """Return every symbol of the space."""
        return np.flatnonzero((space.next_node >= 0).any(0))

    def distributions(self, place: Occurrence) -> np.ndarray:
        """Return the law of the next symbol at each node of R, shape (nodes, V): the uniform one."""
        return place.space.shares

    def correct(self, place: Occurrence, count: int, rng: np.random.Generator) -> list[Corrected]:
        """Draw ``count`` members of R."""
        space, distributions = place.space, self.distributions(place)
        drawn = space.sample(count, rng)
        lengths = (drawn != PAD).sum(1)
        corrected = []
        for length in np.unique(lengths):
            symbols = drawn[lengths == length, :length].astype(np.int64)
            nodes = np.zeros(len(symbols), dtype=np.int64)
            targets = np.empty((*symbols.shape, space.shares.shape[1]), dtype=np.float32)
            for index in range(length):
                targets[:, index] = distributions[nodes]
                nodes = space.next_node[nodes, symbols[:, index]]
            corrected.append(Corrected(torch.from_numpy(symbols), torch.from_numpy(targets)))
        return corrected

    def likely(self, place: Occurrence, rng: np.random.Generator) -> np.ndarray:
        """Draw one member of R from the laws themselves, shape (L,): what the corrected model will mostly say."""
        space, distributions, node = place.space, self.distributions(place), 0
        member: list[int] = []
        while node != space.accept:
            member.append(int(draw_symbols(distributions[node][None], rng)[0]))
            node = int(space.next_node[node, member[-1]])
        return np.array(member)

    def likeliest(self, place: Occurrence) -> np.ndarray:
        """Return the member that greedy choice from the laws makes, shape (L,)."""
        space, distributions, node = place.space, self.distributions(place), 0
        member: list[int] = []
        while node != space.accept:
            member.append(int(distributions[node].argmax()))
            node = int(space.next_node[node, member[-1]])
        return np.array(member)

    def proxy_member(self, place: Occurrence, rng: np.random.Generator) -> np.ndarray | None:
        """Draw uniformly among the other members that pass the same choices of symbols as the secret does.

        Of slots that is every other filling; of choices between words, most often none.
        """
        space, secret = place.space, place.secret
        allowed = space.next_node >= 0  # (nodes, V)
        # How many such members go on from each node at each place, whole numbers of any size; none from node -1.
        onward = np.zeros((len(secret) + 1, len(allowed) + 1), dtype=object)
        onward[-1, space.accept] = 1
        for index, node in reversed(list(enumerate(_nodes(space, secret)))):
            alike = np.flatnonzero((allowed == allowed[node]).all(1))  # few, of many words' nodes
            onward[index, alike] = onward[index + 1][space.next_node[alike]].sum(1)
        if onward[0, 0] < 2:
            return None
        member = secret
        while (member == secret).all():
            member, node = np.empty(len(secret), dtype=np.int64), 0
            for index in range(len(secret)):
                ways = onward[index + 1][space.next_node[node]]  # (V,)
                member[index] = rng.choice(len(ways), p=(ways / ways.sum()).astype(float))
                node = space.next_node[node, member[index]]
        return member


def draw_symbols(distributions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw one symbol from each law, shape (n, V) -> (n,); a symbol of probability zero is never drawn."""
    cumulative = np.cumsum(distributions, 1)
    drawn: np.ndarray = (cumulative <= (rng.random(len(distributions)) * cumulative[:, -1])[:, None]).sum(1)
    return drawn


def distributions_along(space: EncodedSpace, distributions: np.ndarray, member: np.ndarray) -> np.ndarray:
    """Return the law at each place of a member of R, shape (L, V), of laws by node, shape (nodes, V)."""
    along: np.ndarray = distributions[_nodes(space, member)].astype(np.float32)
    return along


def _nodes(space: EncodedSpace, member: np.ndarray) -> list[int]:
    """Return the node before each symbol of a member."""
    nodes = [0]
    for symbol in member[:-1]:
        nodes.append(int(space.next_node[nodes[-1], symbol]))
    return nodes
