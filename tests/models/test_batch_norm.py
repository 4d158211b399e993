"""Batch norm with a mask against dense batch norm, in float64, on the rows that exist."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ispf_jax.collectives import local_slice, psum, value_and_global_grad
from ispf_jax.devices import Devices
from ispf_jax.models.layers import MOMENTS, MaskedBatchNorm

FEATURES, EPS = 5, 1e-5
KEPT = np.array([1, 0, 1, 1, 0, 0, 1, 0])
RNG = np.random.default_rng(0)
# Inputs and variables in general position, and a weight per output, so that no gradient cancels by symmetry.
X, WEIGHT = (
    np.float32(2 * RNG.standard_normal((8, 3, 2, FEATURES)) + 1),
    np.float32(RNG.standard_normal((8, 3, 2, FEATURES))),
)
PARAMS, STATS = (
    {at: np.float32(RNG.standard_normal(FEATURES)), size: np.float32(RNG.uniform(0.5, 2, FEATURES))}
    for at, size in (("bias", "scale"), ("mean", "var"))
)
VARIABLES = {"params": PARAMS, "batch_stats": STATS}
close = lambda got, want, rtol=1e-6, atol=0: jax.tree.map(
    partial(np.testing.assert_allclose, rtol=rtol, atol=atol), got, want
)
masks = pytest.mark.parametrize("mask", [None, KEPT])


@partial(jax.jit, static_argnames=("train", "mutable"))
def apply(variables, x, mask=None, train=True, mutable=("batch_stats", MOMENTS)):
    return MaskedBatchNorm().apply(variables, x, train, mask, mutable=list(mutable))


def normalised(x, mean, var, params=PARAMS):
    return (x - mean) / (var + EPS) ** 0.5 * params["scale"] + params["bias"]


def rows(x, mask):
    return x if mask is None else x[np.asarray(mask) > 0]


def values(x, mask):
    """[N, FEATURES], float64, of the rows that exist."""
    return np.float64(rows(x, mask)).reshape(-1, FEATURES)


@masks
def test_training_is_that_of_the_dense_batch(mask):
    """PyTorch normalises by the biased variance and keeps the unbiased one."""
    (y, new), v = apply(VARIABLES, X, mask), values(X, mask)
    want = normalised(rows(X, mask).astype(np.float64), v.mean(0), v.var(0))
    close(rows(y, mask), want, 2e-6, 2e-6)
    running = {"mean": 0.9 * STATS["mean"] + 0.1 * v.mean(0), "var": 0.9 * STATS["var"] + 0.1 * v.var(0, ddof=1)}
    close(new, {"batch_stats": running, MOMENTS: {"mean": v.mean(0), "var": v.var(0)}})
    plain, left = apply(VARIABLES, X, mask, mutable=("batch_stats",))  # leaving moments changes no output
    close(plain, y, 1e-6, 1e-6)
    assert set(left) == {"batch_stats"}


@masks
def test_eval_mode_uses_the_running_statistics(mask):
    (y, new), v = apply(VARIABLES, X, mask, train=False), values(X, mask)
    close(y, normalised(X, **STATS), 1e-5, 1e-5)
    jax.tree.map(np.testing.assert_array_equal, new["batch_stats"], STATS)
    close(new[MOMENTS], {"mean": v.mean(0), "var": v.var(0)})


@masks
@pytest.mark.parametrize("seen", [1, KEPT[:, None, None, None]])
def test_gradients_of_outputs_and_moments(mask, seen):
    """The layer's own gradient against the one that JAX writes for the definition, with and without masked outputs."""
    by_mean, by_var = RNG.standard_normal((2, FEATURES))
    moments_count = np.ndim(seen) == 0

    def loss(y, mean, var):
        return jnp.sum(seen * WEIGHT * y) + moments_count * (jnp.sum(by_mean * mean) + jnp.sum(by_var * var))

    def of_the_layer(params, x):
        y, new = apply({**VARIABLES, "params": params}, x, mask)
        return loss(y, **new[MOMENTS])

    def of_the_definition(params, x):
        kept = rows(x, mask).reshape(-1, FEATURES)
        mean = kept.mean(0)
        var = ((kept - mean) ** 2).mean(0)
        return loss(normalised(x, mean, var, params), mean, var)

    got, want = (jax.jit(jax.grad(f, (0, 1)))(PARAMS, X) for f in (of_the_layer, of_the_definition))
    close(got, want, 1e-5, 1e-5)
    if mask is not None and not moments_count:
        np.testing.assert_array_equal(got[1][KEPT == 0], 0)


