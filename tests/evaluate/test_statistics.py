"""Intervals against hand-computed values."""

import numpy as np
import pytest
from scipy.stats import binomtest

from ispf_jax.errors import UserError
from ispf_jax.evaluate.statistics import wilson


@pytest.mark.parametrize("successes, n", [(0, 10), (1, 10), (5, 10), (10, 10), (930, 1000), (1, 1)])
def test_wilson_agrees_with_scipy(successes, n):
    found, expected = wilson(successes, n), binomtest(successes, n).proportion_ci(0.95, "wilson")
    np.testing.assert_allclose([found.low, found.high], [100 * expected.low, 100 * expected.high], atol=1e-9)
    assert found.percent == 100 * successes / n and found.low <= found.percent <= found.high


def test_wilson_by_hand():
    found = wilson(5, 10)  # centre 1/2, half width 1.96 sqrt(0.025 + 0.0096) / 1.384
    np.testing.assert_allclose([found.low, found.high], [23.659, 76.341], atol=1e-3)
    np.testing.assert_allclose(wilson(0, 10).high, 100 * 3.8415 / 13.8415, atol=1e-2)


@pytest.mark.parametrize("successes, n", [(0, 0), (3, 2), (-1, 2)])
def test_wilson_of_impossible_counts(successes, n):
    with pytest.raises(UserError):
        wilson(successes, n)
