"""Intervals of the audit's shares; means and spreads over runs are the report's (`report/averages.py`)."""

import math
from dataclasses import dataclass

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
    p, z2 = successes / n, Z95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    # At the ends the interval touches 0 or 100 exactly; in floating point only nearly.
    low = 0.0 if successes == 0 else 100 * (centre - half)
    high = 100.0 if successes == n else 100 * (centre + half)
    return Proportion(100 * p, low, high, int(successes), int(n))
