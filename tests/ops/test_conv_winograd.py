"""Winograd's convolutions against direct ones in float64, and which convolutions are Winograd's."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ispf_jax.ops import choose_convolutions, conv, conv_general_dilated, conv_winograd, convolutions

ONE, PADDED = (1, 1), ((1, 1), (1, 1))
DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def problem(batch, size, inputs, outputs, dtype=np.float32):
    """Images as they come out of a ReLU, filters and output gradients."""
    rng = np.random.default_rng(0)
    shapes = (batch, *size, inputs), (3, 3, inputs, outputs), (batch, *size, outputs)
    x, w, g = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    return np.maximum(x, 0), w, g


def three(by, x, w, g):
    """Outputs, input gradient and filter gradient."""
    return by.forward(x, w), by.input_gradient(g, w), by.filter_gradient(x, g)


def by_jax(x, w, g):
    y, pull = jax.vjp(lambda x, w: lax.conv_general_dilated(x, w, ONE, PADDED, dimension_numbers=DIMENSIONS), x, w)
    return y, *pull(g)


def relative_errors(got, want):
    return [float(np.linalg.norm(np.float64(a) - b) / np.linalg.norm(b)) for a, b in zip(got, want)]


def test_minimal_filtering_is_exact():
    """Two outputs of a filter with three taps from four products (Winograd's F(2, 3)); in these numbers nothing rounds."""
    a, b, g = conv_winograd._A, conv_winograd._B, conv_winograd._G
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
        for got, want in zip(jax.jit(partial(three, conv_winograd))(*arrays), by_jax(*arrays)):
            np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


def summed_in_turn(a, b):
    """The products of a [n] and b [n, k] added one after the other in float32."""
    return np.cumsum(a[:, None] * b, axis=0, dtype=np.float32)[-1]


def plain(x, w, g, places):
    """What `three` computes, at some places: pixels of outputs and of the input gradient, input channels of a filter gradient's first tap."""

    def at(images, filters, n, i, j):
        patch = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))[n, i : i + 3, j : j + 3]
        return summed_in_turn(patch.ravel(), filters.reshape(patch.size, -1))

    flipped = w[::-1, ::-1].transpose(0, 1, 3, 2)
    shifted = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))[:, : x.shape[1], : x.shape[2]]
    pixels = [at(x, w, *place) for place in places], [at(g, flipped, *place) for place in places]
    return *pixels, [summed_in_turn(shifted[..., i].ravel(), g.reshape(-1, g.shape[3])) for i, *_ in places]


@pytest.mark.parametrize("batch, size, channels", [(8, 16, 128), (16, 8, 256), (64, 4, 512)])
def test_rounding_is_about_that_of_a_plain_sum(batch, size, channels):
    arrays = problem(batch, (size, size), channels, channels)
    places = [tuple(place) for place in np.random.default_rng(0).integers((batch, size, size), size=(16, 3))]
    n, i, j = np.transpose(places)
    where = (n, i, j), (n, i, j), (0, 0, n)
    with jax.enable_x64(True):
        exact = [np.asarray(v)[at] for v, at in zip(by_jax(*(jnp.asarray(v, jnp.float64) for v in arrays)), where)]
    got = [np.asarray(v)[at] for v, at in zip(jax.jit(partial(three, conv_winograd))(*arrays), where)]
    for error, of_plain, times in zip(
        relative_errors(got, exact), relative_errors(plain(*arrays, places), exact), (1, 1, 2.5)
    ):
        assert 0 < error < times * of_plain


WIDE, FEW = (4, 16, 16), (1, 16, 16)


@pytest.mark.parametrize(
    "shape, filters, strides, padding, dtype, taken",
    [
        (WIDE, (3, 3, 128, 128), ONE, PADDED, "float32", True),
        (WIDE, (3, 3, 128, 512), ONE, PADDED, "float32", True),
        ((4, 16, 18), (3, 3, 128, 128), ONE, PADDED, "float32", True),
        ((4, 17, 16), (3, 3, 128, 128), ONE, PADDED, "float32", False),
        (WIDE, (3, 3, 128, 96), ONE, PADDED, "float32", False),
        (WIDE, (3, 3, 3, 128), ONE, PADDED, "float32", False),
        (WIDE, (1, 1, 128, 128), ONE, ((0, 0), (0, 0)), "float32", False),
        (WIDE, (5, 5, 128, 128), ONE, ((2, 2), (2, 2)), "float32", False),
        (WIDE, (3, 3, 128, 128), (2, 2), PADDED, "float32", False),
        (WIDE, (3, 3, 128, 128), ONE, ((1, 1), (0, 0)), "float32", False),
        (WIDE, (3, 3, 128, 128), ONE, PADDED, "bfloat16", False),
        (FEW, (3, 3, 128, 128), ONE, PADDED, "float32", False),
    ],
)
def test_which_convolutions_are_winograds(monkeypatch, shape, filters, strides, padding, dtype, taken):
    """All three of a layer are, or none is; wide enough for either kind of direct convolution."""
    called = []

    def noting(name, function):
        monkeypatch.setattr(conv_winograd, name, lambda *arrays: called.append(name) or function(*arrays))

    for name in ("forward", "input_gradient", "filter_gradient"):
        noting(name, getattr(conv_winograd, name))
    monkeypatch.setattr(conv, "_WIDE_FOR_XLA", conv._WIDE_FOR_ONEDNN)
    x, w = jnp.ones((*shape, filters[2]), dtype), jnp.ones(filters, dtype)

    def layer(x, w):
        y, pull = jax.vjp(partial(_convolved, strides=strides, padding=padding), x, w)
        return pull(y)

    jax.eval_shape(layer, x, w)
    assert called == (["forward", "input_gradient", "filter_gradient"] if taken else [])


