"""Optimisers and schedules against PyTorch's documented formulas, written out in float64 numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ispf_jax import optim

RATES = (0.1, 0.1, 0.05, 0.02, 0.02, 0.01)


def assert_same(optimizer, update, atol=1e-6):
    """The package's updates, compiled as in the steps, and `update(rate, step, gradient, memory, weight)` by hand."""
    rng = np.random.default_rng(0)
    draw = lambda: {"a": rng.standard_normal((3, 2)), "b": {"c": rng.standard_normal(4)}}
    want = draw()
    params, memory = jax.tree.map(jnp.float32, want), jax.tree.map(lambda _: {}, want)
    state, apply = optimizer.init(params), jax.jit(lambda *args: optim.apply(optimizer, *args))
    for step, rate in enumerate(RATES, start=1):
        gradient = draw()
        params, state = apply(rate, jax.tree.map(jnp.float32, gradient), state, params)
        want = jax.tree.map(lambda w, g, m, rate=rate, step=step: update(rate, step, g, m, w), want, gradient, memory)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=atol), params, want)


@pytest.mark.parametrize("momentum, decay", [(0.9, 1e-4), (0.5, 0.3), (0.0, 0.0)])
def test_sgd(momentum, decay):
    """torch.optim.SGD: g <- g + decay w; buffer <- g at first, then momentum buffer + g; w <- w - rate buffer."""

    def update(rate, step, g, memory, w):
        g = g + decay * w
        memory["buffer"] = g if step == 1 else momentum * memory["buffer"] + g
        return w - rate * memory["buffer"]

    assert_same(optim.sgd(momentum, decay), update)


@pytest.mark.parametrize("b1, b2", [(0.5, 0.999), (0.9, 0.99)])
def test_adam(b1, b2):
    """torch.optim.Adam: moments corrected for their start at zero, eps added to the root."""

    def update(rate, step, g, memory, w):
        memory["m"] = b1 * memory.get("m", 0) + (1 - b1) * g
        memory["v"] = b2 * memory.get("v", 0) + (1 - b2) * g**2
        m, v = memory["m"] / (1 - b1**step), memory["v"] / (1 - b2**step)
        return w - rate * m / (np.sqrt(v) + 1e-8)

    # In float32 1 - 0.999^n has a relative error of 6e-5, half of which passes to an update of size `rate`.
    assert_same(optim.adam(b1, b2), update, atol=1e-5)


def test_adams_epsilon_is_outside_the_root():
    """A gradient of 1e-8 moves by half the rate; with eps inside the root it would be by 1e-4 of it."""
    optimizer, params = optim.adam(0.5, 0.999), {"w": jnp.zeros(1)}
    new, _ = optim.apply(optimizer, 1.0, {"w": jnp.array([1e-8])}, optimizer.init(params), params)
    np.testing.assert_allclose(new["w"], [-0.5], rtol=1e-3)


def test_cosine_is_pytorchs_recursion():
    """torch.optim.lr_scheduler.CosineAnnealingLR computes each rate from the one before; at the end, and traced."""
    rate, final, period = 0.05, 2e-4, 20
    compiled = jax.jit(lambda step: optim.cosine(step, 0.05, final, period))
    for step in range(20):
        np.testing.assert_allclose(compiled(step), rate, rtol=1e-5)
        rate = (1 + np.cos(np.pi * (step + 1) / period)) / (1 + np.cos(np.pi * step / period)) * (rate - final) + final
    np.testing.assert_allclose(compiled(20), final, rtol=1e-4)


def test_rates_at_the_end_of_the_papers_runs():
    """The specification's table: SVHN stops half way through its cosine."""
    np.testing.assert_allclose(optim.cosine(99, 0.1, 2e-4, 200), 0.0509, atol=5e-5)
    np.testing.assert_allclose(optim.cosine(199, 0.05, 2e-4, 200), 2.03e-4, atol=5e-7)
    np.testing.assert_allclose([optim.cosine(at, 0.1, 2e-4, 7.0) for at in (0, 3.5, 7)], [0.1, 0.0501, 2e-4], rtol=1e-5)


def test_multi_step():
    rates = [optim.multi_step(step, 0.1, (3, 5), 0.1) for step in range(7)]
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    assert [optim.multi_step(step, 0.1, (), 0.1) for step in (0, 50)] == [0.1, 0.1]
