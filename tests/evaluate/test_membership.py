"""MIA-I: its two protocols, its two solvers, the anchors of the specification."""

import numpy as np
import pytest
from sklearn.svm import SVC

from ispf_jax.errors import UserError
from ispf_jax.evaluate.membership import choose_samples, confidence_membership

TRAIN_LABELS, TEST_LABELS, MASK = np.arange(60) % 3, np.arange(15) % 3, np.array([0, 1, 0])
MEMBER = np.arange(60) < 48


def test_salun_takes_equally_many_retained_members_and_nonmembers():
    samples = choose_samples("salun", TRAIN_LABELS, MEMBER, TEST_LABELS, MASK, seed=0)
    assert len(samples.members) == len(samples.nonmembers) == 10
    assert np.all(MEMBER[samples.members]) and np.all(TRAIN_LABELS[samples.members] != 1)
    assert np.all(TEST_LABELS[samples.nonmembers] != 1)
    np.testing.assert_array_equal(samples.targets, np.flatnonzero(MEMBER & (TRAIN_LABELS == 1)))


def test_unsc_takes_members_for_test_and_validation_and_all_test_images():
    samples = choose_samples("unsc", TRAIN_LABELS, MEMBER, TEST_LABELS, MASK, seed=0)
    assert len(samples.members) == 15 + 12 and len(samples.nonmembers) == 15
    assert np.all(MEMBER[samples.members]) and np.all(TRAIN_LABELS[samples.members] != 1)
    assert len(np.unique(samples.members)) == 27


def test_a_retrained_model_has_its_own_members_and_the_originals_targets():
    own = (np.arange(60) >= 12) & (TRAIN_LABELS != 1)
    samples = choose_samples("salun", TRAIN_LABELS, own, TEST_LABELS, MASK, seed=0, original_member=MEMBER)
    assert np.all(own[samples.members])
    np.testing.assert_array_equal(samples.targets, np.flatnonzero(MEMBER & (TRAIN_LABELS == 1)))


def test_the_seed_decides_which():
    first, again, other = (choose_samples("salun", TRAIN_LABELS, MEMBER, TEST_LABELS, MASK, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.members, again.members)
    assert not np.array_equal(first.members, other.members)


@pytest.mark.parametrize(
    "changed, sentence",
    [
        ({"protocol": "other"}, "salun, unsc"),
        ({"train_labels": np.zeros(60, int)}, "forgotten class"),
        ({"test_labels": np.ones(15, int)}, "no test images"),
        ({"member": TRAIN_LABELS == 1}, "no retained training"),
        ({"member": TRAIN_LABELS != 1}, "no forgotten training"),
        ({"member": np.ones(3, bool)}, "same length"),
    ],
)
def test_samples_that_cannot_be_chosen(changed, sentence):
    request = {
        "protocol": "salun",
        "train_labels": TRAIN_LABELS,
        "member": MEMBER,
        "test_labels": TEST_LABELS,
        "forget_mask": MASK,
        "seed": 0,
    }
    with pytest.raises(UserError, match=sentence):
        choose_samples(**request | changed)


def confidences(rng, n, right):
    """Like those of a classifier: near 1 for a share of `right` examples, anything below 1/2 for the rest."""
    return np.where(rng.random(n) < right, 1 - rng.beta(0.4, 12, n), rng.beta(1, 3, n) / 2)


def test_by_hand_on_two_groups():
    found = confidence_membership(np.full(20, 0.9), np.full(20, 0.1), [0.9, 0.8, 0.1, 0.2], [1, 1, 2, 1])
    assert found.percent == 50.0 and found.per_class == {1: pytest.approx(100 / 3), 2: 100.0}
    assert (found.members, found.nonmembers, found.targets, found.binned) == (20, 20, 4, False)


@pytest.mark.parametrize(
    "seed, right, target_right", [(0, (0.98, 0.91), 0.98), (1, (0.95, 0.8), 0.5), (2, (0.9, 0.85), 0.9)]
)
def test_bins_agree_with_scikit_learns_exact_machine(seed, right, target_right):
    rng = np.random.default_rng(seed)
    member, nonmember, target = (
        confidences(rng, n, r) for n, r in ((1500, right[0]), (1500, right[1]), (500, target_right))
    )
    exact = confidence_membership(member, nonmember, target, np.zeros(500, int), exact_up_to=3000)
    binned = confidence_membership(member, nonmember, target, np.zeros(500, int), exact_up_to=0)
    machine = SVC(C=3, kernel="rbf", gamma=1.0).fit(
        np.concatenate([member, nonmember])[:, None], np.repeat([1, 0], 1500)
    )
    assert not exact.binned and binned.binned
    assert exact.percent == pytest.approx(100 * (1 - machine.predict(target[:, None]).mean()))
    assert abs(binned.percent - exact.percent) <= 0.2


def test_anchors_members_look_like_members_and_zero_confidence_does_not():
    rng = np.random.default_rng(0)
    member, nonmember = confidences(rng, 4000, 0.98), confidences(rng, 4000, 0.91)
    assert confidence_membership(member, nonmember, confidences(rng, 1000, 0.98), np.zeros(1000, int)).percent < 10
    assert confidence_membership(member, nonmember, np.zeros(100), np.zeros(100, int)).percent == 100


def test_a_constant_prediction_leaves_the_attack_undefined():
    found = confidence_membership(np.full(9, 0.25), np.full(9, 0.25), np.full(3, 0.25), [1, 1, 2])
    assert found.percent is None and found.per_class == {1: None, 2: None}


@pytest.mark.parametrize(
    "member, target", [([], [0.5]), ([0.5], []), ([np.nan], [0.5]), ([1.2], [0.5]), ([0.5], [0.5, 0.5])]
)
def test_degenerate_confidences_raise(member, target):
    with pytest.raises(UserError):
        confidence_membership(member, [0.1], target, [0])
