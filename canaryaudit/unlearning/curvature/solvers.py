"""Solvers of (A + lambda I) x = b for a symmetric A given by its products; each reports its own health.

A solver is a small object that is checked when it is made. What ``solve`` returns is worth as much as its
``status`` and its residual, which is always taken from a product with x itself.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from canaryaudit.errors import UnlearningError
from canaryaudit.unlearning.curvature.conjugate_gradients import DRIFT, LinearMap, Solution, Status, check_limits

_ABOVE_LARGEST = 1.1
"""LiSSA's scale over the largest eigenvalue found: Lanczos approaches it from below."""
_DIVERGED = 1e3
"""Residual at which a series is given up."""
MAX_DENSE = 4000
"""Largest size of a matrix that is written out: 128 MB in float64."""


@dataclass(frozen=True)
class LiSSA:
    """The truncated Neumann series x <- b / s + (I - (A + lambda I) / s) x, s the scale.

    Source: Agarwal, Bullins & Hazan 2017; Koh & Liang 2017. In their code a damping d is written into
    (1 - d) x - A x / s, which solves (A + d s I) x = b: the scale hides how strongly. Here the scale is taken
    from the spectrum, which Lanczos estimates first, and d s is added to the solution's ``damping``. A series
    of an indefinite matrix diverges, as does one whose scale is too small: neither is begun, and one that runs
    away all the same is given up.

    Attributes:
        tolerance: Relative residual to stop at; the series stands at 1 before its first term.
        max_iterations: Most terms to add.
        scale: s; None for a tenth more than the largest eigenvalue.
        own_damping: d, a share of the scale.
        lanczos_iterations: Products to spend on the spectrum.
    """

    tolerance: float = 0.1
    max_iterations: int = 1000
    scale: float | None = None
    own_damping: float = 0.0
    lanczos_iterations: int = 12

    def __post_init__(self) -> None:
        check_limits(self.tolerance, self.max_iterations)
        if self.scale is not None and not self.scale > 0:
            raise UnlearningError(f"the scale of LiSSA must be positive, got {self.scale}")
        if not 0 <= self.own_damping < 1:
            raise UnlearningError(f"the damping of LiSSA is a share of its scale from 0 to 1, got {self.own_damping}")

    def solve(self, product: LinearMap[Tensor], right: Tensor, damping: float = 0.0) -> Solution[Tensor]:
        """Solve (A + lambda I) x = b; see ``Solver``."""
        size = float(right.norm())
        if size == 0:
            return Solution(torch.zeros_like(right), 0.0, 0, math.inf, "converged", damping)
        spectrum = lanczos(product, right, self.lanczos_iterations)
        spent = spectrum.products
        scale = self.scale or _ABOVE_LARGEST * (max(abs(spectrum.largest), abs(spectrum.smallest)) + damping)
        whole = damping + self.own_damping * scale
        smallest = spectrum.smallest + whole
        zero = torch.zeros_like(right)
        if smallest <= 0:
            return Solution(zero, 1.0, 0, smallest, "indefinite", whole, spent)
        x = right / scale
        iterations = 0
        residual = right - product(x) - whole * x
        share = float(residual.norm()) / size
        while self.tolerance < share < _DIVERGED and iterations < self.max_iterations - 1:
            iterations += 1
            x = x + residual / scale
            residual = right - product(x) - whole * x
            share = float(residual.norm()) / size
        if not share <= 1:  # it grows from term to term, or is not a number
            return Solution(zero, share, iterations + 1, smallest, "diverged", whole, spent + iterations + 1)
        status: Status = "converged" if share <= DRIFT * self.tolerance else "stopped"
        return Solution(x, share, iterations + 1, smallest, status, whole, spent + iterations + 1)


@dataclass(frozen=True)
class Dense:
    """Write the matrix out, column by column, and factorize it: exact, for small problems."""

    def solve(self, product: LinearMap[Tensor], right: Tensor, damping: float = 0.0) -> Solution[Tensor]:
        """Solve (A + lambda I) x = b; see ``Solver``.

        Raises:
            UnlearningError: The problem is larger than ``MAX_DENSE``.
        """
        size = right.numel()
        if size > MAX_DENSE:
            raise UnlearningError(
                f"a matrix of {size} rows is too large to be written out (at most {MAX_DENSE}): use conjugate gradients"
            )
        columns = [product(unit.view_as(right)).reshape(-1) for unit in torch.eye(size, dtype=right.dtype)]
        matrix = torch.stack(columns, 1)
        values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
        damped = values + damping
        smallest = float(damped[0]) if size else math.inf
        if smallest <= 0:
            return Solution(torch.zeros_like(right), 1.0, size, smallest, "indefinite", damping, size)
        x = (vectors @ ((vectors.T @ right.reshape(-1)) / damped)).view_as(right)
        certified = _residual(product, x, right, damping)
        return Solution(x, certified, size, smallest, "converged", damping, size + 1)


@dataclass(frozen=True)
class Spectrum:
    """The ends of a symmetric matrix's spectrum, as Lanczos found them: from inside, thus never too wide."""

    smallest: float
    largest: float
    products: int


def lanczos(product: LinearMap[Tensor], start: Tensor, iterations: int) -> Spectrum:
    """Estimate the extreme eigenvalues of a symmetric matrix (Lanczos 1950), with full reorthogonalisation.

    Args:
        product: x -> A x.
        start: First direction, not zero, of any shape. Part of a fixed random vector is mixed in, so that a
            right-hand side that lies in an invariant subspace does not hide the rest.
        iterations: Products to spend.
    """
    generator = torch.Generator(device="cpu").manual_seed(0)
    noise = torch.randn(start.shape, dtype=start.dtype, generator=generator).to(start.device)
    vector = start / start.norm() + noise / noise.norm()
    basis = [vector / vector.norm()]
    diagonal, beside = [], []
    for _ in range(min(iterations, start.numel())):
        image = product(basis[-1])
        diagonal.append(float((image * basis[-1]).sum()))
        for own in (*basis, *basis):  # twice is enough (Kahan, in Parlett 1980)
            image = image - (image * own).sum() * own
        length = float(image.norm())
        if not length > 1e-6 * max(map(abs, diagonal)):
            break
        beside.append(length)
        basis.append(image / length)
    matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    for index, length in enumerate(beside[: len(diagonal) - 1]):
        matrix[index, index + 1] = matrix[index + 1, index] = length
    values = torch.linalg.eigvalsh(matrix)
    return Spectrum(float(values[0]), float(values[-1]), len(diagonal))


def _residual(product: LinearMap[Tensor], x: Tensor, right: Tensor, damping: float) -> float:
    size = float(right.norm())
    return float((product(x) + damping * x - right).norm()) / size if size else 0.0
