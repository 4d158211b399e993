"""The three convolutions on the CPU in forms that XLA compiles well, inside `lax.scan` as well as outside.

XLA's CPU compiler brings convolutions into the layout its fast kernel needs only in the entry computation of a program.
Inside a loop body the filter gradient that JAX writes falls to a naive kernel, 20 to 60 times slower (JAX issue 12868).
Here the input gradient is a forward convolution in the fast layout and the filter gradient a matrix product of image patches,
over chunks of the batch small enough for the cache.
"""

import jax.numpy as jnp
from jax import lax

_CHUNK_PIXELS = 512  # output pixels per patch matrix, at least one image: measured best of 256 to 4,096 on AVX-512
_FEW_CHANNELS = 4  # up to here a forward convolution is faster as a matrix product of patches
_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def forward(x, w, strides, padding, precision):
    """Images [N, H, W, I] and filters [h, w, I, O] to outputs [N, H', W', O]."""
    if w.shape[2] <= _FEW_CHANNELS:
        patches = _patches(_pad(x, padding), w.shape[:2], strides)
        return jnp.matmul(patches, w.reshape(-1, w.shape[3]), precision=precision)
    return lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=_DIMENSIONS, precision=precision)


def input_gradient(g, w, x_shape, strides, padding, precision):
    """The transposed convolution, as a forward convolution of the dilated output gradient with the flipped filters."""
    back_padding = []
    for size, out, kernel, stride, (low, _) in zip(x_shape[1:3], g.shape[1:3], w.shape[:2], strides, padding):
        before = kernel - 1 - low
        back_padding.append((before, size + kernel - 2 - (out - 1) * stride - before))
    flipped = jnp.flip(w, (0, 1)).swapaxes(2, 3)
    return lax.conv_general_dilated(
        g, flipped, (1, 1), back_padding, lhs_dilation=strides, dimension_numbers=_DIMENSIONS, precision=precision
    )


def filter_gradient(x, g, w_shape, strides, padding, precision):
    """Sum over images and output pixels of output gradient (outer product) patch, chunk by chunk of the batch."""
    if w_shape[3] <= _FEW_CHANNELS < w_shape[2] and set(strides) == {1}:
        return _filter_gradient_of_few(x, g, w_shape, padding, precision)
    batch, pixels = g.shape[0], g.shape[1] * g.shape[2]
    chunk = _largest_divisor(batch, max(1, _CHUNK_PIXELS // pixels))

    def product(x_chunk, g_chunk):
        patches = _patches(x_chunk, w_shape[:2], strides).reshape(chunk * pixels, -1)
        # The long patches as columns: 1.2 to 2.5 times as fast as the transposed product.
        return jnp.matmul(g_chunk.reshape(chunk * pixels, -1).T, patches, precision=precision)

    total = _sum_over_chunks(product, chunk, _pad(x, padding), g)
    return total.T.reshape(w_shape).astype(g.dtype)


def _filter_gradient_of_few(x, g, w_shape, padding, precision):
    """The same for few output channels, where patches of the output gradient are the smaller matrix: a full correlation."""
    height, width = x.shape[1:3]
    chunk = _largest_divisor(x.shape[0], max(1, _CHUNK_PIXELS // (height * width)))
    shifted = [
        (k - 1 - low, size - out + low) for k, (low, _), size, out in zip(w_shape, padding, x.shape[1:3], g.shape[1:3])
    ]

    def product(x_chunk, g_chunk):
        patches = _patches(g_chunk, w_shape[:2], (1, 1)).reshape(chunk * height * width, -1)
        return jnp.matmul(x_chunk.reshape(chunk * height * width, -1).T, patches, precision=precision)

    total = _sum_over_chunks(product, chunk, x, _pad(g, shifted))
    flipped = total.reshape(w_shape[2], *w_shape[:2], w_shape[3])[:, ::-1, ::-1]
    return jnp.moveaxis(flipped, 0, 2).astype(g.dtype)


def _sum_over_chunks(product, chunk, *arrays):
    """Sum of product(*chunks) over chunks of `chunk` images."""
    if arrays[0].shape[0] == chunk:
        return product(*arrays)
    chunked = [a.reshape(-1, chunk, *a.shape[1:]) for a in arrays]
    # Starting from the first chunk keeps the carry's type right under every kind of device axis.
    start = product(*(a[0] for a in chunked))
    return lax.scan(lambda acc, chunks: (acc + product(*chunks), None), start, tuple(a[1:] for a in chunked))[0]


def _patches(x, kernel, strides):
    """Windows of padded images [N, H, W, I] as vectors, [N, out_h, out_w, h*w*I], in the order of HWIO filters."""
    out = [(size - k) // s + 1 for size, k, s in zip(x.shape[1:3], kernel, strides)]
    windows = [
        x[:, i : i + (out[0] - 1) * strides[0] + 1 : strides[0], j : j + (out[1] - 1) * strides[1] + 1 : strides[1]]
        for i in range(kernel[0])
        for j in range(kernel[1])
    ]
    return windows[0] if len(windows) == 1 else jnp.concatenate(windows, axis=-1)


def _pad(x, padding):
    return lax.pad(x, jnp.zeros((), x.dtype), [(low, high, 0) for low, high in ((0, 0), *padding, (0, 0))])


def _largest_divisor(number, limit):
    return next(d for d in range(min(number, limit), 0, -1) if number % d == 0)
