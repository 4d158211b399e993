"""Batch norm with a mask against dense batch norm on the rows that exist."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ispf_jax.devices import Devices, local_slice, psum, value_and_global_grad
from ispf_jax.models.layers import MOMENTS, MaskedBatchNorm

FEATURES = 5
KEPT = np.array([1, 0, 1, 1, 0, 0, 1, 0])
EPS = 1e-5


def problem(rows=8, seed=0):
    """Inputs and variables in general position, and a weight per output, so that no gradient cancels by symmetry."""
    rng = np.random.default_rng(seed)
    x = (2 * rng.standard_normal((rows, 3, 2, FEATURES)) + 1).astype(np.float32)
    params = {"scale": rng.uniform(0.5, 2, FEATURES), "bias": rng.standard_normal(FEATURES)}
    stats = {"mean": rng.standard_normal(FEATURES), "var": rng.uniform(0.5, 2, FEATURES)}
    variables = jax.tree.map(np.float32, {"params": params, "batch_stats": stats})
    return x, variables, rng.standard_normal(x.shape).astype(np.float32)


@partial(jax.jit, static_argnames=("train", "mutable"))
def apply(variables, x, mask=None, train=True, mutable=("batch_stats",)):
    return MaskedBatchNorm().apply(variables, x, train, mask, mutable=list(mutable))


def dense(params, x):
    """Batch norm in train mode as PyTorch documents it, on every row of x."""
    values = x.reshape(-1, x.shape[-1])
    mean, var = values.mean(0), ((values - values.mean(0)) ** 2).mean(0)
    return (x - mean) / (var + EPS) ** 0.5 * params["scale"] + params["bias"]


def test_output_on_kept_rows_is_that_of_the_dense_batch():
    x, variables, _ = problem()
    y, _ = apply(variables, x, KEPT)
    want = dense(jax.tree.map(np.float64, variables["params"]), x[KEPT > 0].astype(np.float64))
    np.testing.assert_allclose(y[KEPT > 0], want, rtol=2e-6, atol=2e-6)


def test_without_a_mask_every_row_counts():
    x, variables, _ = problem()
    y, new = apply(variables, x)
    np.testing.assert_allclose(y, dense(variables["params"], x.astype(np.float64)), rtol=2e-6, atol=2e-6)
    masked_y, masked_new = apply(variables, x, np.ones(8))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6), (y, new), (masked_y, masked_new))


def test_running_statistics_use_the_unbiased_variance():
    x, variables, _ = problem()
    _, new = apply(variables, x, KEPT)
    values, old = x[KEPT > 0].astype(np.float64).reshape(-1, FEATURES), variables["batch_stats"]
    assert len(values) == 24
    np.testing.assert_allclose(new["batch_stats"]["mean"], 0.9 * old["mean"] + 0.1 * values.mean(0), rtol=1e-6)
    np.testing.assert_allclose(new["batch_stats"]["var"], 0.9 * old["var"] + 0.1 * values.var(0, ddof=1), rtol=1e-6)


def test_running_variance_of_two_numbers():
    """Values 1 and 3: biased variance 1, unbiased 2; from a running variance of 1 to 0.9 + 0.1 * 2."""
    x = np.array([[1.0], [100.0], [3.0]], np.float32)
    variables = {
        "params": {"scale": np.ones(1), "bias": np.zeros(1)},
        "batch_stats": {"mean": np.zeros(1), "var": np.ones(1)},
    }
    y, new = apply(variables, x, np.array([1, 0, 1]))
    np.testing.assert_allclose(new["batch_stats"]["mean"], [0.2], rtol=1e-6)
    np.testing.assert_allclose(new["batch_stats"]["var"], [1.1], rtol=1e-6)
    np.testing.assert_allclose(y[::2, 0], [-1, 1], rtol=1e-5)


def test_gradients_are_those_of_the_dense_batch():
    x, variables, weight = problem()

    def masked_loss(params, x):
        y, _ = MaskedBatchNorm().apply({**variables, "params": params}, x, True, KEPT, mutable=["batch_stats"])
        return jnp.sum(weight * y * KEPT[:, None, None, None])

    def dense_loss(params, x):
        return jnp.sum(weight[KEPT > 0] * dense(params, x))

    params, by_x = jax.jit(jax.grad(masked_loss, (0, 1)))(variables["params"], x)
    want_params, want_by_x = jax.jit(jax.grad(dense_loss, (0, 1)))(variables["params"], x[KEPT > 0])
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), params, want_params)
    np.testing.assert_allclose(by_x[KEPT > 0], want_by_x, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(by_x[KEPT == 0], 0)


@pytest.mark.parametrize("mask", [None, KEPT])
def test_gradients_of_outputs_moments_and_rows_that_are_masked_out(mask):
    """The layer's own gradient against the one that JAX writes for the same definition."""
    x, variables, weight = problem()
    rng = np.random.default_rng(1)
    by_mean, by_var = rng.standard_normal((2, FEATURES))
    keep = np.ones(8, bool) if mask is None else mask > 0

    def loss(y, mean, var):
        return jnp.sum(weight * y) + jnp.sum(by_mean * mean) + jnp.sum(by_var * var)

    def of_the_layer(params, x):
        y, new = MaskedBatchNorm().apply(
            {**variables, "params": params}, x, True, mask, mutable=["batch_stats", MOMENTS]
        )
        return loss(y, new[MOMENTS]["mean"], new[MOMENTS]["var"])

    def of_the_definition(params, x):
        kept = x[keep].reshape(-1, FEATURES)
        mean, var = kept.mean(0), ((kept - kept.mean(0)) ** 2).mean(0)
        return loss((x - mean) / (var + EPS) ** 0.5 * params["scale"] + params["bias"], mean, var)

    got, want = (jax.jit(jax.grad(f, (0, 1)))(variables["params"], x) for f in (of_the_layer, of_the_definition))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), got, want)


