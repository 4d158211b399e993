"""Intervals, means and spreads of the audit's numbers. Standard deviations are always named: population or sample."""

import math
from dataclasses import dataclass

import numpy as np

from ispf_jax.errors import UserError
from ispf_jax.evaluate import inputs

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


@dataclass(frozen=True)
class Spread:
    """Mean of `n` values with both standard deviations, in the unit of the values.

    `population_std` divides by n (what the paper prints, as its Table 9 shows), `sample_std` by n - 1 (None for one value).
    """

    mean: float
    population_std: float
    sample_std: float | None
    n: int


@dataclass(frozen=True)
class ClassMeans:
    """The paper's Table 1: the mean over classes of each seed, and the spread of these means over seeds.

    `missing` lists the (seed, class) pairs that a complete grid would have: the means of those seeds are over fewer classes.
    """

    per_seed: dict[int, float]
    over_seeds: Spread
    missing: tuple[tuple[int, str], ...]


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


def spread(values) -> Spread:
    """Mean and both standard deviations of a list of finite values; UserError for an empty list."""
    values = inputs.finite("values to average", values).ravel()
    sample = float(np.std(values, ddof=1)) if values.size > 1 else None
    return Spread(float(np.mean(values)), float(np.std(values)), sample, int(values.size))


def class_means(values: dict[tuple[int, str], float]) -> ClassMeans:
    """Mean over classes per seed, then the spread over seeds, as the paper averages.

    Args:
      values: {(seed, forgotten class or classes): value}. An unfinished sweep may lack cells; they are named in `missing`.
    """
    inputs.finite("values to average", list(values.values()))
    seeds = sorted({seed for seed, _ in values})
    classes = sorted({name for _, name in values}, key=lambda name: (len(str(name)), str(name)))
    per_seed = {seed: float(np.mean([values[seed, name] for name in classes if (seed, name) in values])) for seed in seeds}
    missing = tuple((seed, name) for seed in seeds for name in classes if (seed, name) not in values)
    return ClassMeans(per_seed, spread(list(per_seed.values())), missing)
