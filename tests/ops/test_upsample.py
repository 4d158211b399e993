"""The convolution of an upsampled image against upsampling first."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ispf_jax.ops import conv_general_dilated, upsampled_conv
from tests.ops.test_conv import CLOSE, convolve, implementation, problem  # noqa: F401 - a fixture


def upsampled_first(lhs, rhs, *args, dimension_numbers):
    return convolve(conv_general_dilated, lhs.repeat(2, axis=1).repeat(2, axis=2), rhs)


def with_gradients(op, x, w):
    y, pull = jax.vjp(partial(convolve, op), x, w)
    return y, *pull(jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape).astype(y.dtype))


@pytest.mark.parametrize("size", [(4, 4), (3, 5), (1, 2)])
@pytest.mark.parametrize("channels, filters", [(8, 4), (8, 6), (3, 5), (1, 1)])
def test_value_and_gradients(size, channels, filters):
    x, w = problem(size=size, channels=channels, filters=filters)
    got, want = (jax.jit(partial(with_gradients, op))(x, w) for op in (upsampled_conv, upsampled_first))
    for name, a, b in zip(("output", "input gradient", "filter gradient"), got, want):
        np.testing.assert_allclose(a, b, err_msg=name, **CLOSE)


def test_an_output_pixel_by_hand():
    """Output (3, 2) of one channel: rows 2, 3, 4 and columns 1, 2, 3 of the upsampled image are pixels 1, 1, 2 and 0, 1, 1."""
    x, w = problem(batch=1, size=(4, 4), channels=1, filters=1)
    y = convolve(upsampled_conv, x, w)
    image, filters = x[0, :, :, 0].astype(np.float64), w[:, :, 0, 0].astype(np.float64)
    np.testing.assert_allclose(y[0, 3, 2, 0], np.sum(image[np.ix_([1, 1, 2], [0, 1, 1])] * filters), rtol=1e-5)


def test_half_precision_keeps_its_type():
    x, w = (jnp.bfloat16(a) for a in problem(channels=8))
    for got, want in zip(with_gradients(upsampled_conv, x, w), with_gradients(upsampled_first, x, w)):
        assert got.dtype == want.dtype == jnp.bfloat16
        np.testing.assert_allclose(got.astype(np.float32), want.astype(np.float32), rtol=0.05, atol=0.5)


def test_other_backends_upsample_first(monkeypatch):
    x, w = problem(channels=8)
    program = lambda: str(jax.make_jaxpr(partial(convolve, upsampled_conv))(x, w))
    assert "custom_vjp" in program()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert "custom_vjp" not in program()
    np.testing.assert_allclose(convolve(upsampled_conv, x, w), upsampled_first(x, w, dimension_numbers=None), **CLOSE)
