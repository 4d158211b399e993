"""Threshold and correctness attacks: by hand, and against all thresholds one after the other."""

import numpy as np
import pytest

from ispf_jax.errors import UserError
from ispf_jax.evaluate.signals import entropy, modified_entropy
from ispf_jax.evaluate.threshold import correctness_membership, threshold_membership


def test_by_hand():
    """Best is 0.45: two of three members below it, all non-members above: (2/3 + 1) / 2."""
    found = threshold_membership([0.1, 0.4, 0.6], [0.5, 0.7], [0.2, 0.44, 0.46, 3.0])
    assert (found.percent, found.threshold, found.targets) == (50.0, pytest.approx(0.45), 4)
    assert found.advantage == pytest.approx(100 * (2 / 3 + 1) / 2)


@pytest.mark.parametrize("seed", range(3))
def test_no_threshold_is_better_than_the_one_found(seed):
    rng = np.random.default_rng(seed)
    member, nonmember, target = (np.round(rng.gamma(k, 1.0, 40), 1) for k in (1.0, 2.0, 1.5))  # rounded: with ties
    found = threshold_membership(member, nonmember, target)
    best = max((np.mean(member <= t) + np.mean(nonmember > t)) / 2 for t in np.concatenate([member, nonmember]))
    assert found.advantage == pytest.approx(100 * best)
    assert found.percent == pytest.approx(100 * np.mean([not t <= found.threshold for t in target]))


def test_modified_entropy_tells_wrong_and_certain_from_right_and_certain_where_entropy_cannot():
    """Members right and certain, non-members right and less so, targets certain of another class."""

    def of(*rows):
        return np.log(np.array(rows))

    member, nonmember = of([0.98, 0.01, 0.01]), of([0.8, 0.1, 0.1])
    target = of([0.01, 0.98, 0.01])
    labels = np.zeros(1, int)
    assert threshold_membership(entropy(member), entropy(nonmember), entropy(target)).percent == 0
    scores = [modified_entropy(x, labels) for x in (member, nonmember, target)]
    assert scores[0][0] == pytest.approx(-0.02 * np.log(0.98) - 2 * 0.01 * np.log(0.99))
    assert threshold_membership(*scores).percent == 100


@pytest.mark.parametrize(
    "member, nonmember", [([0.3] * 4, [0.3] * 5), ([0.9, 0.8], [0.1, 0.2]), ([0.1, 0.2], [0.1, 0.2])]
)
def test_an_attack_that_cannot_beat_guessing_is_undefined(member, nonmember):
    """Constant predictions, members that look less seen than the others, two equal groups."""
    found = threshold_membership(member, nonmember, [0.5])
    assert (found.percent, found.threshold, found.advantage, found.targets) == (None, None, None, 1)


def test_correctness_by_hand():
    logits = np.array([[2.0, 1.0], [0.0, 1.0], [3.0, 0.0], [0.0, 5.0]])
    assert correctness_membership(logits, [0, 0, 0, 0]) == 50.0
    assert correctness_membership(np.zeros((2, 3)), [1, 1]) == 100.0  # ties go to the first class


@pytest.mark.parametrize(
    "member, nonmember, target", [([], [1.0], [1.0]), ([1.0], [], [1.0]), ([1.0], [2.0], []), ([np.nan], [1.0], [1.0])]
)
def test_degenerate_values_raise(member, nonmember, target):
    with pytest.raises(UserError):
        threshold_membership(member, nonmember, target)


@pytest.mark.parametrize("logits, labels", [([[np.nan, 0.0]], [0]), ([[1.0]], [0]), ([[1.0, 0.0]], [0, 1])])
def test_degenerate_logits_raise(logits, labels):
    with pytest.raises(UserError):
        correctness_membership(logits, labels)
