"""The final layer's corrected-data objective: multinomial regression on soft targets, which is convex.

With the features fixed, the loss that an unlearned model should minimize is

    F(W) = sum_i w_i CE(t_i, softmax(h_i W)) + ridge/2 ||W - W*||^2

where i runs over the positions of Z-tilde (t the replacement's law, or what the original model predicts
around the secret) and over positions of other text, the retention (t what the original model predicts: up
to a constant KL(original || updated), whose gradient vanishes at W*). Only the columns of W that belong to
*active* symbols move: those whose probability the replacement is about. All others enter through one
constant, the log of their summed weight, so that ordinary text can be disturbed only by a digit or letter
of the secret's space becoming likely where it was not.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

BLOCK = 2_048
"""Rows of features worked on at a time: in float32 they then fit the cache (twice as fast as 16,384 in bfloat16)."""
CURVATURE_ROWS = 65_536
"""Positions that the curvature is taken at, evenly spread over all; value and gradient are taken at every one. On a
novel with 150,000 positions the steps are as good, and a product costs half."""
_PRECONDITIONER_ROWS = 16_384


@dataclass(frozen=True)
class FinalLayerProblem:
    """The objective's data.

    Attributes:
        features: h with a column of ones for the bias, blocks of shape (p, D) with P rows in all. Blocks are what
            takes the memory: they are never copied, and may be kept in the precision that the model computed in.
        targets: t of the active symbols, shape (P, A); what a row lacks to 1 belongs to the other symbols.
        weights: w, shape (P,).
        others: Log of the other symbols' summed weight, shape (P, 1); -inf where there are none.
        origin: W*, the active columns, shape (D, A).
        ridge: Strength of the pull towards W*.
        rows: The positions that the curvature is taken at, shape (R,) (Byrd et al. 2011: subsampled Newton).
        row_weights: What they weigh there: together as much as all, shape (R,).
        fast: Their features, in the precision of curvature products, shape (R, D).
    """

    features: tuple[Tensor, ...]
    targets: Tensor
    weights: Tensor
    others: Tensor
    origin: Tensor
    ridge: float
    rows: Tensor
    row_weights: Tensor
    fast: Tensor

    @classmethod
    def of(
        cls,
        features: Tensor,
        targets: Tensor,
        weights: Tensor,
        matrix: Tensor,
        active: Tensor,
        ridge: float,
        precision: str = "fp32",
    ) -> "FinalLayerProblem":
        """Reduce a problem over the whole vocabulary to the active columns.

        Args:
            features: Shape (P, D - 1).
            targets: Laws over the vocabulary, shape (P, V).
            weights: Shape (P,).
            matrix: The layer's weights with the bias as last row, shape (D, V).
            active: Ids of the symbols whose columns may move, shape (A,).
            ridge: Pull towards the original weights, for each unit of weight.
            precision: Of curvature products; value and gradient are always taken in the features' own.
        """
        blocks = torch.split(with_bias(features), BLOCK)
        return cls(
            features=blocks,
            targets=targets[:, active].contiguous(),
            weights=weights,
            others=torch.cat([log_weight_of_others(block, matrix, active) for block in blocks]),
            origin=matrix[:, active].clone(),
            ridge=ridge * float(weights.sum()),
            **curvature_part(blocks, weights, torch.bfloat16 if precision == "bf16" else features.dtype),
        )

    def with_rows(self, features: Tensor, targets: Tensor, weights: Tensor, others: Tensor) -> "FinalLayerProblem":
        """Return the problem with more positions, all in its curvature; they have the column of ones already."""
        weight = float(self.weights.sum())
        new = torch.arange(len(self.weights), len(self.weights) + len(weights), device=weights.device)
        return replace(
            self,
            features=(*self.features, features.to(self.features[0].dtype)),
            targets=torch.cat((self.targets, targets)),
            weights=torch.cat((self.weights, weights)),
            others=torch.cat((self.others, others)),
            ridge=self.ridge * (weight + float(weights.sum())) / weight,
            rows=torch.cat((self.rows, new)),
            row_weights=torch.cat((self.row_weights, weights)),
            fast=torch.cat((self.fast, features.to(self.fast.dtype))),
        )

    def probabilities(self, columns: Tensor) -> Tensor:
        """Return the active symbols' probabilities under the columns, shape (P, A)."""
        return self._log_probabilities(columns)[:, :-1].exp()

    def value(self, columns: Tensor) -> float:
        """Return F, less its least possible value without the ridge: a sum of Kullback-Leibler divergences."""
        return self.value_and_probabilities(columns)[0]

    def value_and_probabilities(self, columns: Tensor) -> tuple[float, Tensor]:
        """Return both for the price of one."""
        logs = self._log_probabilities(columns)
        rest = (1 - self.targets.sum(1, keepdim=True)).clamp_min(0)
        # Where all symbols are active, what a row lacks to 1 is rounding; the other symbols' log is -inf.
        whole = torch.cat((self.targets, torch.where(self.others.isfinite(), rest, 0.0)), 1)
        parts = torch.where(whole > 0, whole * (whole.clamp_min(1e-30).log() - logs), 0.0)
        moved = columns - self.origin
        pull = self.ridge / 2 * float((moved * moved).sum())
        value = float((self.weights[:, None] * parts).sum(dtype=torch.float64)) + pull
        return value, logs[:, :-1].exp()

    def gradient(self, columns: Tensor, probabilities: Tensor) -> Tensor:
        """Return dF/dW, shape (D, A): this is Delta(Z, Z-tilde) where W = W* (Warnecke et al. 2023)."""
        total = self.ridge * (columns - self.origin)
        for block, rows in self._blocks():
            excess = self.weights[rows, None] * (probabilities[rows] - self.targets[rows])
            total += block.to(columns.dtype).T @ excess
        return total

    def curvature_product(self, distribution: Tensor, direction: Tensor) -> Tensor:
        """Return H V, shape (R, A), H the Hessian at ``distribution`` of the curvature's positions, with the ridge."""
        total = self.ridge * direction
        small = direction.to(self.fast.dtype)
        for block, own, weights in zip(
            *(torch.split(part, BLOCK) for part in (self.fast, distribution, self.row_weights)), strict=True
        ):
            slope = (block @ small).to(direction)
            slope = own * (slope - (own * slope).sum(1, keepdim=True))
            total = total + (block.T @ (weights[:, None] * slope).to(block.dtype)).to(direction)
        return total

    def _blocks(self) -> Iterator[tuple[Tensor, slice]]:
        """Yield each block of features and the rows of the other tensors that it belongs to."""
        first = 0
        for block in self.features:
            yield block, slice(first, first + len(block))
            first += len(block)

    def _log_probabilities(self, columns: Tensor) -> Tensor:
        logits = torch.cat([block.to(columns.dtype) @ columns for block in self.features])
        return torch.log_softmax(torch.cat((logits, self.others), 1), 1)


