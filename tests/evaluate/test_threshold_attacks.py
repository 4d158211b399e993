"""Threshold and correctness attacks: by hand, and against all thresholds one after the other."""

import numpy as np
import pytest

from ispf_jax.evaluate.signals import entropy, modified_entropy
from ispf_jax.evaluate.threshold_attacks import correctness_attack, threshold_attack


def attack(*sides):
    return threshold_attack(*map(np.array, sides))


def test_by_hand():
    """Best is 0.45: two of three members below it, all non-members above."""
    assert attack([0.1, 0.4, 0.6], [0.5, 0.7], [0.2, 0.44, 0.46, 3.0]) == 50.0


@pytest.mark.parametrize("seed", range(3))
def test_no_threshold_is_better_than_the_one_found(seed):
    rng = np.random.default_rng(seed)
    member, nonmember, target = (np.round(rng.gamma(k, 1.0, 40), 1) for k in (1.0, 2.0, 1.5))  # rounded: with ties
    places = np.unique(np.concatenate([member, nonmember]))[:-1] + 0.05
    right = [np.mean(member <= t) + np.mean(nonmember > t) for t in places]
    best = [100 * np.mean(target > t) for t, r in zip(places, right) if r == pytest.approx(max(right))]
    assert any(attack(member, nonmember, target) == pytest.approx(percent) for percent in best)


def test_modified_entropy_tells_wrong_and_certain_from_right_and_certain_where_entropy_cannot():
    """Members right and certain, non-members right and less so, targets certain of another class."""

    def of(*rows):
        return np.log(np.array(rows))

    member, nonmember = of([0.98, 0.01, 0.01]), of([0.8, 0.1, 0.1])
    target = of([0.01, 0.98, 0.01])
    labels = np.zeros(1, int)
    assert threshold_attack(entropy(member), entropy(nonmember), entropy(target)) == 0
    scores = [modified_entropy(x, labels) for x in (member, nonmember, target)]
    assert scores[0][0] == pytest.approx(-0.02 * np.log(0.98) - 2 * 0.01 * np.log(0.99))
    assert threshold_attack(*scores) == 100


@pytest.mark.parametrize(
    "member, nonmember", [([0.3] * 4, [0.3] * 5), ([0.9, 0.8], [0.1, 0.2]), ([0.1, 0.2], [0.1, 0.2])]
)
def test_an_attack_that_cannot_beat_guessing_is_undefined(member, nonmember):
    """Constant predictions, members that look less seen than the others, two equal groups."""
    assert attack(member, nonmember, [0.5]) is None


def test_correctness_by_hand():
    logits = np.array([[2.0, 1.0], [0.0, 1.0], [3.0, 0.0], [0.0, 5.0]])
    assert correctness_attack(logits, np.zeros(4, int)) == 50.0
    assert correctness_attack(np.zeros((2, 3)), np.ones(2, int)) == 100.0  # ties go to the first class
