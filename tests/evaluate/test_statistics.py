"""Intervals and spreads against hand-computed values."""

import numpy as np
import pytest
from scipy.stats import binomtest

from ispf_jax.errors import UserError
from ispf_jax.evaluate.statistics import class_means, spread, wilson


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


def test_spread_by_hand():
    found = spread([1.0, 2.0, 6.0])
    assert found.mean == 3.0 and found.n == 3
    np.testing.assert_allclose([found.population_std, found.sample_std], [np.sqrt(14 / 3), np.sqrt(7)])
    assert spread([4.0]).sample_std is None and spread([4.0]).population_std == 0


@pytest.mark.parametrize("values", [[], [1.0, np.nan]])
def test_spread_of_nothing_or_nan(values):
    with pytest.raises(UserError):
        spread(values)


def test_class_means_per_seed_then_over_seeds():
    found = class_means({(0, "1"): 10.0, (0, "2"): 20.0, (1, "1"): 30.0, (1, "2"): 40.0})
    assert found.per_seed == {0: 15.0, 1: 35.0} and found.missing == ()
    assert found.over_seeds.mean == 25 and found.over_seeds.population_std == 10
    np.testing.assert_allclose(found.over_seeds.sample_std, np.sqrt(200))


def test_class_means_of_an_unfinished_sweep_name_what_is_missing():
    found = class_means({(0, "2"): 20.0, (0, "10"): 40.0, (1, "2"): 30.0})
    assert found.per_seed == {0: 30.0, 1: 30.0} and found.missing == ((1, "10"),)
