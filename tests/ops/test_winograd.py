"""Winograd's convolutions against direct ones in float64, and which convolutions are Winograd's."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ispf_jax.ops import IMPLEMENTATIONS, conv, conv_general_dilated, convolutions, describe, onednn, winograd
from tests.ops.test_conv import convolve, scanned, with_gradients

PADDED = ((1, 1), (1, 1))


def problem(batch, size, inputs, outputs, dtype=np.float32):
    """Images as they come out of a ReLU, filters and output gradients."""
    rng = np.random.default_rng(0)
    shapes = (batch, *size, inputs), (3, 3, inputs, outputs), (batch, *size, outputs)
    x, w, g = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    return np.maximum(x, 0), w, g


ours, theirs = (partial(with_gradients, op) for op in (conv_general_dilated, lax.conv_general_dilated))


def three(x, w, g):
    """Outputs, input gradient and filter gradient."""
    return winograd.forward(x, w), winograd.input_gradient(g, w), winograd.filter_gradient(x, g)


def test_minimal_filtering_is_exact():
    """Two outputs of a filter with three taps from four products (Winograd's F(2, 3)); these numbers do not round."""
    a, b, g = winograd._A, winograd._B, winograd._G
    for seed in range(5):
        rng = np.random.default_rng(seed)
        d, w = rng.integers(-50, 50, 4), rng.integers(-50, 50, 3)
        np.testing.assert_array_equal(a.T @ ((g @ w) * (b.T @ d)), np.correlate(d, w, "valid"))


@pytest.mark.parametrize(
    "batch, size, inputs, outputs", [(1, (2, 2), 1, 1), (3, (4, 10), 5, 2), (2, (8, 6), 3, 7), (5, (4, 4), 16, 16)]
)
def test_equal_to_direct_convolutions_in_float64(batch, size, inputs, outputs):
    with jax.enable_x64(True):
        arrays = problem(batch, size, inputs, outputs, np.float64)
        for got, want in zip(jax.jit(three)(*arrays), theirs(*arrays)):
            np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


def plain(x, w, g, places):
    """What `three` computes, its products added one after the other in float32.

    At places (n, i, j): pixels of outputs and input gradient, and input channels n of a filter gradient's first tap.
    """

    def summed(a, b):
        return np.cumsum(a[:, None] * b, axis=0, dtype=np.float32)[-1]

    def at(images, filters, n, i, j):
        patch = np.pad(images, ((0, 0), *PADDED, (0, 0)))[n, i : i + 3, j : j + 3]
        return summed(patch.ravel(), filters.reshape(patch.size, -1))

    flipped = w[::-1, ::-1].transpose(0, 1, 3, 2)
    shifted = np.pad(x, ((0, 0), *PADDED, (0, 0)))[:, : x.shape[1], : x.shape[2]]
    pixels = [at(x, w, *place) for place in places], [at(g, flipped, *place) for place in places]
    return *pixels, [summed(shifted[..., n].ravel(), g.reshape(-1, g.shape[3])) for n, *_ in places]


@pytest.mark.parametrize("batch, size, channels", [(8, 16, 128), (16, 8, 256), (64, 4, 512)])
def test_rounding_is_about_that_of_a_plain_sum(batch, size, channels):
    arrays = problem(batch, (size, size), channels, channels)
    places = np.random.default_rng(0).integers((batch, size, size), size=(16, 3))
    n, i, j = places.T
    where = (n, i, j), (n, i, j), (0, 0, n)
    with jax.enable_x64(True):
        exact = theirs(*(jnp.asarray(v, jnp.float64) for v in arrays))
        exact = [np.asarray(v)[at] for v, at in zip(exact, where)]
    got = [np.asarray(v)[at] for v, at in zip(jax.jit(three)(*arrays), where)]
    for value, summed, want, times in zip(got, plain(*arrays, places), exact, (1, 1, 2.5)):
        error, error_of_sum = (np.linalg.norm(np.float64(v) - want) for v in (value, summed))
        assert 0 < error < times * error_of_sum


WIDE, FILTERS = (4, 16, 16), (3, 3, 128, 128)


@pytest.mark.parametrize(
    "shape, filters, options, dtype, taken",
    [
        (WIDE, FILTERS, {}, "float32", True),
        (WIDE, (3, 3, 128, 512), {}, "float32", True),
        ((4, 16, 18), FILTERS, {}, "float32", True),
        ((4, 17, 16), FILTERS, {}, "float32", False),
        (WIDE, (3, 3, 128, 96), {}, "float32", False),
        (WIDE, (3, 3, 3, 128), {}, "float32", False),
        (WIDE, (1, 1, 128, 128), {}, "float32", False),
        (WIDE, (5, 5, 128, 128), {}, "float32", False),
        (WIDE, FILTERS, {"stride": 2}, "float32", False),
        (WIDE, FILTERS, {"padding": ((1, 1), (0, 0))}, "float32", False),
        (WIDE, FILTERS, {}, "bfloat16", False),
        ((1, 16, 16), FILTERS, {}, "float32", False),
    ],
)
def test_which_convolutions_are_winograds(monkeypatch, shape, filters, options, dtype, taken):
    """All three of a layer are, or none is; wide enough for either kind of direct convolution."""
    called = []
    names = ["forward", "input_gradient", "filter_gradient"]
    for name in names:
        function = getattr(winograd, name)
        monkeypatch.setattr(winograd, name, lambda *a, name=name, f=function: called.append(name) or f(*a))
    monkeypatch.setitem(conv._WIDE, "xla", conv._WIDE["onednn"])
    x, w = jnp.ones((*shape, filters[2]), dtype), jnp.ones(filters, dtype)

    jax.eval_shape(partial(ours, **options), x, w)
    assert called == (names if taken else [])


@pytest.mark.parametrize("with_onednn, wide", [(True, 128), (False, 64)])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_which_layers_are_wide(monkeypatch, implementation, with_onednn, wide):
    monkeypatch.setattr(onednn, "problem", lambda: "")
    monkeypatch.setattr(onednn, "available", lambda: with_onednn)
    monkeypatch.setattr(onednn, "version", lambda: "3.2.0")
    monkeypatch.setattr(onednn, "convolution", lambda kind, task: lambda x, w: jnp.zeros(task.outputs))
    with convolutions(implementation):
        for channels in (wide, wide // 2):
            x, w, _ = problem(4, (16, 16), channels, channels)
            taken = "dot_general" in str(jax.make_jaxpr(partial(convolve, conv_general_dilated))(x, w))
            assert taken == (implementation == "auto" and channels == wide)
        assert describe().endswith(" and Winograd") == (implementation == "auto")


@pytest.mark.parametrize("how", ["alone", "vmap", "pmap", "scan"])
def test_through_the_package_and_transformations(how, monkeypatch):
    """Oblong images and unlike numbers of channels, against JAX's convolution."""
    monkeypatch.setattr(winograd, "_MANY", 1)
    monkeypatch.setattr(conv, "_WIDE", {"onednn": 4, "xla": 4})
    arrays = problem(4, (6, 10), 5, 7)
    mapped = arrays if how == "alone" else [np.stack([a, a[::-1], 2 * a]) for a in arrays]
    transform = {"alone": jax.jit, "vmap": jax.vmap, "pmap": jax.pmap, "scan": scanned}[how]
    got, want = transform(ours), transform(theirs)
    assert "conv_general_dilated" not in str(jax.make_jaxpr(got)(*mapped))
    for a, b in zip(got(*mapped), want(*mapped)):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_descent_through_two_wide_layers():
    """Steps of descent in a loop, as training runs them, against XLA's convolutions and JAX's gradients."""
    x, w, target = problem(4, (16, 16), 128, 128)
    w = w / 34

    def descend(op):
        loss = lambda w: jnp.mean(jnp.square(convolve(op, jax.nn.relu(convolve(op, x, w)), w) - target))
        return jax.jit(lambda w: lax.scan(lambda w, _: (w - 0.1 * jax.grad(loss)(w), loss(w)), w, length=3))(w)

    (got, losses), (want, wanted) = descend(conv_general_dilated), descend(lax.conv_general_dilated)
    assert losses[-1] < losses[0]
    np.testing.assert_allclose(losses, wanted, rtol=1e-6)
    np.testing.assert_allclose(got - w, want - w, rtol=1e-3, atol=1e-8)
