"""The certificate: noise on the published coefficients, with a residual that is checked and not estimated.

Fixed before any request, and the same for every data set: the penalty m, the tolerance rho, and (epsilon, delta).

    fit, or update:  theta with |grad L(theta; D')| <= rho on the present data D', checked in float64; kept secret
    publish:         theta + N(0, sigma^2 I),   sigma = kappa(epsilon, delta) sqrt(k) 2 rho / m,   k releases

L is m-strongly convex, so theta lies within |grad L(theta; D')| / m <= rho / m of the one minimizer on D'. A retrained
model with the same tolerance does too, so the two are at most 2 rho / m apart, whatever the data, the requests and
their order. Both are computed without the noise, so the Gaussian mechanism applies: publishing the update and
publishing the retrained model are (epsilon, delta)-indistinguishable, both ways. kappa is exact (Balle & Wang 2018,
Theorem 8), and k releases compose to one with kappa sqrt(k). The argument is that of Neel, Roth & Sharifi-Malvajerdi
2021, with the residual checked.

The published scheme (Guo et al. 2020; Warnecke et al. 2023, Theorem 2) puts the noise into the objective and asks only
that the residual stays under a bound. That does not imply its claim: the residual may depend on the noise, and a model
rounded to a grid stays under the bound while its digits give it away. ``published_sigma`` says what noise it asks for.
"""

import math
import secrets
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr

from canaryaudit.errors import UnlearningError
from canaryaudit.records import Record
from canaryaudit.tabular.linear.arrays import Mask, Vector
from canaryaudit.tabular.linear.objective import Point

LIMITS = (
    "It covers models published after the request, not one that was published before.",
    "It does not hold if the coefficients without noise, the stored inverse or the data become known.",
    "It does not cover what was computed from the removed data and stays: a vocabulary, a scaler, a chosen C.",
    "It compares with a model retrained with the same penalty and tolerance, not with one that never existed.",
)
"""What the certificate does not promise."""
_GRID_BITS = 16
"""Published coefficients are multiples of sigma / 2^16, rounded down to a power of two: no digit below carries any
information, so none can be hidden there."""


class Certificate(Record):
    """Publishing this model with noise is (epsilon, delta)-indistinguishable from publishing a retrained one.

    Examples:
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.linear_model import LogisticRegression
        >>> from canaryaudit.tabular import prepare
        >>> X, y = load_iris(return_X_y=True)
        >>> model = prepare(LogisticRegression(fit_intercept=False, C=0.5), X[:100], y[:100]).delete(rows=[4])
        >>> certificate = model.certificate(epsilon=1.0, delta=1e-6, releases=4)
        >>> certificate.strong_convexity, certificate.distance, f"{certificate.sigma:.2e}"
        (2.0, 1e-06, '8.45e-06')
    """

    epsilon: float
    delta: float
    releases: int
    """Number of models that may be published in all under this epsilon and delta."""
    kappa: float
    """Noise for each unit of distance, exact; already times the square root of ``releases``."""
    sigma: float
    """Standard deviation of the noise on every published coefficient."""
    distance: float
    """Largest Euclidean distance to a retrained model's coefficients: 2 tolerance / strong_convexity."""
    strong_convexity: float
    """m: the penalty, in sum form."""
    tolerance: float
    """rho: the largest residual with which a model is certified."""
    residual: float
    """The norm of the gradient on the present data, as computed."""
    rounding: float
    """Worst-case error of the computed gradient, by rounding and without the data by what is not known of it. Residual
    and error together are under the tolerance."""
    limits: tuple[str, ...] = LIMITS
    """What the certificate does not promise."""


@dataclass
class Releases:
    """The releases that were planned and made of one prepared model and all that come from it."""

    plan: tuple[float, float, int] | None = None
    made: int = 0

    def use(self, epsilon: float, delta: float, releases: int) -> None:
        """Count one release.

        Raises:
            UnlearningError: Another plan was begun, or all its releases were made.
        """
        if self.plan is not None and self.plan != (epsilon, delta, releases):
            raise UnlearningError(
                f"{self.plan[2]} releases at epsilon {self.plan[0]:g} and delta {self.plan[1]:g} were planned by the "
                "first publish(): give the same, or prepare the model anew"
            )
        if self.made >= releases:
            raise UnlearningError(
                f"all {releases} planned releases were made: plan more from the start with releases=, or prepare the "
                "model anew and count epsilon and delta twice"
            )
        self.plan = (epsilon, delta, releases)
        self.made += 1


