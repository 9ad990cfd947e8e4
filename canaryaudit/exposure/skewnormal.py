"""The literature's estimate: a skew-normal distribution fitted to reference log-perplexities, extrapolated.

It is reported beside the others, with a test of the fit, and marked as extrapolated wherever the secret
is likelier than every reference.
"""

import math
import warnings

import numpy as np
from scipy import optimize, special, stats

from canaryaudit.records import Estimate, SkewNormalFit

_LARGEST_SKEW = 0.995271746431156  # of any skew-normal distribution
_TEST_SIZE = 1000


def fit_skew_normal(reference_bits: np.ndarray, rng: np.random.Generator, refits: int = 59) -> SkewNormalFit:
    """Fit by maximum likelihood from moment estimates; test the fit by Monte Carlo with refitting.

    The test compares the Anderson-Darling distance of the data from their fit with the distances of
    ``refits`` samples drawn from the fit and fitted anew: p = (1 + #at least as far) / (1 + refits). Both use
    at most 1,000 references; more would refute every fit on a finite space.

    Args:
        reference_bits: Costs of uniform members of R, shape (n,).
        rng: Source of the Monte-Carlo samples.
        refits: Number of samples; 0 leaves the test out (p = NaN is never written: it is 0 then).
    """
    values = np.asarray(reference_bits, dtype=float)
    if len(values) < 20 or values.std() < 1e-9:
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

    F(z) = integral over t < z of 2 phi(t) Phi(shape t), summed in log space from z downwards. The tail
    falls at least as fast as exp(-u^2/2) from wherever its density peaks.
    """
    if z > 0 or (shape < 0 and z > -5):
        value = float(stats.skewnorm.cdf(z, shape))
        if value > 1e-9:
            return math.log2(value)
    # The integrand's log is concave; its slope at z gives the length on which it falls.
    slope = -z + (shape * math.exp(_log_phi(shape * z) - special.log_ndtr(shape * z)))
    reach = 45.0 / max(slope, 1.0) if z <= 0 else 45.0
    u = np.linspace(0.0, reach, 4001)
    log_density = math.log(2) + _log_phi(z - u) + special.log_ndtr(shape * (z - u))
    weights = np.full(len(u), u[1] - u[0])
    weights[[0, -1]] /= 2
    return float(special.logsumexp(log_density, b=weights) / math.log(2))


def _log_phi(x: "float | np.ndarray") -> "float | np.ndarray":
    return -0.5 * x * x - 0.5 * math.log(2 * math.pi)


def _maximum_likelihood(values: np.ndarray) -> tuple[float, float, float, bool]:
    """Return shape, location, scale and whether the optimiser converged; robust moment estimates start it."""
    mean, deviation = values.mean(), values.std()
    skew = float(np.clip(stats.skew(values), -0.95 * _LARGEST_SKEW, 0.95 * _LARGEST_SKEW))
    root = abs(skew) ** (2 / 3)
    delta = math.copysign(math.sqrt(math.pi / 2 * root / (root + ((4 - math.pi) / 2) ** (2 / 3))), skew)
    scale = deviation / math.sqrt(1 - 2 * delta**2 / math.pi)
    begin = np.array(
        [delta / math.sqrt(1 - delta**2), (mean - scale * delta * math.sqrt(2 / math.pi)), math.log(scale)]
    )

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        shape, location, log_scale = parameters
        z = (values - location) * math.exp(-log_scale)
        log_cdf = special.log_ndtr(shape * z)
        ratio = np.exp(_log_phi(shape * z) - log_cdf)  # phi/Phi
        value = log_scale + (0.5 * z * z - log_cdf).mean()
        slope = z - shape * ratio
        gradient = np.array([-(z * ratio).mean(), -slope.mean() * math.exp(-log_scale), 1 - (slope * z).mean()])
        return float(value), gradient

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        result = optimize.minimize(
            loss, begin, jac=True, method="L-BFGS-B", bounds=[(-50, 50), (None, None), (-20, 20)]
        )
    shape, location, log_scale = result.x
    return float(shape), float(location), math.exp(float(log_scale)), bool(result.success)


def _anderson_darling(values: np.ndarray, shape: float, location: float, scale: float) -> float:
    ordered = np.sort((values - location) / scale)
    # Owen's T gives the distribution function at vector speed.
    cdf = np.clip(special.ndtr(ordered) - 2 * special.owens_t(ordered, shape), 1e-12, 1 - 1e-12)
    n = len(ordered)
    odd = 2 * np.arange(1, n + 1) - 1
    return float(-n - (odd * (np.log(cdf) + np.log1p(-cdf[::-1]))).mean())
