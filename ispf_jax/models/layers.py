"""Layers shared by all networks: convolution, batch norm with a mask, PyTorch's default initialisation."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from ispf_jax.collectives import psum
from ispf_jax.ops import conv_general_dilated, upsampled_conv

MOMENTS = "moments"
"""Variable collection in which batch norms leave the moments of their input, when a caller makes it mutable."""

BOUNDARY = "boundary"


def torch_uniform(fan_in: int):
    """PyTorch's default initialiser for weights and biases of linear and convolution layers: U(-b, b), b =
    fan_in^-1/2."""

    def init(key, shape, dtype=jnp.float32):
        bound = fan_in**-0.5
        # Drawn flat: XLA's CPU compiler takes twenty times as long over the same numbers in four dimensions.
        return jax.random.uniform(key, (math.prod(shape),), dtype, -bound, bound).reshape(shape)

    return init


def conv(x, features, kernel=3, stride: float = 1, use_bias=True, dtype=jnp.float32, name=None, padding=None):
    """Convolution [N, H, W, I] -> [N, H', W', features] with zero padding, `kernel // 2` unless given, on every side.

    With a stride of 1/2 of the image after nearest-neighbour upsampling by two (kernel 3 only): [N, 2H, 2W, features].
    To be called in a module's compact method; the parameters are named `name/kernel` and `name/bias`.
    """
    init = torch_uniform(kernel**2 * x.shape[-1])
    return nn.Conv(
        features,
        (kernel, kernel),
        (max(1, int(stride)),) * 2,
        [(kernel // 2 if padding is None else padding,) * 2] * 2,
        use_bias=use_bias,
        dtype=dtype,
        kernel_init=init,
        bias_init=init,
        conv_general_dilated=upsampled_conv if stride < 1 else conv_general_dilated,
        name=name,
    )(x)


def dense(x, features, dtype=jnp.float32, name=None):
    """Linear layer [N, I] -> [N, features]; to be called in a module's compact method."""
    init = torch_uniform(x.shape[-1])
    return nn.Dense(features, dtype=dtype, kernel_init=init, bias_init=init, name=name)(x)


@dataclass(frozen=True)
class Call:
    """How a network is called: type of activations, and what `MaskedBatchNorm` takes."""

    dtype: jnp.dtype
    train: bool
    mask: Any
    axis: Any

    def conv(self, x, filters, kernel, stride=1, name=("conv", "bn"), bias=False, padding=None):
        """Convolution and, where `name` has a second entry, batch norm."""
        x = conv(x, filters, kernel, stride, bias, self.dtype, name[0], padding)
        return self.norm(x, name[1]) if name[1] else x

    def norm(self, x, name):
        return MaskedBatchNorm(dtype=self.dtype, name=name)(x, self.train, self.mask, self.axis)

    def head(self, features, hidden, num_classes, activation=nn.relu):
        """(logits, features before the last layer) behind hidden dense layers, in at least float32."""
        for n, size in enumerate(hidden, start=1):
            features = activation(dense(features, size, features.dtype, name=f"dense{n}"))
        return dense(features, num_classes, features.dtype, name="classifier"), features


def boundary(x):
    """Marks what rematerialisation keeps (`distill.remat`); changes nothing."""
    return checkpoint_name(x, BOUNDARY)


def max_pool(x, window, stride, padding=0):
    return nn.max_pool(x, (window, window), (stride, stride), [(padding, padding)] * 2)


def scaled(filters, width: float):
    """Numbers of filters, however nested, times a width, at least 1."""
    if isinstance(filters, (tuple, list)):
        return tuple(scaled(f, width) for f in filters)
    return max(1, round(filters * width))


