"""How many of a generator's images are copies of one another: a collapsed generator teaches little, whatever its loss
says."""

from typing import NamedTuple

import numpy as np
from sklearn.metrics.pairwise import euclidean_distances

NEAR = 0.1
"""Share of the typical distance (the median over all pairs) up to which two images count as near-duplicates."""


class Duplicates(NamedTuple):
    """Copies among n images: equal to another one in every value, or no further from one than `NEAR` times the typical
    distance."""

    exact: int
    near: int
    n: int


def duplicates(values, near: float = NEAR) -> Duplicates:
    """Count copies among the rows of values [N, F]: pixels, or features of a network.

    The limit is relative, so the unit of the values and their number do not matter; unlike a fixed distance it also
    finds the generator that varies everything a little. Compare with the same count on as many real images: nearest
    neighbours come closer as N grows. UserError for fewer than two rows, NaN or infinite values.
    """
    values = np.asarray(values, np.float64)
    _, group, counts = np.unique(values, axis=0, return_inverse=True, return_counts=True)
    copied = counts[group.ravel()] > 1
    distance = euclidean_distances(values - values.mean(axis=0))  # centred: less is lost where products cancel
    typical = np.median(distance[np.triu_indices(len(values), 1)])
    np.fill_diagonal(distance, np.inf)
    close = copied | (distance.min(axis=1) <= near * typical)
    return Duplicates(int(copied.sum()), int(close.sum()), len(values))
