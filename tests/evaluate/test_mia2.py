"""MIA-II: an attack network that learns what there is to learn and no more, on seeded halves and balanced test sets."""

import numpy as np

from ispf_jax.evaluate.mia2 import attack, halves, train_attacker
from ispf_jax.evaluate.sampling import same_class_counts


def test_shadow_models_are_given_seeded_halves():
    given = halves(11, 3, seed=4)
    assert given.shape == (3, 11) and np.all(given.sum(axis=1) == 5)
    assert not np.array_equal(given[0], given[1])
    np.testing.assert_array_equal(given, halves(11, 3, seed=4))


def test_balanced_attack_set_has_equal_class_proportions():
    first, second = np.repeat([0, 1, 2], [5, 2, 9]), np.repeat([0, 1, 3], [3, 4, 7])
    picked = same_class_counts(first, second, seed=0)
    assert np.bincount(first[picked[0]]).tolist() == np.bincount(second[picked[1]]).tolist() == [3, 2]


def sorted_signals(rng, n, sharpness):
    logits = sharpness[:, None] * rng.normal(size=(n, 5))
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return -np.sort(-p / p.sum(axis=1, keepdims=True), axis=1)


def test_the_attack_learns_that_members_are_predicted_more_sharply():
    rng = np.random.default_rng(0)
    member = np.arange(1501) % 2 == 0  # not a multiple of the batch
    signals = sorted_signals(rng, 1501, np.where(member, 6.0, 0.5))
    attacker = train_attacker(signals[:1001], member[:1001], seed=0)
    answers = attack(attacker, signals[1001:]) >= 0.5
    assert np.mean(answers == member[1001:]) > 0.85
    again = train_attacker(signals[:1001], member[:1001], seed=0)
    np.testing.assert_array_equal(attack(attacker, signals), attack(again, signals))


def test_constant_signals_teach_nothing():
    attacker = train_attacker(np.full((40, 4), 0.25), np.arange(40) % 2 == 0, seed=0, epochs=3)
    answers = attack(attacker, np.full((4, 4), 0.25))
    assert np.ptp(answers) == 0 and abs(answers[0] - 0.5) < 0.2


def test_of_all_epochs_the_one_with_the_lowest_held_out_loss_is_kept():
    """Signals that say nothing: the longer it is trained, the better it knows its own 36 examples, not the held-out."""
    rng, member = np.random.default_rng(1), np.arange(40) % 2 == 0
    signals = rng.random((40, 6)) * 20
    short, long = (attack(train_attacker(signals, member, seed=0, epochs=n), signals) for n in (300, 600))
    np.testing.assert_array_equal(short, long)