def test_masked_rows_influence_nothing():
    x, variables, _ = problem()
    changed = np.where(KEPT[:, None, None, None] > 0, x, 1e6).astype(np.float32)
    (y, new), (changed_y, changed_new) = apply(variables, x, KEPT), apply(variables, changed, KEPT)
    np.testing.assert_array_equal(y[KEPT > 0], changed_y[KEPT > 0])
    jax.tree.map(np.testing.assert_array_equal, new, changed_new)


def test_a_large_mean_does_not_cancel():
    """float32 resolves 1000 to 6e-5: E[x^2] - E[x]^2 would lose the variance of 1e-4 altogether."""
    rng = np.random.default_rng(0)
    x = (1000 + 0.01 * rng.standard_normal((256, FEATURES))).astype(np.float32)
    variables = problem()[1]
    y, new = apply(variables, x, np.ones(256), mutable=("batch_stats", MOMENTS))
    exact = x.astype(np.float64)
    # A mean of 256 values that is wrong by three units in the last place, 2e-4, adds its square to the variance and moves the
    # outputs by 0.02 standard deviations times scale.
    np.testing.assert_allclose(new[MOMENTS]["mean"], exact.mean(0), rtol=2e-7)
    np.testing.assert_allclose(new[MOMENTS]["var"], exact.var(0), rtol=1e-3)
    np.testing.assert_allclose(y, dense(jax.tree.map(np.float64, variables["params"]), exact), atol=0.04)


def test_an_empty_mask_changes_nothing_and_stays_finite():
    x, variables, weight = problem()

    def loss(params, x):
        y, new = MaskedBatchNorm().apply({**variables, "params": params}, x, True, np.zeros(8), mutable=["batch_stats"])
        return jnp.sum(weight * y), (y, new)

    (_, (y, new)), gradients = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(variables["params"], x)
    jax.tree.map(np.testing.assert_array_equal, new["batch_stats"], variables["batch_stats"])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((y, gradients)))


