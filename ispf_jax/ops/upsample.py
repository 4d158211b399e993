"""A convolution of an upsampled image without the upsampled image: under half of the multiplications."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ispf_jax.ops.conv import _conv, _filter_gradient, conv_general_dilated

# An input pixel reaches four by four output pixels; row m holds which of the three taps it passes on its way to the m-th of them.
_TAPS = np.array([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]], np.float32)
_ONE = ((1, 1), (1, 1))


def upsampled_conv(lhs, rhs, window_strides, padding, dimension_numbers=None, precision=None, **_):
    """3x3 convolution with padding 1 of images [N, H, W, I] after nearest-neighbour upsampling by two: [N, 2H, 2W, O].

    The nine taps of an output pixel fall on two by two input pixels, in one of four patterns by the parity of its position. So one
    convolution with 2x2 filters and 4 O outputs, whose taps are sums of the given ones, holds all output pixels, and they are
    interleaved. Its transpose is a convolution with 4x4 filters and stride two. Equal to rounding to upsampling first, which is
    what backends other than the CPU do.

    The signature is that of `conv_general_dilated`; the filters [3, 3, I, O] are the parameters of the plain convolution.
    """
    if jax.default_backend() == "cpu":
        return _upsampled(lhs, rhs, precision)
    upsampled = lhs.repeat(2, axis=1).repeat(2, axis=2)
    return conv_general_dilated(
        upsampled, rhs, window_strides, padding, dimension_numbers=dimension_numbers, precision=precision
    )


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _upsampled(x, w, precision):
    n, height, width, inputs = x.shape
    # Output 2 i + a takes input i + a - 1 + k, for k = 0, 1, through the merged tap 3 - a - 2 k.
    by_tap_and_phase = _merged(w)[::-1, ::-1].reshape(2, 2, 2, 2, -1, inputs)
    filters = jnp.einsum("kalboi->kliabo", by_tap_and_phase).reshape(2, 2, inputs, -1)
    windows = _conv(x, filters, (1, 1), _ONE, precision).reshape(n, height + 1, width + 1, 2, 2, -1)
    rows = [jnp.stack([windows[:, a : a + height, b : b + width, a, b] for b in (0, 1)], axis=3) for a in (0, 1)]
    return jnp.stack(rows, axis=2).reshape(n, 2 * height, 2 * width, -1)


def _merged(w):
    """Filters [4, 4, O, I] of the transposed map, output gradient to input gradient with stride two."""
    return jnp.einsum("mi,nj,ijco->mnoc", _TAPS, _TAPS, w, precision=lax.Precision.HIGHEST).astype(w.dtype)


def _forward(x, w, precision):
    return _upsampled(x, w, precision), (x, w)


def _backward(precision, residuals, g):
    x, w = residuals
    by_x = lax.conv_general_dilated(g, _merged(w), (2, 2), _ONE, dimension_numbers=("NHWC", "HWIO", "NHWC"), precision=precision)
    by_merged = _filter_gradient(g, x, (4, 4, g.shape[3], x.shape[3]), (2, 2), _ONE, precision)
    by_w = jnp.einsum("mi,nj,mnoc->ijco", _TAPS, _TAPS, by_merged, precision=lax.Precision.HIGHEST)
    return by_x, by_w.astype(w.dtype)


_upsampled.defvjp(_forward, _backward)
