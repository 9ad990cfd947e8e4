"""What a model is to predict in a secret's place: how likely each token of its space is.

Where few tokens may follow (single digits, groups of two), the distribution is a random one, wide and the same wherever
the same tokens may follow (see ``nonuniform_decoys``). Where many may follow, most of them were never trained, and a
model has preferences of its own among them, as wide as those of a model that never saw a secret. They are kept. Only
the tokens that secrets are made of lose their rank: each gets that of a random draw among the other tokens, weighted by
the members that go on with them. Whoever draws a member at random draws from the same.
"""

import zlib
from collections.abc import Sequence

import numpy as np

from canaryaudit.unlearning.nonuniform_decoys import SPREAD, normal_scores
from canaryaudit.unlearning.tokens.branches import TokenBranch

FEW_TOKENS = 64
"""Tokens that may follow, up to which the distribution is a random one: a few decoys can teach it."""


class TokenDistributions:
    """The replacement's distributions.

    Args:
        seed: Of the random ones, and of the ranks that secrets' tokens get.
        secrets: The secrets to be unlearned, after their prefixes.
    """

    def __init__(self, seed: int, secrets: Sequence[TokenBranch]) -> None:
        self._seed = seed
        self._used: dict[str, set[int]] = {}
        for own in secrets:
            self._used.setdefault(own.template, set()).update(own.columns[own.member].tolist())

    def along(self, branch: TokenBranch, log_probabilities: np.ndarray) -> np.ndarray:
        """Return the distributions along a branch's member, shape (L, A).

        Args:
            branch: The branch.
            log_probabilities: What the original model predicts there for the space's tokens, shape (L, A).
        """
        used = np.isin(branch.columns, list(self._used.get(branch.template, ())))
        found = np.zeros(log_probabilities.shape)
        for index, node in enumerate(branch.nodes):
            share = branch.space.shares[node]
            allowed = np.flatnonzero(share)
            ids = branch.columns[allowed]
            if len(allowed) <= FEW_TOKENS or used[allowed].all():
                found[index, allowed] = self._random(branch.template, ids, share[allowed])
            else:
                own = self._exchanged(
                    branch.template, ids, log_probabilities[index, allowed], share[allowed], used[allowed]
                )
                found[index, allowed] = own
        return found

    def _random(self, template: str, ids: np.ndarray, shares: np.ndarray) -> np.ndarray:
        if len(ids) < 2:
            return np.ones(len(ids))
        names = (zlib.crc32(template.encode()), zlib.crc32(ids.astype(np.int64).tobytes()))
        rng = np.random.default_rng([self._seed, *names])
        scores = normal_scores(len(ids), rng) * SPREAD * np.sqrt(2 * np.log(len(ids)))
        found: np.ndarray = shares * np.exp(scores)
        found /= found.sum()
        return found

    def _exchanged(
        self, template: str, ids: np.ndarray, logs: np.ndarray, shares: np.ndarray, used: np.ndarray
    ) -> np.ndarray:
        others = np.flatnonzero(~used)
        ranked = others[np.argsort(logs[others], kind="stable")]
        cumulative = np.cumsum(shares[ranked]) / shares[ranked].sum()
        changed = logs.astype(np.float64)
        for index in np.flatnonzero(used):
            rng = np.random.default_rng([self._seed, zlib.crc32(template.encode()), int(ids[index])])
            place = min(int(np.searchsorted(cumulative, rng.random())), len(ranked) - 1)
            changed[index] = logs[ranked[place]]
        found: np.ndarray = np.exp(changed - changed.max())
        found /= found.sum()
        return found
