"""What one convolution computes, without the arrays."""

from typing import NamedTuple

from jax import lax

LAYOUT = ("NHWC", "HWIO", "NHWC")


class Task(NamedTuple):
    """Images x [N, H, W, I] with filters w [h, w, I, O] give outputs y [N, H', W', O].

    Attributes:
      images: shape of x.
      filters: shape of w.
      strides: down and right.
      padding: (top, bottom), (left, right).
      dtype: of all arrays.
      precision: of XLA's matrix products and convolutions.
    """

    images: tuple[int, ...]
    filters: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dtype: str
    precision: lax.PrecisionLike

    @property
    def outputs(self) -> tuple[int, ...]:
        """Shape of y."""
        return tuple(map(int, lax.conv_general_shape_tuple(*self[:4], LAYOUT)))
