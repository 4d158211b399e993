"""Intervals against hand-computed values."""

import numpy as np
import pytest
from scipy.stats import binomtest, sem, t

from ispf_jax.evaluate.statistics import jackknife, mcnemar, mean_of_draws, mean_share, wilson


@pytest.mark.parametrize("successes, n", [(0, 10), (1, 10), (5, 10), (10, 10), (930, 1000), (1, 1)])
def test_wilson_agrees_with_scipy(successes, n):
    found, expected = wilson(successes / n, n), binomtest(successes, n).proportion_ci(0.95, "wilson")
    np.testing.assert_allclose(found, [100 * expected.low, 100 * expected.high], atol=1e-9)
    assert found[0] <= 100 * successes / n <= found[1]


def test_equal_draws_have_the_interval_of_one():
    for share in (0, 0.4, 1):
        np.testing.assert_allclose(mean_share([100 * share] * 5, 10), wilson(share, 10))


def test_mean_of_draws_by_hand():
    """Draws of 40, 50 and 60 % of 10 examples: Wilson's 23.659 to 76.341 around 50; t(2) = 4.3027, half width 4.3027 x
    10 / sqrt 3 = 24.841."""
    np.testing.assert_allclose(
        mean_share([40, 50, 60], 10), [50 - np.hypot(26.341, 24.841), 50 + np.hypot(26.341, 24.841)], atol=1e-3
    )
    many = 10**9  # on so many examples only the draws are left to chance
    np.testing.assert_allclose(mean_share([40, 50, 60], many), t.interval(0.95, 2, 50, 10 / np.sqrt(3)), atol=0.01)
    assert mean_share([0, 0, 90], 10)[0] == 0 and mean_share([100, 100, 10], 10)[1] == 100


@pytest.mark.parametrize("by_draw, n", [(0.0, 40), (0.15, 40), (0.15, 1000), (0.02, 1000)])
def test_the_interval_covers_the_share_over_all_draws_and_examples(by_draw, n):
    """Examples of different difficulty, draws of different quality, 2000 times: at least 95 % of the intervals hold the
    true share."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(2000):
        chance = np.clip(0.5 + by_draw * rng.uniform(-1, 1, (5, 1)) + 0.2 * rng.choice([-1, 1], n), 0, 1)
        low, high = mean_share(100 * (rng.random((5, n)) < chance).mean(axis=1), n)
        covered += low <= 50 <= high
    assert covered / 2000 >= 0.95


def test_the_jackknife_of_a_mean_is_students_interval():
    """With one value per group, against scipy."""
    values = np.random.default_rng(0).normal(3, 2, 20)
    low, high = t.interval(0.95, 19, values.mean(), sem(values))
    assert jackknife(np.mean, values) == pytest.approx((low, high))
    assert jackknife(np.mean, values, low=2.9, high=3.1)[0] == max(low, 2.9)
    assert jackknife(lambda _: None, values) == jackknife(np.mean, values[:1]) == (None, None)


def test_the_mean_of_draws_has_students_interval():
    draws = [1.0, 2.0, 6.0]
    expected = t.interval(0.95, 2, 3, sem(draws))
    assert mean_of_draws(draws) == pytest.approx(expected)
    assert mean_of_draws(draws, low=0) == pytest.approx((0, expected[1]))


def test_mcnemar_by_hand():
    """Of five that only one gets right, all go to the first: 2 / 2^5; equal models: 1."""
    first, second = np.array([1, 1, 1, 1, 1, 1, 0]), np.array([0, 0, 0, 0, 0, 1, 0])
    assert mcnemar(first, second) == (5, 0, pytest.approx(2 / 32))
    assert mcnemar(first, first) == (0, 0, 1.0)
