"""Heads that hide a class: by hand, and against scikit-learn's optimum."""

import numpy as np
from scipy.special import log_softmax, softmax

from ispf_jax.evaluate.baseline import LOGIT, head_logits, masked_head, retrained_head, synthetic_embedding

MASK = np.array([False, True, False])


def variables_of(kernel, bias):
    return {
        "params": {"conv": 1, "classifier": {"kernel": np.float32(kernel), "bias": np.float32(bias)}},
        "batch_stats": 2,
    }


def test_masked_head_by_hand():
    original = variables_of([[1, 5, 3], [2, 6, 4]], [1, 7, 2])
    masked = masked_head(original, MASK)
    np.testing.assert_array_equal(masked["params"]["classifier"]["kernel"], [[1, 2, 3], [2, 3, 4]])
    np.testing.assert_array_equal(masked["params"]["classifier"]["bias"], [1, 1.5, 2])
    assert masked["batch_stats"] == 2 and masked["params"]["conv"] == 1
    assert original["params"]["classifier"]["bias"][1] == 7


def test_masked_head_never_predicts_the_class_and_leaves_the_others():
    rng = np.random.default_rng(0)
    original = variables_of(rng.normal(size=(6, 3)), rng.normal(size=3))
    x = rng.normal(size=(500, 6))
    heads = [variables["params"]["classifier"] for variables in (original, masked_head(original, MASK))]
    before, after = (x @ head["kernel"] + head["bias"] for head in heads)
    np.testing.assert_array_equal(after.argmax(axis=1), np.where(MASK, -np.inf, before).argmax(axis=1))


def test_a_linear_target_is_recovered():
    rng = np.random.default_rng(0)
    features = rng.normal(3, [1, 10, 0.1], (400, 3))  # badly scaled
    kernel, bias = rng.normal(size=(3, 3)) / [[1], [10], [0.1]], rng.normal(size=3)
    target = features @ kernel + bias
    fit = retrained_head(variables_of(np.zeros((3, 3)), np.zeros(3)), features, target)
    head = fit["params"]["classifier"]
    np.testing.assert_allclose(
        softmax(features @ head["kernel"] + head["bias"], axis=-1), softmax(target, axis=-1), atol=5e-3
    )
    assert fit["batch_stats"] == 2 and fit["params"]["conv"] == 1


def test_the_optimum_has_zero_gradient():
    rng = np.random.default_rng(1)
    features, target = rng.normal(size=(400, 3)), rng.normal(0, 2, (400, 3))
    fit = retrained_head(variables_of(np.zeros((3, 3)), np.zeros(3)), features, target)
    head = fit["params"]["classifier"]
    p, log_q = softmax(target, axis=-1), log_softmax(features @ head["kernel"] + head["bias"], axis=-1)
    residual = np.exp(log_q) - p
    np.testing.assert_allclose(features.T @ residual / 400, 0, atol=1e-4)
    np.testing.assert_allclose(residual.mean(axis=0), 0, atol=1e-4)


def test_constant_features_leave_the_bias():
    target = np.log(np.array([[0.5, 0.25, 0.25]] * 400))
    fit = retrained_head(variables_of(np.ones((3, 3)), np.ones(3)), np.ones((400, 3)), target)
    head = fit["params"]["classifier"]
    assert np.all(head["kernel"] == 0)
    np.testing.assert_allclose(softmax(head["bias"]), [0.5, 0.25, 0.25], atol=1e-4)


def test_synthetic_embeddings_hide_a_class_and_keep_the_rest():
    """Of a head that is the identity, class means are 10 times the axes."""
    original = variables_of(np.eye(3), np.zeros(3))
    hidden = synthetic_embedding(original, MASK, seed=0)
    around = np.random.default_rng(5).normal(LOGIT * np.repeat(np.eye(3), 100, axis=0), 2.0)
    before, after = (head_logits(variables, around) for variables in (original, hidden))
    said, kept = after.argmax(axis=1), before.argmax(axis=1) != 1
    assert not np.any(said == 1) and np.mean(said[kept] == before.argmax(axis=1)[kept]) > 0.97
    assert softmax(after, axis=1)[100:200, [0, 2]].mean(axis=0).min() > 0.3
    assert hidden["params"]["conv"] == 1 and hidden["batch_stats"] == 2
