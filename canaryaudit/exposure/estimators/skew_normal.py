"""The literature's estimate: a skew-normal distribution fitted to reference log-perplexities, extrapolated.

It is reported beside the others, with a test of the fit, and marked as extrapolated wherever the secret
is likelier than every reference.
"""

import math
from typing import overload

import numpy as np
from scipy import optimize, special, stats

from canaryaudit.errors import MeasurementError
from canaryaudit.exposure.estimators.arrays import (
    Values,
    check_sign,
    estimate_each,
    read_bits,
    read_references,
    read_space_bits,
)
from canaryaudit.records import Estimate, SkewNormalFit

_LARGEST_SKEW = 0.995271746431156  # of any skew-normal distribution
_LARGEST_SHAPE = 50.0  # Beyond it the distribution hardly changes any more: it is half a normal one.
FIT_SIZE = 100_000
"""References that are fitted at most: the parameters' errors are then below a hundredth of a standard deviation."""
_TEST_SIZE = 1000


def fit_skew_normal(references: Values, seed: int | np.random.Generator = 0, refits: int = 59) -> SkewNormalFit:
    """Fit a skew-normal distribution to reference log-perplexities, and test the fit.

    The density is 2/scale phi(z) Phi(shape z) with z = (x - location) / scale   (Azzalini 1985). The fit is by maximum
    likelihood from moment estimates. The test compares the Anderson-Darling distance of the data from their fit with
    the distances of ``refits`` samples drawn from the fit and fitted anew: p = (1 + #at least as far) / (1 + refits).
    Both use at most 1,000 references; more would refute every fit on a finite space.

    Args:
        references: Log-perplexities of uniform members of R, in bits, shape (n,).
        seed: Of the test's random samples, or their generator.
        refits: Number of samples.

    Returns:
        The parameters, the test's p-value and whether the maximum was found; too few distinct references for a fit
        are said in its note.

    Raises:
        MeasurementError: A value is no finite number, or ``refits`` is below 1.

    Examples:
        >>> from scipy import stats
        >>> references = stats.skewnorm.rvs(3, 30, 2, size=5_000, random_state=0)
        >>> fit = fit_skew_normal(references, seed=0)
        >>> print(f"shape {fit.shape:.1f}, location {fit.location:.1f}, scale {fit.scale:.1f}; p {fit.pvalue:.2f}")
        shape 2.8, location 30.0, scale 2.0; p 0.23
    """
    if refits < 1:
        raise MeasurementError(f"refits: expected at least 1, got {refits}: 59 give p-values in steps of 1/60")
    rng, values = np.random.default_rng(seed), read_references(references, "references", 0)
    if len(values) > FIT_SIZE:
        values = rng.choice(values, FIT_SIZE, replace=False)
    if len(values) < 20 or values.std() < 1e-9 * max(1.0, abs(values.mean())):
        return SkewNormalFit(
            shape=0.0,
            location=float(values.mean()) if len(values) else 0.0,
            scale=float(max(values.std(), 1e-9)) if len(values) else 1.0,
            pvalue=0.0,
            converged=False,
            note="too few distinct references for a fit",
        )
    shape, location, scale, converged = _maximum_likelihood(values)
    tested = rng.choice(values, _TEST_SIZE, replace=False) if len(values) > _TEST_SIZE else values
    distance = _anderson_darling(tested, *_maximum_likelihood(tested)[:3])
    further = 0
    for _ in range(refits):
        drawn = stats.skewnorm.rvs(shape, location, scale, size=len(tested), random_state=rng)
        further += _anderson_darling(drawn, *_maximum_likelihood(drawn)[:3]) >= distance
    pvalue = (1 + further) / (1 + refits)
    note = "" if converged else "the likelihood's maximum was not found"
    if pvalue < 0.05:
        note = "the references are not skew-normal: do not rely on the extrapolation"
    return SkewNormalFit(shape=shape, location=location, scale=scale, pvalue=pvalue, converged=converged, note=note)


