"""Readers of frozen features by hand and against scikit-learn."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ispf_jax.evaluate import probes

MASK = np.array([False, True, False])


def clusters(seed, count, spread=1.0):
    rng, labels = np.random.default_rng(seed), np.arange(count) % 3
    centres = np.array([[2.0, 0, 0, 1], [0, 2, 0, 1], [0, 0, 2, 1]])
    return centres[labels] + rng.normal(0, spread, (count, 4)), labels


def test_linear_probe_agrees_with_scikit_learn():
    (train, labels), (test, test_labels) = clusters(0, 90), clusters(1, 60)
    found, converged = probes.linear_probe(train, labels, test)
    machine = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(train, labels)
    np.testing.assert_array_equal(found, machine.predict(test))
    assert converged and np.mean(found == test_labels) > 0.6
    assert not probes.linear_probe(train, labels, test, max_iterations=1)[1]


def test_nearest_neighbours_against_a_slow_vote():
    """A vote each, and the sum of cosine similarities where votes are equal."""
    (train, labels), (test, _) = clusters(0, 90), clusters(1, 60)
    test[7] = 0
    expected = []
    for x in test:
        similarity = [x @ t / np.linalg.norm(x) / np.linalg.norm(t) if x.any() else 0.0 for t in train]
        nearest = np.argsort(similarity)[-5:]
        of_class = [[similarity[i] for i in nearest if labels[i] == c] for c in range(3)]
        expected.append(max(range(3), key=lambda c: (len(of_class[c]), sum(of_class[c]))))
    found = probes.nearest_neighbours(train, labels, test)
    differ = np.flatnonzero(found != expected)
    assert set(differ) <= {7}  # the zero vector is as near to all
    assert len(set(expected)) == 3


def test_nearest_neighbours_by_hand():
    train, labels = np.array([[1.0, 0], [0, 1], [1, 1], [0, 0]]), np.array([0, 1, 2, 2])
    test = np.array([[5.0, 0.1], [0.2, 9], [3, 3]])
    assert probes.nearest_neighbours(train, labels, test, k=1).tolist() == [0, 1, 2]
    # Two neighbours, one vote each: the more similar one wins.
    assert probes.nearest_neighbours(train, labels, test[:2], k=2).tolist() == [0, 1]


def test_constant_features_teach_nothing():
    labels = np.arange(12) % 3
    for predicted in (
        probes.linear_probe(np.ones((12, 4)), labels, np.ones((6, 4)))[0],
        probes.nearest_neighbours(np.ones((12, 4)), labels, np.ones((6, 4))),
    ):
        assert len(set(predicted)) == 1


def head(kernel, bias):
    classifier = {"kernel": np.array(kernel), "bias": np.array(bias)}
    return {"params": {"conv": {"kernel": np.ones(2)}, "classifier": classifier}, "batch_stats": {}}


def test_prototype_head_by_hand():
    variables = head([[3.0, 9, 0], [0, 9, 5]], [1.0, 9, 2])
    features, labels = np.array([[1.0, 0], [3, 0], [0, 6], [0, 0]]), np.array([0, 0, 1, 2])
    # Means (2, 0), (0, 6), (0, 0), their mean (2/3, 2); retained rows have norms 3 and 5, logits there 3 and 12.
    new = probes.prototype_head(variables, features, labels, MASK)["params"]["classifier"]
    direction = np.array([-2 / 3, 4]) / np.hypot(2 / 3, 4)
    np.testing.assert_allclose(new["kernel"][:, 1], 4 * direction, rtol=1e-6)
    np.testing.assert_allclose(new["bias"][1] + [2 / 3, 2] @ new["kernel"][:, 1], 7.5, rtol=1e-6)
    np.testing.assert_array_equal(new["kernel"][:, [0, 2]], variables["params"]["classifier"]["kernel"][:, [0, 2]])
    assert variables["params"]["classifier"]["kernel"][0, 1] == 9  # the model itself is left alone


def test_prototype_head_of_collapsed_features_is_neutral():
    variables = head([[3.0, 9, 0], [0, 9, 5]], [1.0, 9, 2])
    new = probes.prototype_head(variables, np.ones((3, 2)), [0, 1, 2], MASK)["params"]["classifier"]
    assert np.all(new["kernel"][:, 1] == 0) and new["bias"][1] == pytest.approx((4 + 7) / 2)
