"""Intervals of the audit's shares; means and spreads over runs are the report's (`report/averages.py`)."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from ispf_jax.errors import UserError

Z95 = 1.959963984540054
"""Two-sided 95 % quantile of the standard normal distribution."""


@dataclass(frozen=True)
class Proportion:
    """A share of `n` examples in percent, with its 95 % Wilson interval [low, high] in percent."""

    percent: float
    low: float
    high: float
    successes: int
    n: int


def wilson(successes: int, n: int) -> Proportion:
    """Share of successes with the Wilson score interval (Wilson 1927), 95 %; percent, 0..100.

    With p = successes / n: centre (p + z^2/2n) / (1 + z^2/n), half width z sqrt(p(1-p)/n + z^2/4n^2) / (1 + z^2/n). Unlike the
    normal approximation it is not empty at 0 or n successes. UserError for n = 0 or successes outside 0..n.
    """
    if n <= 0:
        raise UserError("A share of no examples is undefined: there were no images to count on.")
    if not 0 <= successes <= n:
        raise UserError(f"{successes} successes of {n} examples cannot be; the count must lie in 0..{n}.")
    return Proportion(100 * successes / n, *_limits(successes / n, n), int(successes), int(n))


def mean_share(percents, n: int) -> tuple[float, float]:
    """95 % interval [low, high] in percent of the mean of `percents`: shares of the same `n` examples, one for each of some random draws.

    Two chances decide the mean: which examples there are (Wilson's interval at the mean; several draws on the same examples do not
    narrow it) and which draws were made (Student's t interval of their mean). Distances to the limits add in squares (MOVER, Zou &
    Donner 2008). UserError for fewer than two draws.
    """
    percents = np.asarray(percents, np.float64)
    if percents.size < 2:
        raise UserError(
            f"The spread of {percents.size} draw(s) is unknown; an interval of their mean needs two or more."
        )
    mean = percents.mean()
    low, high = _limits(mean / 100, n)
    by_draws = stdtrit(percents.size - 1, 0.975) * percents.std(ddof=1) / math.sqrt(percents.size)
    return max(0.0, float(mean - math.hypot(mean - low, by_draws))), min(
        100.0, float(mean + math.hypot(high - mean, by_draws))
    )


def _limits(p, n):
    """Wilson's limits in percent of a share p of n examples."""
    z2 = Z95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    # At the ends the interval touches 0 or 100 exactly; in floating point only nearly.
    return 0.0 if p == 0 else 100 * (centre - half), 100.0 if p == 1 else 100 * (centre + half)
