"""Intervals of the audit's shares; means and spreads over runs are the report's."""

import math

import numpy as np
from scipy.special import stdtrit

Z95 = 1.959963984540054
"""Two-sided 95 % quantile of the standard normal distribution."""


def wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % score interval (1927), low and high in percent, of a share 0..1 of `n` examples, which need not be
    a whole number of them.

    Centre (p + z^2/2n) / (1 + z^2/n), half width z sqrt(p(1-p)/n + z^2/4n^2) / (1 + z^2/n). Unlike the normal
    approximation it is not empty at 0 or 1.
    """
    z2 = Z95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    # At the ends the interval touches 0 or 100 exactly; in floating point only nearly.
    return 0.0 if share == 0 else 100 * (centre - half), 100.0 if share == 1 else 100 * (centre + half)


def mean_share(percents, n: int) -> tuple[float, float]:
    """95 % interval, low and high in percent, of the mean of `percents`: shares of the same `n` examples, one for each
    of two or more random draws.

    Two chances decide the mean: which examples there are (Wilson's interval at the mean; several draws on the same
    examples do not narrow it) and which draws were made (Student's t interval of their mean). Distances to the limits
    add in squares (MOVER, Zou & Donner 2008).
    """
    percents = np.asarray(percents, np.float64)
    mean = float(percents.mean())
    low, high = wilson(mean / 100, n)
    by_draws = stdtrit(percents.size - 1, 0.975) * percents.std(ddof=1) / math.sqrt(percents.size)
    below, above = math.hypot(mean - low, by_draws), math.hypot(high - mean, by_draws)
    return max(0.0, mean - below), min(100.0, mean + above)