def at_least_single(x):
    """x as float32, or as float64 where it is that already."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class MaskedBatchNorm(nn.Module):
    """Batch norm over the kept rows of the global batch, with PyTorch's semantics.

    PreFilter and BlockF train the student on a varying number of samples. Here the batch keeps its shape and a mask
    says which rows exist: statistics, and with `axis` the statistics over all devices, are those of a dense batch that
    holds only the kept rows. Rows that are masked out are normalised too, but influence nothing. With no row kept the
    output is finite and the running statistics stay as they are.

    PyTorch's semantics: normalisation by the biased variance, running variance from the unbiased one, running
    statistics `r <- 0.9 r + 0.1 batch`, eps 1e-5. Statistics and the arithmetic are float32 when `dtype` is a shorter
    type.

    The moments of the input (mean and biased variance, as DeepInversion's batch-norm matching wants them) are left in
    the collection `MOMENTS` when it is mutable.
    """

    momentum: float = 0.9
    eps: float = 1e-5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool, mask=None, axis=None):
        """Normalise x [N, ..., features]; mask [N] of 0/1 or None; axis: device axis name or None."""
        return batch_norm(self, x, train, mask, axis, self.momentum, self.eps).astype(self.dtype)


def batch_norm(module: nn.Module, x, train: bool, mask, axis, momentum: float, eps: float):
    """What `MaskedBatchNorm` computes, in at least float32, with the variables of a module that is being called."""
    features = x.shape[-1]
    scale = module.param("scale", nn.initializers.ones, (features,))
    bias = module.param("bias", nn.initializers.zeros, (features,))
    running_mean = module.variable("batch_stats", "mean", jnp.zeros, (features,))
    running_var = module.variable("batch_stats", "var", jnp.ones, (features,))
    wanted = module.is_mutable_collection(MOMENTS) and not module.is_initializing()

    train = train and not module.is_initializing()
    if train:
        y, (mean, var, count) = batch_normalised(x, scale, bias, mask, eps, axis)  # pyright: ignore
        rate = jnp.where(count > 0, 1 - momentum, 0.0)
        unbiased = var * (count / jnp.maximum(count - 1, 1))
        running_mean.value += rate * (mean - running_mean.value)
        running_var.value += rate * (unbiased - running_var.value)
    else:
        y = _normalised(x, scale, bias, running_mean.value, running_var.value, eps)
    if wanted:
        mean, var, _ = (mean, var, count) if train else masked_moments(x, mask, axis)
        module.sow(MOMENTS, "mean", mean, reduce_fn=lambda _, new: new)
        module.sow(MOMENTS, "var", var, reduce_fn=lambda _, new: new)
    return y


def _normalised(x, scale, bias, mean, var, eps):
    return (x - mean) * (scale * lax.rsqrt(var + eps)) + bias


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def batch_normalised(x, scale, bias, mask, eps, axis):
    """x [N, ..., features] normalised by the moments of its kept rows, float32, and (mean, biased variance, count) of
    them.

    The gradient is written by hand and reads x and the gradient twice; with the one that JAX writes, forward and
    backward pass take 1.3 to 1.5 times as long on a CPU.
    """
    moments = masked_moments(x, mask, axis)
    return _normalised(x, scale, bias, *moments[:2], eps), moments


def _batch_normalised_forward(x, scale, bias, mask, eps, axis):
    y, moments = batch_normalised(x, scale, bias, mask, eps, axis)  # pyright: ignore
    return (y, moments), (x, scale, mask, *moments)


def _batch_normalised_backward(eps, axis, residuals, gradients):
    x, scale, mask, mean, var, count = residuals
    g, (by_mean, by_var, _) = gradients
    centred, inverse = x - mean, lax.rsqrt(var + eps)
    rows = tuple(range(x.ndim - 1))
    by_bias, by_factor = jnp.sum(g, rows), jnp.sum(g * centred, rows)
    # The moments are sums over all devices, so what all devices lose by them comes back to each kept row.
    by_mean = psum(by_mean - scale * inverse * by_bias, axis)
    by_var = psum(by_var - scale * inverse**3 * by_factor / 2, axis)
    share = 1 / jnp.maximum(count, 1.0)
    if mask is not None:
        share = share * mask.reshape(-1, *[1] * (x.ndim - 1))
    by_x = g * (scale * inverse) + share * (by_mean + 2 * centred * by_var)
    return by_x.astype(x.dtype), by_factor * inverse, by_bias, None if mask is None else jnp.zeros_like(mask)


batch_normalised.defvjp(_batch_normalised_forward, _batch_normalised_backward)


def masked_moments(x, mask, axis):
    """Mean and biased variance per feature of x [N, ..., features] over kept rows of the global batch, and their
    number.

    The variance is computed from centred values, which does not cancel for large means. The number counts values per
    feature, that is rows times positions; without any, the mean is 0 and the variance 1.
    """
    x = at_least_single(x)
    weight = jnp.ones(x.shape[0], x.dtype) if mask is None else mask.astype(x.dtype)
    count = psum(jnp.sum(weight), axis) * (x.size // (x.shape[0] * x.shape[-1]))
    divisor = jnp.maximum(count, 1.0)

    def mean_over_batch(values):
        per_row = jnp.sum(values, axis=tuple(range(1, values.ndim - 1)))
        return psum(jnp.sum(per_row if mask is None else weight[:, None] * per_row, axis=0), axis) / divisor

    mean = mean_over_batch(x)
    var = mean_over_batch(jnp.square(x - mean))
    return mean, jnp.where(count > 0, var, 1.0), count
