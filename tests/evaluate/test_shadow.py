"""MIA-II: scores by hand, and an attack network that learns what there is to learn and no more."""

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from ispf_jax.errors import UserError
from ispf_jax.evaluate.sampling import same_class_counts
from ispf_jax.evaluate.shadow import AttackTraining, attack, attack_score, shadow_members, train_attacker


def test_scores_by_hand():
    found = attack_score([0.9, 0.5, 0.4, 0.8, 0.1], [1, 1, 1, 0, 0])  # 2 of 3 found, 1 false alarm
    np.testing.assert_allclose(
        [found.precision, found.recall, found.f1, found.accuracy], [200 / 3, 200 / 3, 200 / 3, 60]
    )


def test_scores_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    probability, member = rng.random(200), rng.random(200) < 0.3
    precision, recall, f1, _ = precision_recall_fscore_support(member, probability >= 0.5, average="binary")
    found = attack_score(probability, member)
    np.testing.assert_allclose([found.precision, found.recall, found.f1], [100 * precision, 100 * recall, 100 * f1])


def test_an_attacker_that_never_says_yes_scores_zero():
    found = attack_score(np.zeros(4), [1, 1, 0, 0])
    assert (found.f1, found.precision, found.recall, found.accuracy) == (0, 0, 0, 50)


@pytest.mark.parametrize(
    "probability, member", [([], []), ([0.5, 0.5], [1, 1]), ([np.nan, 0.5], [0, 1]), ([0.5], [0, 1])]
)
def test_scores_of_degenerate_inputs_raise(probability, member):
    with pytest.raises(UserError):
        attack_score(probability, member)


def test_shadow_members_are_seeded_halves():
    members = shadow_members(11, 3, seed=4)
    assert members.shape == (3, 11) and np.all(members.sum(axis=1) == 5)
    assert not np.array_equal(members[0], members[1])
    np.testing.assert_array_equal(members, shadow_members(11, 3, seed=4))
    with pytest.raises(UserError):
        shadow_members(11, 0, seed=4)


def test_balanced_attack_set_has_equal_class_proportions():
    first, second = np.repeat([0, 1, 2], [5, 2, 9]), np.repeat([0, 1, 3], [3, 4, 7])
    picked = same_class_counts(first, second, seed=0)
    assert np.bincount(first[picked[0]]).tolist() == np.bincount(second[picked[1]]).tolist() == [3, 2]
    with pytest.raises(UserError, match="no class in common"):
        same_class_counts([0, 0], [1], seed=0)


def sorted_signals(rng, n, sharpness):
    logits = sharpness[:, None] * rng.normal(size=(n, 5))
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return -np.sort(-p / p.sum(axis=1, keepdims=True), axis=1)


def test_the_attack_learns_that_members_are_predicted_more_sharply():
    rng = np.random.default_rng(0)
    member = np.arange(1501) % 2 == 0  # not a multiple of the batch
    signals = sorted_signals(rng, 1501, np.where(member, 6.0, 0.5))
    attacker = train_attacker(signals[:1001], member[:1001], seed=0)
    score = attack_score(attack(attacker, signals[1001:]), member[1001:])
    assert score.f1 > 85 and attacker.held_out_loss < 0.4 and 1 <= attacker.epoch <= 50
    again = train_attacker(signals[:1001], member[:1001], seed=0)
    np.testing.assert_array_equal(attack(attacker, signals), attack(again, signals))


def test_constant_signals_teach_nothing():
    attacker = train_attacker(
        np.full((40, 4), 0.25), np.arange(40) % 2, seed=0, training=AttackTraining(epochs=3, batch_size=8)
    )
    answers = attack(attacker, np.full((4, 4), 0.25))
    assert np.ptp(answers) == 0 and attacker.held_out_loss == pytest.approx(np.log(2), abs=0.05)


def test_training_on_degenerate_signals_raises():
    for signals, member in (
        (np.zeros((4, 3)), np.ones(4)),
        (np.full((4, 3), np.nan), [0, 1, 0, 1]),
        (np.zeros((2, 3)), [0, 1]),
    ):
        with pytest.raises(UserError):
            train_attacker(signals, member, seed=0)
    attacker = train_attacker(
        np.full((40, 4), 0.25), np.arange(40) % 2, seed=0, training=AttackTraining(epochs=3, batch_size=8)
    )
    with pytest.raises(UserError, match="trained on 4 values"):
        attack(attacker, np.zeros((2, 3)))
