"""A convolution after nearest-neighbour upsampling with under half of the multiplications."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ispf_jax.ops.conv import conv_general_dilated, filter_gradient, forward, input_gradient, merges_upsampling

# An input pixel reaches four by four output pixels; row m holds which of the three taps it passes on its way to the m-th of them.
_TAPS = np.array([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]], np.float32)
_ONE = ((1, 1), (1, 1))


def upsampled_conv(lhs, rhs, window_strides, padding, dimension_numbers=None, precision=None, **_):
    """3x3 convolution with padding 1 of images [N, H, W, I] after nearest-neighbour upsampling by two: [N, 2H, 2W, O].

    From output gradient to input gradient the two maps together are one convolution with 4x4 filters, sums of the given taps,
    and stride two, and forward its transpose: 16 multiplications per input pixel and pair of channels where 36 are written. XLA computes
    such a transpose no faster than the plain form, which therefore stays there. The signature is that of
    `conv_general_dilated`; the filters [3, 3, I, O] are the parameters of the plain convolution. Backends other than the CPU
    differentiate the plain form.
    """
    if jax.default_backend() == "cpu":
        return _upsampled(lhs, rhs, precision)
    upsampled = _upsample(lhs)
    return conv_general_dilated(
        upsampled, rhs, window_strides, padding, dimension_numbers=dimension_numbers, precision=precision
    )


def _upsample(x):
    return x.repeat(2, axis=1).repeat(2, axis=2)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _upsampled(x, w, precision):
    if not merges_upsampling():
        return forward(_upsample(x), w, (1, 1), _ONE, precision)
    n, height, width, _ = x.shape
    return input_gradient(x, _merged(w), (n, 2 * height, 2 * width, w.shape[3]), (2, 2), _ONE, precision)


def _upsampled_forward(x, w, precision):
    return _upsampled(x, w, precision), (x, w)


def _upsampled_backward(precision, residuals, g):
    x, w = residuals
    merged = _merged(w)
    by_merged = filter_gradient(g, x, merged.shape, (2, 2), _ONE, precision)
    by_w = jnp.einsum("mi,nj,mnoc->ijco", _TAPS, _TAPS, by_merged, precision=lax.Precision.HIGHEST)
    return forward(g, merged, (2, 2), _ONE, precision), by_w.astype(w.dtype)


_upsampled.defvjp(_upsampled_forward, _upsampled_backward)


def _merged(w):
    """Filters [4, 4, O, I] of the convolution with stride two from output gradient to input gradient."""
    return jnp.einsum("mi,nj,ijco->mnoc", _TAPS, _TAPS, w, precision=lax.Precision.HIGHEST).astype(w.dtype)
