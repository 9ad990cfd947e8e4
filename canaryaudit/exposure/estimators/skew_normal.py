"""The literature's estimate: a skew-normal distribution fitted to reference log-perplexities, extrapolated.

It is reported beside the others, with a test of the fit, and marked as extrapolated wherever the secret
is likelier than every reference.
"""

import math

import numpy as np
from scipy import optimize, special, stats

from canaryaudit.records import Estimate, SkewNormalFit

_LARGEST_SKEW = 0.995271746431156  # of any skew-normal distribution
_LARGEST_SHAPE = 50.0  # Beyond it the distribution hardly changes any more: it is half a normal one.
FIT_SIZE = 100_000
"""References that are fitted at most: the parameters' errors are then below a hundredth of a standard deviation."""
_TEST_SIZE = 1000


def fit_skew_normal(reference_bits: np.ndarray, rng: np.random.Generator, refits: int = 59) -> SkewNormalFit:
    """Fit by maximum likelihood from moment estimates; test the fit by Monte Carlo with refitting.

    The test compares the Anderson-Darling distance of the data from their fit with the distances of
    ``refits`` samples drawn from the fit and fitted anew: p = (1 + #at least as far) / (1 + refits). Both use
    at most 1,000 references; more would refute every fit on a finite space.

    Args:
        reference_bits: Costs of uniform members of R, shape (n,).
        rng: Source of the Monte-Carlo samples.
        refits: Number of samples.
    """
    values = np.asarray(reference_bits, dtype=float)
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


def skew_normal_exposure(
    log_perplexity_bits: float, fit: SkewNormalFit, min_reference_bits: float, space_bits: float
) -> Estimate:
    """Exposure as the fit has it: -log2 F(Px(s)), capped at ``space_bits``   (Carlini et al. 2019, section 4.4).

    Args:
        log_perplexity_bits: Cost of the secret.
        fit: The fitted distribution.
        min_reference_bits: Cost of the likeliest reference; below it the figure is extrapolated.
        space_bits: log2 of the size of R.
    """
    bits = -log2_skew_normal_cdf((log_perplexity_bits - fit.location) / fit.scale, fit.shape)
    bits = min(max(bits, 0.0), space_bits)
    extrapolated = log_perplexity_bits < min_reference_bits
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
    """
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
