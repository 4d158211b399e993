"""Likelihood ratios, ROC and low false-positive rates by hand, against SciPy and scikit-learn."""

import numpy as np
import pytest
from scipy.stats import norm

from ispf_jax.evaluate import lira

TARGET = np.array([2.0, -1.0])
SHADOWS = np.array([[1.0, 0.0], [3.0, 2.0], [-1.0, -4.0], [0.0, -2.0]])
MEMBER = np.array([[1, 1], [1, 1], [0, 0], [0, 0]], bool)


def test_every_image_is_in_half_of_the_shadows():
    members = lira.halves(30, 6, seed=0)
    assert members.shape == (6, 30) and np.all(members.sum(axis=0) == 3) and np.all(members.sum(axis=1) == 15)
    np.testing.assert_array_equal(
        lira.halves(30, 16, seed=0)[:6], members
    )  # those that are trained already keep their halves
    assert len({tuple(m) for m in members}) == 6


def test_images_with_two_shadows_on_either_side_can_be_fitted():
    member = np.array([[1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [1, 0, 0, 0, 1], [0, 0, 0, 0, 1]], bool)
    np.testing.assert_array_equal(lira.fittable(member), [False, True, False, False, True])


def test_online_scores_by_hand():
    # Means 2, 1 (in) and -1/2, -3 (out); sample deviations sqrt 2 (in), sqrt 1/2, sqrt 2 (out).
    expected = norm.logpdf(TARGET, [2, 1], np.sqrt([2, 2])) - norm.logpdf(TARGET, [-0.5, -3], np.sqrt([0.5, 2]))
    np.testing.assert_allclose(lira.online_scores(TARGET, SHADOWS, MEMBER), expected)
    pooled = norm.logpdf(TARGET, [2, 1], np.sqrt(2)) - norm.logpdf(TARGET, [-0.5, -3], np.sqrt(1.25))
    np.testing.assert_allclose(lira.online_scores(TARGET, SHADOWS, MEMBER, pooled=True), pooled)


def test_equal_shadows_fall_back_to_the_smallest_deviation():
    shadows = np.repeat([[1.0], [0.0]], 2, axis=0)
    found = lira.online_scores(np.array([1.0]), shadows, np.array([[1], [1], [0], [0]], bool))
    np.testing.assert_allclose(found, 0.5 / lira.SMALLEST_STD**2)


def test_curve_by_hand():
    """Scores 0.9, 0.8 (twice), 0.3 of a member, one of either kind, a non-member."""
    truth = np.array([True, False, True, False])
    assert lira.roc_summary(np.array([0.9, 0.8, 0.8, 0.3]), truth) == (0.875, 50, 50)


@pytest.mark.parametrize("spread", [0.3, 1.5, 4.0])
def test_curve_against_all_thresholds(spread):
    """Area as the chance that a member outranks a non-member; rates from every threshold in turn."""
    rng = np.random.default_rng(0)
    truth = rng.random(1500) < 0.3
    scores = np.round(rng.normal(truth * spread, 1), 2)  # with ties
    inside, outside = scores[truth], scores[~truth]
    auc, at_1, at_01 = lira.roc_summary(scores, truth)
    pairs = inside[:, None] - outside
    assert auc == pytest.approx(np.mean(pairs > 0) + np.mean(pairs == 0) / 2)
    thresholds = np.append(np.unique(scores), np.inf)
    for found, limit in ((at_1, 0.01), (at_01, 0.001)):
        assert found == pytest.approx(
            100 * max(np.mean(inside >= t) for t in thresholds if np.mean(outside >= t) <= limit)
        )


def test_constant_scores_are_guessing_and_perfect_ones_are_perfect():
    assert lira.roc_summary(np.zeros(10), np.arange(10) < 5) == (0.5, 0, 0)
    assert lira.roc_summary(np.arange(10.0), np.arange(10) >= 5) == (1, 100, 100)


def test_the_attack_finds_members():
    rng = np.random.default_rng(0)
    member = lira.halves(300, 16, seed=1)
    hardness = rng.normal(0, 3, 300)
    seen = np.arange(300) % 2 == 0
    shadows = hardness + 1.5 * member + rng.normal(0, 1, member.shape)
    target = hardness + 1.5 * seen + rng.normal(0, 1, 300)
    by_image = lira.roc_summary(lira.online_scores(target, shadows, member, pooled=True), seen)[0]
    assert by_image > 0.8 > lira.roc_summary(target, seen)[0] + 0.1
