"""What an attacker with retrained models sees: by hand, and on two distributions that are or are not the same."""

import numpy as np
import pytest

from ispf_jax.evaluate.oracles import class_leak, deviations, klom

FORGOTTEN = np.arange(4) == 1


def logits(seed, shift=0.0):
    z = np.random.default_rng(seed).normal(size=(200, 4))
    z[:, 0] += shift
    return z


def test_neighbours_give_a_model_away_only_where_they_differ():
    same, other = class_leak(logits(0), logits(1), FORGOTTEN), class_leak(logits(0, 3.0), logits(1), FORGOTTEN)
    assert same.shape == (2, 200) and 0.4 < same.mean() < 0.6 and other.mean() > 0.85


def test_the_forgotten_logit_itself_is_not_looked_at():
    hidden = logits(0)
    hidden[:, 1] = -30
    assert np.array_equal(class_leak(hidden, logits(1), FORGOTTEN), class_leak(logits(0), logits(1), FORGOTTEN))


def test_deviations_by_hand():
    """Two retrained models: means 1 and 5, variances (ddof=1) 2 and 0, so the pooled deviation is 1."""
    retrained = np.array([[0.0, 5.0], [2.0, 5.0]])
    np.testing.assert_allclose(deviations(np.array([4.0, 4.0]), retrained), [3, -1])
    np.testing.assert_allclose(deviations(retrained[0], retrained, skip=0), [-2, 0])
    assert klom(np.array([3.0, -1.0])) == pytest.approx((9 + 1) / 4)