def curvature_part(blocks: Sequence[Tensor], weights: Tensor, kind: torch.dtype) -> dict[str, Tensor]:
    """Return ``rows``, ``row_weights`` and ``fast`` of a problem with these features and weights."""
    rows, row_weights = _curvature_rows(weights)
    counts = torch.tensor([0, *(len(block) for block in blocks)], device=rows.device).cumsum(0)
    cuts = torch.searchsorted(rows, counts).tolist()
    own = [rows[low:high] for low, high in itertools.pairwise(cuts)]
    chosen = [block[part - first].to(kind) for block, part, first in zip(blocks, own, counts, strict=False)]
    return {"rows": rows, "row_weights": row_weights, "fast": torch.cat(chosen)}


def _curvature_rows(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Choose positions for the curvature, and what each weighs there.

    Heavy positions are few and stand for themselves; of the others every so many is taken, and stands for all.
    """
    stride = max(1, len(weights) // CURVATURE_ROWS)
    heavy = weights > stride * weights.mean()
    alone, others = heavy.nonzero()[:, 0], (~heavy).nonzero()[:, 0]
    chosen = others[::stride]
    scale = weights[others].sum() / weights[chosen].sum().clamp_min(1e-30)
    rows, order = torch.cat((alone, chosen)).sort()
    return rows, torch.cat((weights[alone], weights[chosen] * scale))[order]


def with_bias(features: Tensor) -> Tensor:
    """Append a column of ones, for the bias: (..., H) -> (..., D)."""
    return torch.cat((features, torch.ones_like(features[..., :1])), -1)


def log_weight_of_others(features: Tensor, matrix: Tensor, active: Tensor) -> Tensor:
    """Return the log of the summed weight of all symbols that are not active: (..., D) -> (..., 1)."""
    passive = torch.ones(matrix.shape[1], dtype=torch.bool, device=matrix.device)
    passive[active] = False
    return torch.logsumexp(features @ matrix[:, passive], -1, keepdim=True)


class KroneckerInverse:
    """A preconditioner: (A (x) G + lambda I)^-1 with A the features' covariance, G the laws'.

    A is weighted by each position's curvature, so that positions whose prediction is certain do not count.

    Args:
        problem: The objective.
        distribution: Laws of the curvature's positions, shape (R, A).
    """

    def __init__(self, problem: FinalLayerProblem, distribution: Tensor) -> None:
        # A preconditioner need not be exact: every so many positions do.
        stride = max(1, len(distribution) // _PRECONDITIONER_ROWS)
        features, part = problem.fast[::stride].to(distribution), distribution[::stride]
        spread = problem.row_weights[::stride] * (part * (1 - part)).sum(1)
        covariance = (features.T * spread) @ features / spread.sum().clamp_min(1e-12)
        weighted = problem.row_weights[:, None] * distribution
        curvature = torch.diag(weighted.sum(0)) - weighted.T @ distribution
        self._feature_values, self._feature_vectors = torch.linalg.eigh(covariance)
        self._law_values, self._law_vectors = torch.linalg.eigh(curvature)
        self._values = self._feature_values.clamp_min(0)[:, None] * self._law_values.clamp_min(0)

    def apply(self, value: Tensor, damping: float) -> Tensor:
        """Return the product of the damped inverse with a matrix of shape (D, A)."""
        turned = self._feature_vectors.T @ value @ self._law_vectors
        damped: Tensor = self._feature_vectors @ (turned / (self._values + damping)) @ self._law_vectors.T
        return damped
