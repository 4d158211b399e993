"""The three convolutions on the CPU in forms that XLA compiles well, inside `lax.scan` as well as outside.

XLA's CPU compiler brings convolutions into the layout its fast kernel needs only in the entry computation of a program.
Inside a loop body JAX's filter gradient falls back to a naive kernel, 20 to 60 times slower (JAX issue 12868). Here the
input gradient is a forward convolution in the fast layout, and the filter gradient is a matrix product of patches, over
chunks of the batch small enough for the cache.
"""

import jax.numpy as jnp
from jax import lax

from ispf_jax.ops.task import LAYOUT

_CHUNK_PIXELS = 512  # output pixels per patch matrix, at least one image: measured best of 256 to 4,096 on AVX-512
_FEW_CHANNELS = 4  # up to here a forward convolution is faster as a matrix product of patches


def forward(x, w, task):
    """Images [N, H, W, I] and filters [h, w, I, O] to outputs [N, H', W', O]."""
    if w.shape[2] <= _FEW_CHANNELS:
        patches = _patches(_pad(x, task.padding), w.shape[:2], task.strides)
        return jnp.matmul(patches, w.reshape(-1, w.shape[3]), precision=task.precision)
    return _convolved(x, w, task.strides, task.padding, precision=task.precision)


def input_gradient(g, w, task):
    """The transposed convolution, as a forward convolution of the dilated output gradient with the flipped filters."""
    geometry = zip(task.images[1:3], g.shape[1:3], w.shape[:2], task.strides, task.padding)
    padding = [(k - 1 - low, size - 1 - (out - 1) * stride + low) for size, out, k, stride, (low, _) in geometry]
    flipped = jnp.flip(w, (0, 1)).swapaxes(2, 3)
    return _convolved(g, flipped, (1, 1), padding, lhs_dilation=task.strides, precision=task.precision)


def filter_gradient(x, g, task):
    """The sum over images and output pixels of the output gradient (outer product) the patch of the image."""
    *kernel, inputs, outputs = task.filters
    if outputs <= _FEW_CHANNELS < inputs and set(task.strides) == {1}:  # patches of the output gradient are smaller
        geometry = zip(kernel, task.padding, x.shape[1:3], g.shape[1:3])
        padding = [(k - 1 - low, size - out + low) for k, (low, _), size, out in geometry]
        total = _correlation(x, _pad(g, padding), kernel, (1, 1), task.precision)
        return jnp.moveaxis(total.reshape(inputs, *kernel, outputs)[:, ::-1, ::-1], 0, 2).astype(g.dtype)
    total = _correlation(g, _pad(x, task.padding), kernel, task.strides, task.precision)
    return total.T.reshape(task.filters).astype(g.dtype)


def _correlation(a, b, kernel, strides, precision):
    """The sum over pixels of a [N, H, W, A] (outer product) patches of b [N, H', W', B]: [A, h * w * B]."""
    batch, pixels = a.shape[0], a.shape[1] * a.shape[2]
    most = min(batch, max(1, _CHUNK_PIXELS // pixels))
    chunk = next(images for images in range(most, 0, -1) if batch % images == 0)

    def product(a, b):
        a, patches = (v.reshape(chunk * pixels, -1) for v in (a, _patches(b, kernel, strides)))
        # The long patches as columns: 1.2 to 2.5 times as fast as the transposed product.
        return jnp.matmul(a.T, patches, precision=precision)

    if chunk == batch:
        return product(a, b)
    a, b = (v.reshape(-1, chunk, *v.shape[1:]) for v in (a, b))
    # Starting from the first chunk keeps the carry's type right under every kind of device axis.
    return lax.scan(lambda total, ab: (total + product(*ab), None), product(a[0], b[0]), (a[1:], b[1:]))[0]


def _patches(x, kernel, strides):
    """Windows of padded images [N, H, W, I] as vectors, [N, out_h, out_w, h*w*I], in the order of HWIO filters."""
    (height, width), (down, right) = (size - k + 1 for size, k in zip(x.shape[1:3], kernel)), strides
    places = [(i, j) for i in range(kernel[0]) for j in range(kernel[1])]
    return jnp.concatenate([x[:, i : i + height : down, j : j + width : right] for i, j in places], axis=-1)


def _convolved(x, w, strides, padding, **options):
    return lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=LAYOUT, **options)


def _pad(x, padding):
    return lax.pad(x, jnp.zeros((), x.dtype), [(low, high, 0) for low, high in ((0, 0), *padding, (0, 0))])
