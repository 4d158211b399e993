"""Layers shared by all networks: convolution, batch norm with a mask, PyTorch's default initialisation."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from ispf_jax.ops import conv_general_dilated, upsampled_conv
from ispf_jax.parallel import psum

MOMENTS = "moments"
"""Variable collection in which batch norms leave the moments of their input, when a caller makes it mutable."""


def torch_uniform(fan_in: int):
    """PyTorch's default initialiser for weights and biases of linear and convolution layers: U(-b, b), b = fan_in^-1/2."""

    def init(key, shape, dtype=jnp.float32):
        bound = fan_in**-0.5
        # Drawn flat: XLA's CPU compiler takes twenty times as long over the same numbers in four dimensions.
        return jax.random.uniform(key, (math.prod(shape),), dtype, -bound, bound).reshape(shape)

    return init


def conv(x, features, kernel=3, stride=1, use_bias=True, dtype=jnp.float32, name=None, upsample=False):
    """Convolution [N, H, W, I] -> [N, H', W', features] with zero padding `kernel // 2` on every side, as PyTorch pads.

    With `upsample` of the image after nearest-neighbour upsampling by two (kernel 3 and stride 1 only): [N, 2H, 2W, features].
    To be called in a module's compact method; the parameters are named `name/kernel` and `name/bias`.
    """
    init = torch_uniform(kernel**2 * x.shape[-1])
    return nn.Conv(
        features, (kernel, kernel), (stride, stride), [(kernel // 2, kernel // 2)] * 2, use_bias=use_bias, dtype=dtype,
        kernel_init=init, bias_init=init, conv_general_dilated=upsampled_conv if upsample else conv_general_dilated, name=name,
    )(x)


def dense(x, features, dtype=jnp.float32, name=None):
    """Linear layer [N, I] -> [N, features]; to be called in a module's compact method."""
    init = torch_uniform(x.shape[-1])
    return nn.Dense(features, dtype=dtype, kernel_init=init, bias_init=init, name=name)(x)


class MaskedBatchNorm(nn.Module):
    """Batch norm over the kept rows of the global batch, with PyTorch's semantics.

    PreFilter and BlockF train the student on a varying number of samples. Here the batch keeps its shape and a mask says
    which rows exist: statistics, and with `axis` the statistics over all devices, are those of a dense batch that holds only
    the kept rows. Rows that are masked out are normalised too, but influence nothing. With no row kept the output is finite
    and the running statistics stay as they are.

    PyTorch's semantics: normalisation by the biased variance, running variance from the unbiased one, running statistics
    `r <- 0.9 r + 0.1 batch`, eps 1e-5. Statistics and the arithmetic are float32 whatever `dtype` is.

    The moments of the input (mean and biased variance, as DeepInversion's batch-norm matching wants them) are left in the
    collection `MOMENTS` when it is mutable.
    """

    momentum: float = 0.9
    eps: float = 1e-5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool, mask=None, axis=None):
        """Normalise x [N, ..., features]; mask [N] of 0/1 or None; axis: device axis name or None."""
        features = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (features,))
        bias = self.param("bias", nn.initializers.zeros, (features,))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (features,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (features,))
        wanted = self.is_mutable_collection(MOMENTS) and not self.is_initializing()

        if (train or wanted) and not self.is_initializing():
            mean, var, count = masked_moments(x, mask, axis)
            if wanted:
                self.sow(MOMENTS, "mean", mean, reduce_fn=lambda _, new: new)
                self.sow(MOMENTS, "var", var, reduce_fn=lambda _, new: new)
        if train and not self.is_initializing():
            rate = jnp.where(count > 0, 1 - self.momentum, 0.0)
            unbiased = var * (count / jnp.maximum(count - 1, 1))
            running_mean.value += rate * (mean - running_mean.value)
            running_var.value += rate * (unbiased - running_var.value)
        else:
            mean, var = running_mean.value, running_var.value

        factor = scale / jnp.sqrt(var + self.eps)
        return ((x - mean) * factor + bias).astype(self.dtype)


def masked_moments(x, mask, axis):
    """Mean and biased variance per feature of x [N, ..., features] over kept rows of the global batch, and their number.

    The variance is computed from centred values, which does not cancel for large means. The number counts values per feature,
    that is rows times positions; without any, the mean is 0 and the variance 1.
    """
    rows, features = x.shape[0], x.shape[-1]
    x = x.astype(jnp.float32).reshape(rows, -1, features)
    weight = jnp.ones(rows) if mask is None else mask.astype(jnp.float32)
    count = psum(jnp.sum(weight), axis) * x.shape[1]
    divisor = jnp.maximum(count, 1.0)

    def mean_over_batch(values):
        # As products with ones: XLA's plain float32 sums are an order of magnitude less exact on a CPU.
        per_row = jnp.einsum("p,npf->nf", jnp.ones(x.shape[1]), values, precision="highest")
        return psum(jnp.matmul(weight, per_row, precision="highest"), axis) / divisor

    mean = mean_over_batch(x)
    var = mean_over_batch(jnp.square(x - mean))
    return mean, jnp.where(count > 0, var, 1.0), count
