"""How many of a generator's images are copies of one another: a collapsed generator teaches little, whatever its loss says."""

from dataclasses import dataclass

import numpy as np

from ispf_jax.errors import UserError
from ispf_jax.evaluate import inputs

NEAR = 0.1
"""Share of the typical distance (the median over all pairs) up to which two images count as near-duplicates."""


@dataclass(frozen=True)
class Duplicates:
    """Copies among n images.

    Attributes:
      exact: images that are equal in every value to another one.
      near: images whose nearest other one is no further away than `NEAR` times the typical distance; exact copies included.
      typical: median Euclidean distance over all pairs, in the unit of the values; 0 if most images are equal.
      n: number of images.
    """

    exact: int
    near: int
    typical: float
    n: int


def duplicates(values, near: float = NEAR) -> Duplicates:
    """Count copies among the rows of values [N, F]: pixels, or features of a network.

    The limit is relative, so the unit of the values and their number do not matter; unlike a fixed distance it also finds the
    generator that varies everything a little. What the same count gives on real images is the number to read it beside: nearest
    neighbours come closer as N grows, so both must be of about the same size.

    Raises:
      UserError: fewer than two rows, NaN or infinite values, a limit outside 0..1.
    """
    values = inputs.matrix("the images to compare", values)
    if len(values) < 2:
        raise UserError("There is one image only; duplicates need at least two.")
    if not 0 <= near <= 1:
        raise UserError(f"duplicates: near={near}; it must lie in 0..1, a share of the typical distance.")
    _, group, counts = np.unique(values, axis=0, return_inverse=True, return_counts=True)
    copied = counts[group.ravel()] > 1
    distance = _distances(values)
    typical = float(np.median(distance[np.triu_indices(len(values), 1)]))
    np.fill_diagonal(distance, np.inf)
    close = copied | (distance.min(axis=1) <= near * typical)
    return Duplicates(int(copied.sum()), int(close.sum()), typical, len(values))


def _distances(values):
    """Euclidean distances of all pairs of rows, [N, N]."""
    centred = values - values.mean(axis=0)  # small numbers lose less where the products cancel
    squares = np.sum(np.square(centred), axis=1)
    return np.sqrt(np.maximum(squares[:, None] + squares - 2 * centred @ centred.T, 0))