def _convolved(x, w, strides=ONE, padding=PADDED):
    """As flax.linen.Conv calls it."""
    return conv_general_dilated(
        x, w, strides, padding, dimension_numbers=lax.conv_dimension_numbers(x.shape, w.shape, DIMENSIONS)
    )


def test_narrower_layers_are_winograds_where_the_direct_ones_are_xlas(monkeypatch):
    x, w, _ = problem(4, (16, 16), 64, 64)
    without = lambda: "dot_general" not in str(jax.make_jaxpr(lambda x, w: _convolved(x, w))(x, w))
    monkeypatch.setattr(conv, "_with_onednn", lambda: False)
    assert not without()
    monkeypatch.setattr(conv, "_with_onednn", lambda: True)
    monkeypatch.setattr(conv.conv_onednn, "convolution", lambda *a: lambda x, w: jnp.zeros((4, 16, 16, 64)))
    assert without()


def test_only_where_no_direct_ones_were_chosen():
    x, w, _ = problem(4, (16, 16), 128, 128)
    assert convolutions().endswith("and Winograd") and "dot_general" in str(
        jax.make_jaxpr(lambda x, w: _convolved(x, w))(x, w)
    )
    choose_convolutions("xla")
    try:
        assert convolutions() == "XLA" and "dot_general" not in str(jax.make_jaxpr(lambda x, w: _convolved(x, w))(x, w))
    finally:
        choose_convolutions("auto")


def with_gradients(convolve, x, w, g):
    y, pull = jax.vjp(convolve, x, w)
    return y, *pull(g)


@pytest.mark.parametrize("how", ["alone", "vmap", "pmap", "scan"])
def test_through_the_package_and_transformations(how, monkeypatch):
    """Oblong images and unlike numbers of channels, against JAX's convolution."""
    monkeypatch.setattr(conv_winograd, "_MANY", 1)
    monkeypatch.setattr(conv, "_WIDE_FOR_XLA", 4)
    monkeypatch.setattr(conv, "_WIDE_FOR_ONEDNN", 4)
    arrays = problem(4, (6, 10), 5, 7)
    mapped = [np.stack([a, a[::-1], 2 * a]) for a in arrays]
    got, want = partial(with_gradients, _convolved), by_jax
    if how == "alone":
        got, want, mapped = jax.jit(got), want, arrays
    elif how == "scan":
        got, want = (
            (lambda *a, f=f: jax.jit(lambda *a: lax.scan(lambda c, a: (c, f(*a)), 0, a)[1])(*a)) for f in (got, want)
        )
    else:
        got, want = (getattr(jax, how)(f) for f in (got, want))
    assert "conv_general_dilated" not in str(jax.make_jaxpr(got)(*mapped))
    for a, b in zip(got(*mapped), want(*mapped)):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_descent_through_two_wide_layers():
    """Steps of descent in a loop of one program, as training runs them, against XLA's convolutions and JAX's gradients."""
    x, w, target = problem(4, (16, 16), 128, 128)
    w = w / 34

    def descend(convolve):
        def loss(w):
            return jnp.mean(jnp.square(convolve(jax.nn.relu(convolve(x, w)), w) - target))

        return jax.jit(lambda w: lax.scan(lambda w, _: (w - 0.1 * jax.grad(loss)(w), loss(w)), w, length=3))(w)

    got, losses = descend(_convolved)
    want, wanted_losses = descend(
        lambda x, w: lax.conv_general_dilated(x, w, ONE, PADDED, dimension_numbers=DIMENSIONS)
    )
    assert losses[-1] < losses[0]
    np.testing.assert_allclose(losses, wanted_losses, rtol=1e-6)
    np.testing.assert_allclose(got - w, want - w, rtol=1e-3, atol=1e-8)
