"""The one way in which this report averages over runs, so that no two of its tables can disagree."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ispf_jax.runtime.rows import RunKey


@dataclass(frozen=True)
class Average:
    """Mean over the forget sets of a seed, then over seeds, as the paper averages (its Table 1).

    Over the seeds' means, `std` is the population standard deviation (ddof=0, the paper's) and `sample_std` that of a
    sample (ddof=1, the larger); both NaN with a single seed.
    """

    mean: float
    std: float = float("nan")
    sample_std: float = float("nan")

    def text(self, digits: int = 2) -> str:
        """`92.68 +/- 0.13`, without a spread if there is none."""
        return f"{self.mean:.{digits}f}" + (f" +/- {self.std:.{digits}f}" if self.std == self.std else "")


def average(values: dict[RunKey, float]) -> Average | None:
    """The average of the runs' values; None if there are none. Seeds weigh the same, also if some runs are missing."""
    by_seed = defaultdict(list)
    for (_, seed), value in values.items():
        by_seed[seed].append(value)
    means = [np.mean(numbers) for numbers in by_seed.values()]
    if len(means) < 2:
        return Average(float(means[0])) if means else None
    return Average(float(np.mean(means)), float(np.std(means)), float(np.std(means, ddof=1)))


def count(runs: Iterable[RunKey]) -> str:
    """`10 x 3`: forget sets x seeds, with the number of runs where some of them are missing."""
    runs = set(runs)
    sets, seeds = (len(set(axis)) for axis in zip(*runs))
    return f"{sets} x {seeds}" + (f" ({len(runs)} runs)" if len(runs) < sets * seeds else "")