def test_masked_rows_influence_nothing():
    changed = np.where(KEPT[:, None, None, None] > 0, X, 1e6).astype(np.float32)
    (y, new), (changed_y, changed_new) = apply(VARIABLES, X, KEPT), apply(VARIABLES, changed, KEPT)
    np.testing.assert_array_equal(rows(y, KEPT), rows(changed_y, KEPT))
    jax.tree.map(np.testing.assert_array_equal, new, changed_new)


def test_a_large_mean_does_not_cancel():
    """float32 resolves 1000 to 6e-5: E[x^2] - E[x]^2 would lose the variance of 1e-4 altogether."""
    x = np.float32(1000 + 0.01 * RNG.standard_normal((256, FEATURES)))
    (y, new), v = apply(VARIABLES, x, np.ones(256)), values(x, None)
    # A mean of 256 values that is wrong by three units in the last place, 2e-4, adds its square to the variance and
    # moves the outputs by 0.02 standard deviations times scale.
    close(new[MOMENTS]["mean"], v.mean(0), 2e-7)
    close(new[MOMENTS]["var"], v.var(0), 1e-3)
    close(y, normalised(v, v.mean(0), v.var(0)), 0, 0.04)


def test_an_empty_mask_changes_nothing_and_stays_finite():
    def loss(params, x):
        y, new = apply({**VARIABLES, "params": params}, x, np.zeros(8))
        return jnp.sum(WEIGHT * y), (y, new["batch_stats"])

    (_, (y, new)), gradients = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(PARAMS, X)
    jax.tree.map(np.testing.assert_array_equal, new, STATS)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((y, gradients)))


def test_initialisation():
    fresh = MaskedBatchNorm().init(jax.random.key(0), X, True)
    assert set(fresh) == {"params", "batch_stats"}
    close(fresh["batch_stats"], {"mean": np.zeros(FEATURES), "var": np.ones(FEATURES)}, 0)


def test_half_precision_computes_in_single():
    half = jnp.bfloat16(X)
    y, new = MaskedBatchNorm(dtype=jnp.bfloat16).apply(VARIABLES, half, True, KEPT, mutable=["batch_stats", MOMENTS])
    want, want_new = apply(VARIABLES, half.astype(np.float32), KEPT)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, jnp.bfloat16(want))
    close(new, want_new)


SCALES = np.linspace(0.5, 2, FEATURES, dtype=np.float32)


def loss_over_devices(_, variables, images, weight, mask, axis):
    """Masked loss of scaled inputs; its gradient by the scale of the inputs runs through the statistics."""
    images, weight, mask = (local_slice(a, axis) for a in (images, weight, mask))

    def share(params):
        norm = {**variables, "params": params["norm"]}
        x = images * params["input"]
        y, new = MaskedBatchNorm().apply(norm, x, True, mask, axis, mutable=["batch_stats", MOMENTS])
        terms = weight * jnp.tanh(y) * mask[:, None, None, None]
        return jnp.sum(terms) / jnp.maximum(psum(jnp.sum(mask), axis), 1), (new, y)

    params = {"input": jnp.array(SCALES), "norm": variables["params"]}
    (loss, (new, y)), gradient = value_and_global_grad(share, params, axis)
    return loss, gradient, new, y if axis is None else jax.lax.all_gather(y, axis, tiled=True)


@pytest.mark.parametrize("mask", ["11111111", "10110100", "11100100", "00001000", "00000000"])
def test_four_devices_are_one_and_see_the_dense_batch(mask):
    """Two rows per device, of which with some masks a device has none."""
    mask = np.array([float(m) for m in mask], np.float32)
    arguments = jax.tree.map(jnp.array, (VARIABLES, X, WEIGHT, mask))
    compiled = [Devices(tuple(jax.devices()[:count])).compile(loss_over_devices, None) for count in (1, 4)]
    one, four = (program(*arguments) for program in compiled)
    close(four, one, 1e-5, 1e-6)
    v = values(X * SCALES, mask)
    if len(v):
        want = normalised(rows(X * np.float64(SCALES), mask), v.mean(0), v.var(0))
        close(rows(np.asarray(four[3]), mask), want, 1e-5, 1e-5)
