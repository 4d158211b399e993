"""Readers of frozen features by hand and against scikit-learn."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ispf_jax.errors import UserError
from ispf_jax.evaluate import probes

MASK = np.array([0, 1, 0])
READERS = [probes.linear_probe, probes.nearest_neighbours, probes.nearest_mean]


def clusters(seed, count, spread=1.0):
    rng, labels = np.random.default_rng(seed), np.arange(count) % 3
    centres = np.array([[2.0, 0, 0, 1], [0, 2, 0, 1], [0, 0, 2, 1]])
    return centres[labels] + rng.normal(0, spread, (count, 4)), labels


def test_reading_by_hand():
    found = probes.read([1, 0, 1, 2, 2, 1], [1, 1, 0, 0, 2, 2], MASK)
    # Class 1: 1 of 2; classes 0 and 2: 0 of 2 and 1 of 2; two of four retained images are called forgotten.
    assert (found.forget, found.retain, found.detection, found.n_forget, found.n_retain) == (50, 25, 50, 2, 4)
    assert found.balanced == pytest.approx(100 / 3)


def test_two_forgotten_classes_may_be_confused_with_each_other():
    found = probes.read([0, 0, 2], [0, 1, 2], [1, 1, 0])
    assert (found.forget, found.detection) == (50, 100)


def test_reading_without_retained_images():
    found = probes.read([1, 2], [1, 1], MASK)
    assert (found.forget, found.retain, found.detection) == (50, None, None)


def test_constant_answers_detect_nothing():
    assert probes.read([1, 1, 1], [0, 1, 2], MASK).detection == probes.read([0, 0, 0], [0, 1, 2], MASK).detection == 50


def test_linear_probe_agrees_with_scikit_learn():
    (train, labels), (test, test_labels) = clusters(0, 90), clusters(1, 60)
    found = probes.linear_probe(train, labels, test, test_labels, MASK)
    machine = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(train, labels)
    assert found == probes.read(machine.predict(test), test_labels, MASK)
    assert found.converged and found.forget > 60
    assert not probes.linear_probe(train, labels, test, test_labels, MASK, max_iterations=1).converged


def test_nearest_neighbours_agree_with_scikit_learn():
    (train, labels), (test, test_labels) = clusters(0, 90), clusters(1, 60)
    machine = KNeighborsClassifier(5, metric="cosine", weights=lambda d: 1 + (1 - d) / 20).fit(train, labels)
    found = probes.nearest_neighbours(train, labels, test, test_labels, MASK, chunk=7)
    assert found == probes.read(machine.predict(test), test_labels, MASK)


def test_nearest_neighbours_by_hand():
    train, labels = np.array([[1.0, 0], [0, 1], [1, 1], [0, 0]]), np.array([0, 1, 2, 2])
    test = np.array([[5.0, 0.1], [0.2, 9], [3, 3]])
    assert probes.nearest_neighbours(train, labels, test, [0, 1, 2], MASK, k=1).balanced == 100
    # Two neighbours, one vote each: the more similar one wins.
    assert probes.nearest_neighbours(train, labels, test[:2], [0, 1], MASK, k=2).balanced == 100


def test_nearest_mean_agrees_with_scikit_learn():
    (train, labels), (test, test_labels) = clusters(0, 90), clusters(1, 60)
    predicted = NearestCentroid().fit(train, labels).predict(test)
    assert probes.nearest_mean(train, labels, test, test_labels, MASK) == probes.read(predicted, test_labels, MASK)


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


@pytest.mark.parametrize("reader", READERS)
def test_constant_features_teach_nothing(reader):
    labels = np.arange(12) % 3
    found = reader(np.ones((12, 4)), labels, np.ones((6, 4)), np.arange(6) % 3, MASK)
    assert found.detection == 50 and found.balanced == pytest.approx(100 / 3)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "changed, sentence",
    [
        ({"train_labels": np.zeros(12, int)}, "forgotten class"),
        ({"train_labels": np.ones(12, int)}, "only class 1"),
        ({"test_labels": np.zeros(12, int)}, "None of the 12 test images"),
        ({"train": np.full((12, 4), np.nan)}, "NaN"),
        ({"test": np.ones((12, 3))}, "same length"),
        ({"test": np.ones((11, 4))}, "same length"),
        ({"train": np.ones((0, 4))}, "There are no"),
    ],
)
def test_degenerate_inputs_raise(reader, changed, sentence):
    features, labels = clusters(0, 12)
    request = {"train": features, "train_labels": labels, "test": features, "test_labels": labels, "forget_mask": MASK}
    with pytest.raises(UserError, match=sentence):
        reader(**request | changed)


def test_impossible_requests_raise():
    features, labels = clusters(0, 12)
    for k in (0, 13):
        with pytest.raises(UserError):
            probes.nearest_neighbours(features, labels, features, labels, MASK, k=k)
    with pytest.raises(UserError, match="forgotten class 1"):
        probes.prototype_head(
            head(np.ones((4, 3)), np.ones(3)), features[labels != 1], labels[labels != 1], np.array([1, 1, 0])
        )
