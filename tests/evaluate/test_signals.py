"""Attack signals against hand-computed values."""

import numpy as np

from ispf_jax.evaluate import signals

P = np.array([[0.7, 0.2, 0.1], [0.25, 0.5, 0.25]])
LOGITS = np.log(P) + 3.0


def test_confidence_and_entropy_by_hand():
    np.testing.assert_allclose(signals.confidence(LOGITS, np.array([0, 2])), [0.7, 0.25])
    first = -(0.7 * np.log(0.7) + 0.2 * np.log(0.2) + 0.1 * np.log(0.1))
    np.testing.assert_allclose(signals.entropy(LOGITS), [first, 1.5 * np.log(2)])
    np.testing.assert_allclose(signals.entropy(np.zeros((1, 8))), np.log(8))


def test_modified_entropy_by_hand():
    right = -0.3 * np.log(0.7) - 0.2 * np.log(0.8) - 0.1 * np.log(0.9)
    wrong = -0.9 * np.log(0.1) - 0.7 * np.log(0.3) - 0.2 * np.log(0.8)
    np.testing.assert_allclose(signals.modified_entropy(LOGITS[[0, 0]], np.array([0, 2])), [right, wrong])


def test_modified_entropy_falls_as_the_label_grows_more_likely_unlike_entropy():
    share = np.linspace(0.01, 0.99, 50)
    logits = np.log(np.stack([share, (1 - share) / 2, (1 - share) / 2], axis=1))
    assert np.all(np.diff(signals.modified_entropy(logits, np.zeros(50, int))) < 0)
    assert np.any(np.diff(signals.entropy(logits)) > 0)


def test_modified_entropy_of_certain_predictions_is_finite():
    certain = np.array([[1000.0, 0.0, 0.0]])
    assert signals.modified_entropy(certain, np.array([0])) < 1e-200
    assert 1000 < signals.modified_entropy(certain, np.array([1]))[0] < 1500


def test_sorted_softmax_descends():
    np.testing.assert_allclose(signals.sorted_softmax(LOGITS), [[0.7, 0.2, 0.1], [0.5, 0.25, 0.25]])


def test_scaled_confidence_is_the_logit_of_the_confidence():
    np.testing.assert_allclose(signals.scaled_confidence(LOGITS, np.array([0, 2])), np.log([0.7 / 0.3, 0.25 / 0.75]))
    np.testing.assert_allclose(
        signals.scaled_confidence(np.array([[-1e9, 0.0], [90.0, 0.0]]), np.array([0, 0])), [-50.0, 50.0]
    )
