"""MIA-I: its two protocols, its two solvers, the anchors of the specification."""

import numpy as np
import pytest
from sklearn.svm import SVC

from ispf_jax.errors import UserError
from ispf_jax.evaluate.mia1 import called_unseen, choose_samples

TRAIN_LABELS, TEST_LABELS, MASK = np.arange(60) % 3, np.arange(15) % 3, np.array([False, True, False])
MEMBER = np.arange(60) < 48


def choose(protocol, **changed):
    request = {"train_labels": TRAIN_LABELS, "test_labels": TEST_LABELS, "member": MEMBER, "original_member": MEMBER}
    return choose_samples(protocol, **request | {"forget_mask": MASK, "seed": 0} | changed)


def test_salun_takes_equally_many_retained_members_and_nonmembers():
    samples = choose("salun")
    assert len(samples.members) == len(samples.nonmembers) == 10
    assert np.all(MEMBER[samples.members]) and np.all(TRAIN_LABELS[samples.members] != 1)
    assert np.all(TEST_LABELS[samples.nonmembers] != 1)
    np.testing.assert_array_equal(samples.targets, np.flatnonzero(MEMBER & (TRAIN_LABELS == 1)))


def test_unsc_takes_members_for_test_and_validation_and_all_test_images():
    samples = choose("unsc")
    assert len(samples.members) == 15 + 12 and len(samples.nonmembers) == 15
    assert np.all(MEMBER[samples.members]) and np.all(TRAIN_LABELS[samples.members] != 1)
    assert len(np.unique(samples.members)) == 27


def test_a_retrained_model_has_its_own_members_and_the_originals_targets():
    own = (np.arange(60) >= 12) & (TRAIN_LABELS != 1)
    samples = choose("salun", member=own)
    assert np.all(own[samples.members])
    np.testing.assert_array_equal(samples.targets, np.flatnonzero(MEMBER & (TRAIN_LABELS == 1)))


def test_the_seed_decides_which():
    first, again, other = (choose("salun", seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.members, again.members)
    assert not np.array_equal(first.members, other.members)


@pytest.mark.parametrize(
    "changed, sentence",
    [
        ({"test_labels": np.ones(15, int)}, "no test images"),
        ({"member": TRAIN_LABELS == 1}, "no retained images"),
        ({"original_member": TRAIN_LABELS != 1}, "no forgotten images"),
    ],
)
def test_samples_that_cannot_be_chosen(changed, sentence):
    with pytest.raises(UserError, match=sentence):
        choose(**{"protocol": "salun"} | changed)


def confidences(rng, n, right):
    """Like those of a classifier: near 1 for a share of `right` examples, anything below 1/2 for the rest."""
    return np.where(rng.random(n) < right, 1 - rng.beta(0.4, 12, n), rng.beta(1, 3, n) / 2)


def test_by_hand_on_two_groups():
    found = called_unseen(np.full(20, 0.9), np.full(20, 0.1), np.array([0.9, 0.8, 0.1, 0.2]))
    np.testing.assert_array_equal(found, [False, False, True, True])


@pytest.mark.parametrize(
    "seed, right, target_right", [(0, (0.98, 0.91), 0.98), (1, (0.95, 0.8), 0.5), (2, (0.9, 0.85), 0.9)]
)
def test_bins_agree_with_scikit_learns_exact_machine(seed, right, target_right):
    rng = np.random.default_rng(seed)
    member, nonmember = (confidences(rng, 1500, r) for r in right)
    target = confidences(rng, 500, target_right)
    exact, binned = (called_unseen(member, nonmember, target, exact_up_to=n) for n in (3000, 0))
    machine = SVC(C=3, kernel="rbf", gamma=1.0).fit(
        np.concatenate([member, nonmember])[:, None], np.repeat([1, 0], 1500)
    )
    np.testing.assert_array_equal(exact, machine.predict(target[:, None]) == 0)
    assert abs(exact.mean() - binned.mean()) <= 0.002


def test_anchors_members_look_like_members_and_zero_confidence_does_not():
    rng = np.random.default_rng(0)
    member, nonmember = confidences(rng, 4000, 0.98), confidences(rng, 4000, 0.91)
    assert called_unseen(member, nonmember, confidences(rng, 1000, 0.98)).mean() < 0.1
    assert called_unseen(member, nonmember, np.zeros(100)).all()


def test_a_constant_prediction_leaves_the_attack_undefined():
    assert called_unseen(np.full(9, 0.25), np.full(9, 0.25), np.full(3, 0.25)) is None
