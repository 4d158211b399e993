"""Copies among images: by hand, and against a loop over all pairs."""

import math
from itertools import combinations
from statistics import median

import numpy as np
import pytest

from ispf_jax.evaluate.duplicates import Duplicates, duplicates


def test_by_hand():
    """Distances of 0, 0, 1, 10 on a line: 0, 1, 10, 1, 10, 9, median 5; only the twins are exact, and 1 is within a
    fifth of 5."""
    values = np.array([[0.0], [0.0], [1.0], [10.0]])
    assert duplicates(values) == Duplicates(exact=2, near=2, n=4)
    assert duplicates(values, near=0.2) == Duplicates(2, 3, 4)


def slow(values, near):
    values = [tuple(map(float, row)) for row in values]
    typical = median(math.dist(a, b) for a, b in combinations(values, 2))
    nearest = [min(math.dist(a, b) for j, b in enumerate(values) if j != i) for i, a in enumerate(values)]
    return Duplicates(sum(d == 0 for d in nearest), sum(d <= near * typical for d in nearest), len(values))


@pytest.mark.parametrize("seed", range(3))
def test_against_all_pairs(seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(100, 1, (40, 5))
    values[3] = values[17] = values[20]
    values[5] = values[6] + 0.01
    for near in (0.0, 0.1, 0.5):
        assert duplicates(values, near) == slow(values, near)


def test_bytes_of_images_and_any_unit_give_the_same():
    images = np.random.default_rng(0).integers(0, 256, (30, 16), np.uint8)
    images[4] = images[9]
    images[11] = images[12] ^ 1
    found = duplicates(images)
    assert (found.exact, found.near) == (2, 4)
    scaled = duplicates(1e-6 * images.astype(float) + 7)
    assert (scaled.exact, scaled.near) == (2, 4)


def test_a_collapsed_generator_makes_nothing_but_copies():
    assert duplicates(np.ones((8, 4))) == Duplicates(8, 8, 8)
