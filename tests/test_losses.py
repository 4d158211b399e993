"""Losses against their formulas in float64 numpy, and finite gradients where logits are extreme."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from ispf_jax import losses as objectives

FORGET = np.array([0, 1, 0, 0, 1, 0, 0], np.float32)
RNG = np.random.default_rng(0)
T, S = (3 * RNG.standard_normal((2, 16, 7))).astype(np.float32)
# Log probabilities in float32 carry an absolute error of about 1e-6 here.
CLOSE = {"rtol": 1e-5, "atol": 2e-6}


def probabilities(logits):
    return scipy.special.softmax(logits.astype(np.float64), axis=1)


def test_kl_divergence():
    p, q = probabilities(T), probabilities(S)
    np.testing.assert_allclose(objectives.kl_terms(T, S), p * np.log(p / q), **CLOSE)
    np.testing.assert_allclose(objectives.kl_divergence(T, S), scipy.stats.entropy(p, q, axis=1), **CLOSE)
    np.testing.assert_allclose(objectives.kl_divergence(T, T), 0, atol=1e-6)


def test_kl_divergence_by_hand():
    """Teacher (1/2, 1/2), student (3/4, 1/4): 1/2 log(2/3) + 1/2 log 2 = 1/2 log(4/3)."""
    got = objectives.kl_divergence(jnp.zeros((1, 2)), jnp.array([[np.log(3), 0.0]]))
    np.testing.assert_allclose(got, [np.log(4 / 3) / 2], rtol=1e-6)


def test_adversarial_without_inhibition_is_minus_kl():
    for mask in (FORGET, np.zeros(7)):
        np.testing.assert_allclose(objectives.adversarial(T, S, mask, 0.0), -objectives.kl_divergence(T, S), **CLOSE)


def test_inhibited_synthesis_turns_the_sign_of_forgotten_terms():
    p, q = probabilities(T), probabilities(S)
    k = p * np.log(p / q)
    want = -k[:, FORGET == 0].sum(1) + k[:, FORGET == 1].sum(1)
    got = objectives.adversarial(T, S, FORGET, 1.0)
    np.testing.assert_allclose(got, want, **CLOSE)
    kl = objectives.kl_divergence(T, S)
    np.testing.assert_allclose(got, -kl + 2 * k[:, FORGET == 1].sum(1), **CLOSE)


def test_one_hot_is_the_cross_entropy_with_the_own_label():
    p = probabilities(T)
    np.testing.assert_allclose(objectives.one_hot(T), -np.log(p[np.arange(16), p.argmax(1)]), **CLOSE)


def test_class_balance():
    mean = probabilities(T).mean(0)
    np.testing.assert_allclose(objectives.class_balance(jnp.float32(mean)), -scipy.stats.entropy(mean), **CLOSE)
    np.testing.assert_allclose(objectives.class_balance(jnp.full(10, 0.1)), -np.log(10), rtol=1e-6)
    assert objectives.class_balance(jnp.array([1.0, 0.0, 0.0])) == 0


def test_class_balance_gradient():
    mean = np.array([0.5, 0.3, 0.2], np.float32)
    np.testing.assert_allclose(jax.grad(objectives.class_balance)(mean), 1 + np.log(mean), rtol=1e-6)


def test_activation():
    np.testing.assert_allclose(objectives.activation(T), -np.abs(T.astype(np.float64)).mean(1), rtol=1e-6)


def moments(seed):
    rng = np.random.default_rng(seed)
    draw = lambda n: {
        "mean": rng.standard_normal(n).astype(np.float32),
        "var": rng.uniform(0.5, 2, n).astype(np.float32),
    }
    return {"bn1": draw(3), "stage": {"bn2": draw(5)}}


def test_moment_matching_adds_norms_that_are_not_squared():
    a, b = moments(0), moments(1)
    pairs = [(a["bn1"], b["bn1"]), (a["stage"]["bn2"], b["stage"]["bn2"])]
    want = sum(np.linalg.norm(x[name] - y[name]) for x, y in pairs for name in ("mean", "var"))
    np.testing.assert_allclose(objectives.moment_matching(a, b), want, rtol=1e-6)
    three_four = objectives.moment_matching({"bn": {"mean": jnp.zeros(2)}}, {"bn": {"mean": jnp.array([3.0, 4.0])}})
    assert three_four == 5


def test_moment_matching_at_distance_zero_has_gradient_zero():
    """As PyTorch's norm; the slope of a root at zero is infinite."""
    a, b = moments(0), moments(1)
    b["bn1"] = a["bn1"]
    assert objectives.moment_matching(a, a) == 0
    gradient = jax.grad(objectives.moment_matching, 1)(a, b)
    np.testing.assert_array_equal(gradient["bn1"]["mean"], np.zeros(3))
    difference = b["stage"]["bn2"]["mean"] - a["stage"]["bn2"]["mean"]
    np.testing.assert_allclose(gradient["stage"]["bn2"]["mean"], difference / np.linalg.norm(difference), rtol=1e-5)


def test_forget_probability_is_the_mean_over_forgotten_classes():
    want = probabilities(T)[:, FORGET == 1].mean(1)
    np.testing.assert_allclose(objectives.forget_probability(T, FORGET), want, rtol=1e-5)


def test_retained_entropy_is_that_of_the_renormalised_rest():
    p = probabilities(T)[:, FORGET == 0]
    np.testing.assert_allclose(objectives.retained_entropy(T, FORGET), scipy.stats.entropy(p, axis=1), **CLOSE)
    only_one_left = objectives.retained_entropy(T, np.array([1, 1, 0, 1, 1, 1, 1]))
    np.testing.assert_allclose(only_one_left, 0, atol=1e-6)
    np.testing.assert_allclose(objectives.retained_entropy(np.zeros((1, 7)), FORGET), np.log(5), rtol=1e-6)


EXTREME = np.array(
    [
        [200, 0, -200, 1, 2, 3, 4],
        [1e4, -1e4, 0, 0, 0, 0, 0],
        [0, 0, 0, -1e9, -1e9, 1e9, 0],
        [0, 1e30, 0, 0, 0, 0, 0],
        [0] * 7,
    ],
    np.float32,
)
LOSSES = {
    "kl": lambda t, s: objectives.kl_divergence(t, s),
    "adversarial": lambda t, s: objectives.adversarial(t, s, FORGET, 0.0),
    "inhibited": lambda t, s: objectives.adversarial(t, s, FORGET, 1.0),
    "one_hot": lambda t, s: objectives.one_hot(t),
    "balance": lambda t, s: objectives.class_balance(jnp.mean(jax.nn.softmax(t), axis=0)),
    "balance of one image": lambda t, s: objectives.class_balance(jax.nn.softmax(t)[0]),
    "activation": lambda t, s: objectives.activation(t),
    "forget_probability": lambda t, s: objectives.forget_probability(t, FORGET),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_extreme_logits_give_finite_losses_and_gradients(name, order):
    pair = [EXTREME, EXTREME[::-1]]
    t, s = (pair[i] for i in order)
    loss, gradients = jax.value_and_grad(lambda t, s: jnp.sum(LOSSES[name](t, s)), (0, 1))(t, s)
    assert np.isfinite(loss)
    assert all(np.isfinite(g).all() for g in gradients)


def test_extreme_logits_give_the_entropy_of_the_retained_rest():
    """A metric, of which no gradient is taken."""
    want = scipy.stats.entropy(probabilities(EXTREME[:, FORGET == 0]), axis=1)
    np.testing.assert_allclose(objectives.retained_entropy(EXTREME, FORGET), want, **CLOSE)
