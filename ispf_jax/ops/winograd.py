"""Winograd's convolutions: for 3x3 filters and stride 1, 2x2 output pixels by 16 multiplications instead of 36.

For a tile d [4, 4] of the image, a filter w [3, 3] and outputs y [2, 2], y = A^T [(G w G^T) * (B^T d B)] A, where *
multiplies entry by entry. Over channels that is one matrix product for each of the 16 entries: minimal filtering
F(2x2, 3x3) (Lavin and Gray, "Fast algorithms for convolutional neural networks", CVPR 2016). The filter gradient is the
transpose of this map in w; the input gradient is the same map with flipped filters.

In float32 the errors are 0.2 to 1.4 times those of oneDNN's direct convolutions (128 to 512 channels). Larger tiles
would save up to 15 % of a training step, and round more.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax

from ispf_jax.ops.task import Task

TILE = 2  # output pixels per side
_GEOMETRY = (3, 3), (1, 1), ((1, 1), (1, 1))  # size of filters, strides, padding
_MANY = 256  # tiles from which the products outweigh the transforms of the filters

_A = np.array([[1, 0], [1, 1], [1, -1], [0, -1]])
_B = np.array([[1, 0, 0, 0], [0, 1, -1, 1], [-1, 1, 1, 0], [0, 0, 0, -1]])
_G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])


def pays(task: Task, wide: int) -> bool:
    """Whether these are faster than direct convolutions, which they are from `wide` channels on.

    The transforms read and write about eight numbers per pixel and channel, so products must be of many channels.
    """
    batch, height, width, _ = task.images
    fits = (task.filters[:2], task.strides, task.padding) == _GEOMETRY and height % TILE == width % TILE == 0
    many = min(task.filters[2:]) >= wide and batch * height * width >= _MANY * TILE**2
    return fits and many and task.dtype == "float32"


def forward(x, w, precision=None):
    """Images [N, H, W, I] and filters [3, 3, I, O] to outputs [N, H, W, O], padded by one; H and W are even."""
    return _convolved(x, _of_filters(w), 1, precision)


def input_gradient(g, w, precision=None):
    """Output gradients [N, H, W, O] to the input's [N, H, W, I]: a convolution with the flipped filters."""
    return _convolved(g, _of_filters(w[::-1, ::-1]), 2, precision)


def filter_gradient(x, g, precision=None):
    """Images [N, H, W, I] and output gradients [N, H, W, O] to the filters' gradient [3, 3, I, O]."""
    products = [_products(d, e, 1, 1, precision) for d, e in zip(_of_tiles(x), _of_output_gradients(g))]
    return jnp.stack([jnp.stack(_combined(_G.T, row)) for row in _combined(_G.T, products)])


def _convolved(x, filters, contracted, precision):
    """Images [N, H, W, C] with transformed filters, whose dimension `contracted` is C."""
    grid = len(_B), x.shape[0], x.shape[1] // TILE, x.shape[2] // TILE, -1
    products = [_products(d, u, 2, contracted, precision).reshape(grid) for d, u in zip(_of_tiles(x), filters)]
    rows = [jnp.stack(_combined(_A.T, row), axis=3) for row in products]
    return jnp.stack(_combined(_A.T, rows), axis=2).reshape(*x.shape[:3], -1)


# The 16 transformed entries are four arrays of four, of which XLA makes few and fast kernels. A single array takes up
# to twice as long to compute, and an array for each entry takes several times as long to compile.


def _of_tiles(x):
    """B^T d B of all tiles, which overlap by two pixels: four arrays [4, tiles, C]."""
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = (size - len(_B) + 1 for size in x.shape[1:3])
    rows = _combined(_B.T, [x[:, i : i + height : TILE] for i in range(len(_B))])
    return [_stacked(_B.T, [row[:, :, j : j + width : TILE] for j in range(len(_B))]) for row in rows]


def _of_filters(w):
    """G w G^T: four arrays [4, I, O]."""
    return [jnp.stack(_combined(_G, row)) for row in _combined(_G, w)]


def _of_output_gradients(g):
    """A e A^T of all tiles: four arrays [4, tiles, O]."""
    rows = _combined(_A, [g[:, i::TILE] for i in range(TILE)])
    return [_stacked(_A, [row[:, :, j::TILE] for j in range(TILE)]) for row in rows]


def _stacked(matrix, pixels):
    """matrix @ pixels as one array [4, tiles, C], of pixels [N, H / 2, W / 2, C]."""
    return jnp.stack(_combined(matrix, pixels)).reshape(len(matrix), -1, pixels[0].shape[-1])


def _products(a, b, contracted, of_b, precision):
    """Four matrix products of a [4, ...] and b [4, ...], over the given dimensions."""
    return lax.dot_general(a, b, (((contracted,), (of_b,)), ((0,), (0,))), precision)


def _combined(matrix, arrays):
    """matrix @ arrays: for every row the sum of its coefficients times the arrays."""
    return [sum(float(c) * a for c, a in zip(row, arrays) if c) for row in matrix]
