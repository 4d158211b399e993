"""Likelihood ratios, ROC and low false-positive rates by hand, against SciPy and scikit-learn."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score, roc_curve

from ispf_jax.errors import UserError
from ispf_jax.evaluate import lira

TARGET = np.array([2.0, -1.0])
SHADOWS = np.array([[1.0, 0.0], [3.0, 2.0], [-1.0, -4.0], [0.0, -2.0]])
MEMBER = np.array([[1, 1], [1, 1], [0, 0], [0, 0]], bool)


def test_every_image_is_in_half_of_the_shadows():
    members = lira.lira_members(30, 6, seed=0)
    assert members.shape == (6, 30) and np.all(members.sum(axis=0) == 3) and np.all(members.sum(axis=1) == 15)
    np.testing.assert_array_equal(
        lira.lira_members(30, 16, seed=0)[:6], members
    )  # those that are trained already keep their halves
    assert len({tuple(m) for m in members}) == 6
    for shadows in (2, 5):
        with pytest.raises(UserError):
            lira.lira_members(30, shadows, seed=0)


def test_images_with_two_shadows_on_either_side_can_be_fitted():
    member = np.array([[1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [1, 0, 0, 0, 1], [0, 0, 0, 0, 1]], bool)
    np.testing.assert_array_equal(lira.fittable(member), [False, True, False, False, True])


def test_online_scores_by_hand():
    # Means 2, 1 (in) and -1/2, -3 (out); sample deviations sqrt 2 (in), sqrt 1/2, sqrt 2 (out).
    expected = norm.logpdf(TARGET, [2, 1], np.sqrt([2, 2])) - norm.logpdf(TARGET, [-0.5, -3], np.sqrt([0.5, 2]))
    np.testing.assert_allclose(lira.online_scores(TARGET, SHADOWS, MEMBER), expected)
    pooled = norm.logpdf(TARGET, [2, 1], np.sqrt(2)) - norm.logpdf(TARGET, [-0.5, -3], np.sqrt(1.25))
    np.testing.assert_allclose(lira.online_scores(TARGET, SHADOWS, MEMBER, "pooled"), pooled)


def test_offline_scores_by_hand_rank_like_the_tail_probability():
    found = lira.offline_scores(TARGET, SHADOWS, MEMBER)
    np.testing.assert_allclose(found, [2.5 / np.sqrt(0.5), 2 / np.sqrt(2)])
    np.testing.assert_allclose(norm.cdf(found), 1 - norm.sf(TARGET, [-0.5, -3], np.sqrt([0.5, 2])))


def test_unlearning_scores_are_the_online_ones_of_unlearned_against_retrained():
    np.testing.assert_allclose(
        lira.unlearning_scores(TARGET, SHADOWS[:2], SHADOWS[2:]), lira.online_scores(TARGET, SHADOWS, MEMBER)
    )


def test_equal_shadows_fall_back_to_the_smallest_deviation():
    shadows = np.repeat([[1.0], [0.0]], 2, axis=0)
    found = lira.online_scores(np.array([1.0]), shadows, np.array([[1], [1], [0], [0]], bool))
    np.testing.assert_allclose(found, 0.5 / lira.SMALLEST_STD**2)


def test_curve_by_hand():
    found = lira.attack_curve([0.9, 0.8, 0.8, 0.3], [1, 0, 1, 0])
    assert found.fpr == (0, 0, 0.5, 1) and found.tpr == (0, 0.5, 1, 1)
    assert (
        found.auc == 0.875 and found.tpr_at_1 == found.tpr_at_01 == 50 and (found.positives, found.negatives) == (2, 2)
    )


def test_curve_agrees_with_scikit_learn():
    rng = np.random.default_rng(0)
    truth = rng.random(4000) < 0.4
    scores = np.round(rng.normal(truth * 1.5, 1), 2)  # with ties
    found = lira.attack_curve(scores, truth)
    fpr, tpr, _ = roc_curve(truth, scores, drop_intermediate=False)
    np.testing.assert_allclose(found.fpr, fpr)
    np.testing.assert_allclose(found.tpr, tpr)
    assert found.auc == pytest.approx(roc_auc_score(truth, scores))
    assert found.tpr_at_1 == pytest.approx(100 * tpr[fpr <= 0.01].max())
    assert found.tpr_at_01 == pytest.approx(100 * tpr[fpr <= 0.001].max())


def test_constant_scores_are_guessing():
    found = lira.attack_curve(np.zeros(10), np.arange(10) < 5)
    assert (found.auc, found.tpr_at_1, found.tpr_at_01) == (0.5, 0, 0)


def test_a_perfect_attack():
    found = lira.attack_curve(np.arange(10), np.arange(10) >= 5)
    assert (found.auc, found.tpr_at_1, found.tpr_at_01) == (1, 100, 100)


def test_the_attack_finds_members():
    rng = np.random.default_rng(0)
    member = lira.lira_members(300, 17 - 1, seed=1)
    hardness = rng.normal(0, 3, 300)
    seen = np.arange(300) % 2 == 0
    shadows = hardness + 1.5 * member + rng.normal(0, 1, member.shape)
    target = hardness + 1.5 * seen + rng.normal(0, 1, 300)
    by_image = lira.attack_curve(lira.online_scores(target, shadows, member, "pooled"), seen).auc
    assert by_image > 0.8 > lira.attack_curve(target, seen).auc + 0.1


@pytest.mark.parametrize(
    "call",
    [
        lambda: lira.attack_curve([1.0, 2.0], [1, 1]),
        lambda: lira.attack_curve([], []),
        lambda: lira.attack_curve([np.nan, 1.0], [0, 1]),
        lambda: lira.attack_curve([1.0], [0, 1]),
        lambda: lira.online_scores(TARGET, SHADOWS, np.ones((4, 2), bool)),
        lambda: lira.online_scores(TARGET[:1], SHADOWS, MEMBER),
        lambda: lira.online_scores(TARGET, SHADOWS, MEMBER, "other"),
        lambda: lira.offline_scores(TARGET, np.full((4, 2), np.nan), MEMBER),
        lambda: lira.unlearning_scores(TARGET, SHADOWS[:1], SHADOWS[1:]),
    ],
)
def test_degenerate_inputs_raise(call):
    with pytest.raises(UserError):
        call()