def gaussian_kappa(epsilon: float, delta: float) -> float:
    """Return the smallest noise, for each unit of distance, that makes two Gaussians (epsilon, delta)-close.

    kappa is the smallest k with Phi(1/(2k) - epsilon k) - e^epsilon Phi(-1/(2k) - epsilon k) <= delta
    (Balle & Wang 2018, *Improving the Gaussian mechanism*, Theorem 8). Exact for every epsilon above 0.

    Args:
        epsilon: Above 0.
        delta: Between 0 and 1.

    Returns:
        Standard deviation over distance.

    Raises:
        UnlearningError: Epsilon or delta is out of its range.

    Examples:
        >>> round(gaussian_kappa(0.1, 0.01), 2), round(gaussian_kappa(1.0, 1e-5), 2)
        (9.54, 3.73)
    """
    if not (epsilon > 0 and math.isfinite(epsilon)):
        raise UnlearningError(f"epsilon must be a positive number, got {epsilon}")
    if not 0 < delta < 1:
        raise UnlearningError(f"delta must lie between 0 and 1, got {delta}")
    low, high = 1e-3, 1.0
    while gaussian_delta(epsilon, low) <= delta:
        low /= 2
    while gaussian_delta(epsilon, high) > delta:
        high *= 2
    kappa = float(brentq(lambda value: math.log(max(gaussian_delta(epsilon, value), 1e-320) / delta), low, high))
    while gaussian_delta(epsilon, kappa) > delta:  # brentq may end on either side
        kappa *= 1 + 1e-12
    return kappa


def gaussian_delta(epsilon: float, kappa: float) -> float:
    """Return the smallest delta of two Gaussians whose distance is 1 and whose standard deviation is ``kappa``."""
    shift, slant = 1 / (2 * kappa), epsilon * kappa
    return float(ndtr(shift - slant) - math.exp(epsilon + float(log_ndtr(-shift - slant))))


def certify(point: Point, tolerance: float, epsilon: float, delta: float, releases: int) -> Certificate:
    """Return the certificate of a model.

    Args:
        point: The model, on the present data.
        tolerance: rho, as it was fixed when the model was prepared.
        epsilon: Above 0.
        delta: Between 0 and 1.
        releases: Models to be published in all, at least 1.

    Raises:
        UnlearningError: It would not hold: the message says why, and what to do.
    """
    residual = (point.residual, point.rounding_bound())
    return certificate_of(point.objective.strong_convexity, residual, tolerance, epsilon, delta, releases)


def certificate_of(
    convexity: float, residual: tuple[float, float], tolerance: float, epsilon: float, delta: float, releases: int
) -> Certificate:
    """Return the certificate of a residual.

    Args:
        convexity: m, the smallest penalty.
        residual: As computed, and a bound on its error.
        tolerance: rho, as it was fixed when the model was prepared.
        epsilon: Above 0.
        delta: Between 0 and 1.
        releases: Models to be published in all, at least 1.

    Raises:
        UnlearningError: It would not hold: the message says why, and what to do.
    """
    if releases < 1:
        raise UnlearningError(f"the number of releases must be at least 1, got {releases}")
    if not convexity > 0:
        raise UnlearningError(
            "no certificate: the intercept is not regularized, so its distance to retraining has no bound; fit without "
            "an intercept, or regularize it: penalize_intercept=True in Python, `train` without --model"
        )
    if not sum(residual) <= tolerance:
        raise UnlearningError(
            f"no certificate: the residual of {residual[0]:.2g}, which may be off by {residual[1]:.2g}, is above "
            f"the tolerance of {tolerance:.2g}; scale rows to length 1 at most, or prepare with a larger tolerance"
        )
    kappa = gaussian_kappa(epsilon, delta) * math.sqrt(releases)
    distance = 2 * tolerance / convexity
    return Certificate(
        epsilon=epsilon,
        delta=delta,
        releases=releases,
        kappa=kappa,
        sigma=kappa * distance,
        distance=distance,
        strong_convexity=convexity,
        tolerance=tolerance,
        residual=residual[0],
        rounding=residual[1],
    )


def draw_noise(sigma: float, kept: Mask, seed: int | None) -> Vector:
    """Return fresh noise, 0 in removed columns.

    Args:
        sigma: Its standard deviation.
        kept: Which columns are there, shape (num_columns,).
        seed: For a repeatable test; None for the operating system's randomness.
    """
    generator = np.random.default_rng(secrets.randbits(256) if seed is None else seed)
    return np.where(kept, generator.normal(0.0, sigma, len(kept)), 0.0)


def on_grid(theta: Vector, sigma: float) -> Vector:
    """Return published coefficients rounded to a grid that depends on sigma alone: post-processing, which is free."""
    width = 2.0 ** (math.floor(math.log2(sigma)) - _GRID_BITS)
    return np.round(theta / width) * width


def published_sigma(residual: float, epsilon: float, delta: float) -> float:
    """Return the noise that the published scheme puts into the objective for a residual.

    sigma = sqrt(2 ln(1.5 / delta)) residual / epsilon   (Warnecke et al. 2023, Theorem 2; Guo et al. 2020, Theorem 3)
    """
    return math.sqrt(2 * math.log(1.5 / delta)) * residual / epsilon