@overload
def skew_normal_exposure(
    secrets: float, references: Values, space_bits: float, *, fit: SkewNormalFit | None = None
) -> Estimate: ...
@overload
def skew_normal_exposure(
    secrets: Values, references: Values, space_bits: float, *, fit: SkewNormalFit | None = None
) -> list[Estimate]: ...
def skew_normal_exposure(
    secrets: float | Values, references: Values, space_bits: float, *, fit: SkewNormalFit | None = None
) -> Estimate | list[Estimate]:
    """Extrapolate exposure with a skew-normal distribution fitted to reference log-perplexities.

    exposure(s) = -log2 F(Px(s)), F the fitted distribution function, capped at ``space_bits``   (Carlini et al. 2019,
    section 4.4). The interval is unknown and given as the whole range.

    Args:
        secrets: Log-perplexity of one secret, or of several of one space, in bits, shape (k,).
        references: Log-perplexities of uniform members of R, in bits, shape (n,); of a secret below all of them the
            figure is extrapolated.
        space_bits: log2 of the size of R.
        fit: The fitted distribution, if there is one already; of ``references`` only the smallest matters then.

    Returns:
        An ``Estimate`` for one secret, a list of them for several. It is trusted where the fit was not refuted and the
        secret lies within the references.

    Raises:
        MeasurementError: No reference, a value that is no finite number, or ``space_bits`` below 1.

    Examples:
        >>> from scipy import stats
        >>> references = stats.skewnorm.rvs(3, 30, 2, size=2_000, random_state=1)
        >>> likely, memorized = skew_normal_exposure([31.0, 20.0], references, space_bits=33.2)
        >>> round(likely.bits, 1), likely.extrapolated
        (1.4, False)
        >>> memorized.bits, memorized.extrapolated, memorized.trusted
        (33.2, True, False)
    """
    sample = read_references(references, "references", 1)
    space = read_space_bits(space_bits)
    check_sign(read_bits(secrets, "secrets"), sample)
    fitted = fit or fit_skew_normal(sample)
    likeliest = float(sample.min())
    result: Estimate | list[Estimate] = estimate_each(secrets, lambda cost: _estimate(cost, fitted, likeliest, space))
    return result


def _estimate(cost: float, fit: SkewNormalFit, min_reference_bits: float, space_bits: float) -> Estimate:
    bits = -log2_skew_normal_cdf((cost - fit.location) / fit.scale, fit.shape)
    bits = min(max(bits, 0.0), space_bits)
    extrapolated = cost < min_reference_bits
    trusted = fit.converged and fit.pvalue >= 0.05 and not extrapolated
    note = fit.note or ("extrapolated beyond every reference" if extrapolated else "")
    return Estimate(bits=bits, low=0.0, high=space_bits, trusted=trusted, note=note, extrapolated=extrapolated)


def log2_skew_normal_cdf(z: float, shape: float) -> float:
    """log2 of the standard skew-normal distribution function, without underflow.

    F(z) = integral over t < z of 2 phi(t) Phi(shape t) = Phi(z) - 2 T(z, shape), T Owen's function. Where that
    difference cancels, in the lower tail, the integral is summed in log space from z downwards.

    Args:
        z: Standardized value; beyond 1e6 in size it is taken as 1e6.
        shape: Of the distribution; beyond 1e6 in size it is taken as 1e6.

    Returns:
        A number of at most 0.

    Raises:
        MeasurementError: One of them is NaN.

    Examples:
        >>> round(log2_skew_normal_cdf(0.0, 1.0), 6)  # scipy.stats.skewnorm.cdf(0, 1) is 1/4
        -2.0
        >>> round(log2_skew_normal_cdf(-30.0, 5.0))  # where scipy gives 0
        -16898
    """
    if math.isnan(z) or math.isnan(shape):
        raise MeasurementError("expected numbers for z and shape, got NaN: fit the references again")
    z, shape = (min(max(value, -1e6), 1e6) for value in (z, shape))
    value = float(special.ndtr(z) - 2 * special.owens_t(z, shape))
    if value > 1e-6:
        return min(0.0, math.log2(value))
    # From here on z lies below the density's peak: its log is concave and falls downwards from z, the faster the
    # further down. The slope at z tells how far it is worth looking. phi/Phi is sqrt(2/pi)/erfcx(-x/sqrt(2)).
    slope = -z + shape * math.sqrt(2 / math.pi) / float(special.erfcx(-shape * z / math.sqrt(2)))
    u = np.linspace(0.0, 45.0 / slope, 4001)
    log_density = math.log(2) + _log_phi(z - u) + special.log_ndtr(shape * (z - u))
    return float((special.logsumexp(log_density - log_density[0], b=_simpson(u)) + log_density[0]) / math.log(2))


