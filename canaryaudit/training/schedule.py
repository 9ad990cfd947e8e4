"""The training schedule: the order of windows and the learning rate."""

import math

import numpy as np


def one_cycle(step: int, total_steps: int, peak: float) -> float:
    """Return the learning rate of ``step``: it rises along a cosine for 30 % of the steps, then falls to almost zero.

    Source: Smith & Topin 2019, *Super-Convergence*; start at peak/25, end at peak/250,000.
    """
    rise = 0.3 * total_steps
    if step < rise:
        low, high, share = peak / 25, peak, step / rise
    else:
        low, high, share = peak, peak / 250_000, (step - rise) / max(1.0, total_steps - rise)
    return low + (high - low) * (1 - math.cos(math.pi * min(1.0, share))) / 2


def window_starts(num_symbols: int, window: int, seed: int, epoch: int) -> np.ndarray:
    """Return the shuffled starts of an epoch's windows: adjacent windows from a random offset, shape (W,).

    The windows predict every character except fewer than ``window`` + 1 at the start and fewer than ``window`` at the
    end; the exceptions vary by epoch.
    """
    rng = np.random.default_rng((seed, epoch))
    starts = np.arange(rng.integers(min(window, num_symbols - window)), num_symbols - window, window)
    rng.shuffle(starts)
    return starts
