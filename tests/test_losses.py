"""Losses against their formulas in float64 numpy, and finite gradients where logits are extreme."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from ispf_jax import losses

FORGET = np.array([0, 1, 0, 0, 1, 0, 0], np.float32)
GONE = FORGET == 1
RNG = np.random.default_rng(0)
T, S = (3 * RNG.standard_normal((2, 16, 7))).astype(np.float32)
P, Q = (scipy.special.softmax(np.float64(logits), axis=1) for logits in (T, S))
K = P * np.log(P / Q)
MEAN = P.mean(0)

# Log probabilities in float32 carry an absolute error of about 1e-6 here.
LOGS, CLOSE = {"rtol": 1e-5, "atol": 2e-6}, {"rtol": 1e-6}
FORMULAS = {
    "kl_terms": (lambda: losses.kl_terms(T, S), K, LOGS),
    "kl_divergence": (lambda: losses.kl_divergence(T, S), scipy.stats.entropy(P, Q, axis=1), LOGS),
    "kl_divergence of equals": (lambda: losses.kl_divergence(T, T), np.zeros(16), {"atol": 1e-6}),
    "at temperature 4": (
        lambda: losses.kl_divergence(T, S, 4.0),
        16 * scipy.stats.entropy(*(scipy.special.softmax(np.float64(x) / 4, axis=1) for x in (T, S)), axis=1),
        {"rtol": 1e-5, "atol": 2e-5},
    ),
    "logit_distance": (
        lambda: losses.logit_distance(T, S + 5.0),
        np.abs((T - T.mean(1, keepdims=True)) - (S - S.mean(1, keepdims=True))).mean(1),
        LOGS,
    ),
    "logit_distance by hand": (
        lambda: losses.logit_distance(np.float32([[1, 2, 3]]), np.zeros((1, 3))),
        [2 / 3],
        CLOSE,
    ),
    "logit_distance to a projection": (
        lambda: losses.logit_distance(np.where(GONE, np.float32(-1e9), T), S),
        np.abs((T - S - (T - S)[:, ~GONE].mean(1, keepdims=True))[:, ~GONE]).mean(1),
        LOGS,
    ),
    # Teacher (1/2, 1/2), student (3/4, 1/4): 1/2 log(2/3) + 1/2 log 2.
    "by hand": (lambda: losses.kl_divergence(np.zeros((1, 2)), np.log([[3.0, 1]])), [np.log(4 / 3) / 2], CLOSE),
    "adversarial": (lambda: losses.adversarial(T, S, FORGET, 0.0), -K.sum(1), LOGS),
    "nothing to forget": (lambda: losses.adversarial(T, S, 0 * FORGET, 1.0), -K.sum(1), LOGS),
    "inhibited": (lambda: losses.adversarial(T, S, FORGET, 1.0), K[:, GONE].sum(1) - K[:, ~GONE].sum(1), LOGS),
    "one_hot": (lambda: losses.one_hot(T), -np.log(P[np.arange(16), P.argmax(1)]), LOGS),
    "class_balance": (lambda: losses.class_balance(np.float32(MEAN)), -scipy.stats.entropy(MEAN), CLOSE),
    "class_balance of equals": (lambda: losses.class_balance(np.full(10, 0.1)), -np.log(10), CLOSE),
    "class_balance of one class": (lambda: losses.class_balance(np.eye(3)[0]), 0, {"atol": 0}),
    "its gradient": (lambda: jax.grad(losses.class_balance)(np.float32(MEAN)), 1 + np.log(MEAN), CLOSE),
    "retained": (lambda: losses.retained(np.float32(MEAN), FORGET), np.where(GONE, 0, MEAN) / MEAN[~GONE].sum(), CLOSE),
    "activation": (lambda: losses.activation(T), -np.abs(np.float64(T)).mean(1), CLOSE),
    "forget_probability": (lambda: losses.forget_probability(T, FORGET), P[:, GONE].mean(1), {"rtol": 1e-5}),
    "retained_entropy": (lambda: losses.retained_entropy(T, FORGET), scipy.stats.entropy(P[:, ~GONE], axis=1), LOGS),
    "of one class": (lambda: losses.retained_entropy(T, 1 - np.eye(7)[2]), np.zeros(16), {"atol": 1e-6}),
    "of equals": (lambda: losses.retained_entropy(np.zeros((1, 7)), FORGET), [np.log(5)], CLOSE),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_formula(name):
    loss, want, tolerance = FORMULAS[name]
    np.testing.assert_allclose(loss(), want, **{"rtol": 0, **tolerance})


def moments(seed):
    rng = np.random.default_rng(seed)
    draw = lambda n: {"mean": np.float32(rng.standard_normal(n)), "var": np.float32(rng.uniform(0.5, 2, n))}
    return {"bn1": draw(3), "stage": {"bn2": draw(5)}}


def test_moment_matching_adds_norms_that_are_not_squared():
    a, b = moments(0), moments(1)
    want = sum(np.linalg.norm(x - y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    np.testing.assert_allclose(losses.moment_matching(a, b), want, rtol=1e-6)
    assert losses.moment_matching({"mean": np.zeros(2)}, {"mean": np.array([3.0, 4.0])}) == 5


def test_moment_matching_at_distance_zero_has_gradient_zero():
    """As PyTorch's norm; the slope of a root at zero is infinite."""
    a, b = moments(0), moments(1)
    b["bn1"] = a["bn1"]
    assert losses.moment_matching(a, a) == 0
    gradient = jax.grad(losses.moment_matching, 1)(a, b)
    np.testing.assert_array_equal(gradient["bn1"]["mean"], np.zeros(3))
    difference = b["stage"]["bn2"]["mean"] - a["stage"]["bn2"]["mean"]
    np.testing.assert_allclose(gradient["stage"]["bn2"]["mean"], difference / np.linalg.norm(difference), rtol=1e-5)


ROWS = [[200, 0, -200, 1, 2, 3, 4], [1e4, -1e4, *[0] * 5], [0, 0, 0, -1e9, -1e9, 1e9, 0], [0, 1e30, *[0] * 5], [0] * 7]
EXTREME = np.array(ROWS, np.float32)


@pytest.mark.parametrize("t, s", [(EXTREME, EXTREME[::-1]), (EXTREME[::-1], EXTREME)])
def test_extreme_logits_give_finite_losses_and_gradients(t, s):
    every_loss = [
        losses.kl_divergence,
        lambda t, s: losses.adversarial(t, s, FORGET, 0.0),
        lambda t, s: losses.adversarial(t, s, FORGET, 1.0),
        lambda t, s: losses.one_hot(t),
        lambda t, s: losses.class_balance(jnp.mean(jax.nn.softmax(t), axis=0)),
        lambda t, s: losses.class_balance(jax.nn.softmax(t)[0]),
        lambda t, s: losses.activation(t),
        lambda t, s: losses.forget_probability(t, FORGET),
    ]
    of_all = lambda t, s: jnp.stack([jnp.sum(loss(t, s)) for loss in every_loss])
    values, gradients = of_all(t, s), jax.jit(jax.jacrev(of_all, (0, 1)))(t, s)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((values, gradients)))


def test_extreme_logits_give_the_entropy_of_the_retained_rest():
    """A metric, of which no gradient is taken."""
    want = scipy.stats.entropy(scipy.special.softmax(np.float64(EXTREME[:, ~GONE]), axis=1), axis=1)
    np.testing.assert_allclose(losses.retained_entropy(EXTREME, FORGET), want, rtol=1e-5, atol=2e-6)