def _simpson(places: np.ndarray) -> np.ndarray:
    """Weights of Simpson's rule at an odd number of equidistant places."""
    weights = np.full(len(places), 2.0)
    weights[1::2] = 4.0
    weights[[0, -1]] = 1.0
    weights *= (places[1] - places[0]) / 3
    return weights


def _log_phi(x: np.ndarray) -> np.ndarray:
    density: np.ndarray = -0.5 * x * x - 0.5 * math.log(2 * math.pi)
    return density


def _maximum_likelihood(values: np.ndarray) -> tuple[float, float, float, bool]:
    """Return shape, location, scale and whether the optimizer converged; robust moment estimates start it."""
    mean, deviation = float(values.mean()), float(values.std())
    v = (values - mean) / deviation  # so that all parameters are of size 1
    skew = float(np.clip((v**3).mean(), -0.95 * _LARGEST_SKEW, 0.95 * _LARGEST_SKEW))
    root = abs(skew) ** (2 / 3)
    delta = math.copysign(math.sqrt(math.pi / 2 * root / (root + ((4 - math.pi) / 2) ** (2 / 3))), skew)
    scale = 1 / math.sqrt(1 - 2 * delta**2 / math.pi)
    begin = np.array([delta / math.sqrt(1 - delta**2), -scale * delta * math.sqrt(2 / math.pi), math.log(scale)])

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        shape, location, log_scale = parameters
        z = (v - location) * math.exp(-log_scale)
        log_cdf = special.log_ndtr(shape * z)
        ratio = math.sqrt(2 / math.pi) / special.erfcx(-shape * z / math.sqrt(2))  # phi/Phi
        value = log_scale + (0.5 * z * z - log_cdf).mean()
        slope = z - shape * ratio
        gradient = np.array([-(z * ratio).mean(), -slope.mean() * math.exp(-log_scale), 1 - (slope * z).mean()])
        return float(value), gradient

    bounds = [(-_LARGEST_SHAPE, _LARGEST_SHAPE), (-10, 10), (-10, 10)]
    # Not L-BFGS-B: for three parameters it starts the linear algebra's threads, which took ten times the work's time.
    options = {"ftol": 1e-11, "maxiter": 300}
    result = optimize.minimize(loss, begin, jac=True, method="SLSQP", bounds=bounds, options=options)
    shape, location, log_scale = (float(value) for value in result.x)
    return shape, mean + deviation * location, deviation * math.exp(log_scale), bool(result.success)


def _anderson_darling(values: np.ndarray, shape: float, location: float, scale: float) -> float:
    ordered = np.sort((values - location) / scale)
    # Owen's T gives the distribution function at vector speed.
    cdf = np.clip(special.ndtr(ordered) - 2 * special.owens_t(ordered, shape), 1e-12, 1 - 1e-12)
    n = len(ordered)
    odd = 2 * np.arange(1, n + 1) - 1
    return float(-n - (odd * (np.log(cdf) + np.log1p(-cdf[::-1]))).mean())