def test_eval_mode_uses_the_running_statistics():
    x, variables, _ = problem()
    y, new = apply(variables, x, train=False)
    stats, params = variables["batch_stats"], variables["params"]
    want = (x - stats["mean"]) / np.sqrt(stats["var"] + EPS) * params["scale"] + params["bias"]
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, new["batch_stats"], stats)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("mask", [None, KEPT])
def test_moments_are_the_mean_and_the_biased_variance_of_the_input(train, mask):
    x, variables, _ = problem()
    y, new = apply(variables, x, mask, train, mutable=("batch_stats", MOMENTS))
    values = (x if mask is None else x[mask > 0]).astype(np.float64).reshape(-1, FEATURES)
    np.testing.assert_allclose(new[MOMENTS]["mean"], values.mean(0), rtol=1e-6)
    np.testing.assert_allclose(new[MOMENTS]["var"], values.var(0), rtol=1e-6)
    np.testing.assert_allclose(
        y, apply(variables, x, mask, train)[0], rtol=1e-6, atol=1e-6
    )  # leaving them changes no output


def test_no_moments_unless_asked_for_and_none_from_initialisation():
    x, variables, _ = problem()
    assert set(apply(variables, x)[1]) == {"batch_stats"}
    fresh = MaskedBatchNorm().init(jax.random.key(0), x, True)
    assert set(fresh) == {"params", "batch_stats"}
    np.testing.assert_array_equal(fresh["batch_stats"]["mean"], np.zeros(FEATURES))
    np.testing.assert_array_equal(fresh["batch_stats"]["var"], np.ones(FEATURES))


def test_half_precision_computes_in_single():
    x, variables, _ = problem()
    half = jnp.bfloat16(x)
    y, new = MaskedBatchNorm(dtype=jnp.bfloat16).apply(variables, half, True, KEPT, mutable=["batch_stats"])
    want, want_new = apply(variables, half.astype(np.float32), KEPT)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, jnp.bfloat16(want))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), new, want_new)


def loss_over_devices(_, variables, images, weight, mask, axis):
    """Masked loss of scaled inputs; differentiated by the scale of the inputs, so the gradient runs through the statistics."""
    local = [local_slice(a, axis) for a in (images, weight, mask)]

    def share(params):
        x, weight, mask = local
        x = x * params["input"]
        norm = {"params": params["norm"], "batch_stats": variables["batch_stats"]}
        y, new = MaskedBatchNorm().apply(norm, x, True, mask, axis, mutable=["batch_stats", MOMENTS])
        return jnp.sum(weight * jnp.tanh(y) * mask[:, None, None, None]) / jnp.maximum(psum(jnp.sum(mask), axis), 1), (
            new,
            y,
        )

    params = {"input": jnp.linspace(0.5, 2, FEATURES), "norm": variables["params"]}
    (loss, (new, y)), gradient = value_and_global_grad(share, params, axis)
    y = y if axis is None else jax.lax.all_gather(y, axis, tiled=True)
    return loss, gradient, new, y


@pytest.fixture(scope="module")
def programs():
    return [Devices(tuple(jax.devices()[:count])).compile(loss_over_devices, None) for count in (1, 4)]


# Two rows per device.
@pytest.mark.parametrize("mask", ["11111111", "10110100", "11100100", "00001000", "00000000"])
def test_four_devices_are_one(programs, mask):
    x, variables, weight = problem()
    mask = jnp.array([float(m) for m in mask])
    one, four = (program(variables, jnp.array(x), jnp.array(weight), mask) for program in programs)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), four, one)


def test_devices_with_uneven_masks_one_of_them_empty_see_the_dense_batch(programs):
    x, variables, weight = problem()
    mask = np.array([1, 1, 1, 0, 0, 1, 0, 0])
    assert mask.reshape(4, 2).sum(1).tolist() == [2, 1, 1, 0]
    y = programs[1](variables, jnp.array(x), jnp.array(weight), jnp.array(mask, jnp.float32))[3]
    scaled = x[mask > 0].astype(np.float64) * np.linspace(0.5, 2, FEATURES)
    np.testing.assert_allclose(np.asarray(y)[mask > 0], dense(variables["params"], scaled), rtol=1e-5, atol=1e-5)
