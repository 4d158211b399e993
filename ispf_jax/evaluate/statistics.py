"""Intervals of the audit's numbers; means and spreads over runs are the report's."""

import math
from collections.abc import Callable

import numpy as np
from scipy.special import stdtrit
from scipy.stats import binomtest

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


def mean_of_draws(values, low: float = -math.inf, high: float = math.inf) -> tuple[float, float]:
    """Student's 95 % interval of the mean of two or more independent draws, within the metric's range."""
    values = np.asarray(values, np.float64)
    arm = stdtrit(values.size - 1, 0.975) * values.std(ddof=1) / math.sqrt(values.size)
    return max(low, float(values.mean() - arm)), min(high, float(values.mean() + arm))


def jackknife(
    statistic: Callable, *arrays, groups: int = 20, low: float = -math.inf, high: float = math.inf
) -> tuple[float | None, float | None]:
    """95 % interval of a smooth statistic of examples, by leaving out every `groups`-th of them (Tukey 1958).

    The variance is (g - 1) / g sum (s_i - mean s)^2 over the values s_i without group i; the interval is Student's with
    g - 1 degrees of freedom around the value of all. (None, None) where a value is not defined.

    Args:
      statistic: arrays -> number.
      arrays: one entry per example along the first axis.
      low, high: the statistic's range.
    """
    count = len(arrays[0])
    groups = min(groups, count)
    if groups < 2:
        return None, None
    chosen = [np.arange(count) % groups != g for g in range(groups)]
    values = [statistic(*(a[rows] for a in arrays)) for rows in chosen]
    whole = statistic(*arrays)
    if None in (*values, whole):
        return None, None
    arm = stdtrit(groups - 1, 0.975) * math.sqrt((groups - 1) * np.var(values))
    return max(low, whole - arm), min(high, whole + arm)


def mcnemar(first, second) -> tuple[int, int, float]:
    """(examples only the first gets right, only the second, exact two-sided p) of two models on the same examples.

    McNemar's test (1947): under equal accuracy, those that only one gets right are of either kind by a fair coin.

    Args:
      first, second: bool [N].
    """
    first, second = np.asarray(first, bool), np.asarray(second, bool)
    only = int(np.sum(first & ~second)), int(np.sum(second & ~first))
    return *only, float(binomtest(only[0], sum(only)).pvalue) if sum(only) else 1.0
