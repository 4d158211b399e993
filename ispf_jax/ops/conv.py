"""2-d convolution that is fast on a CPU: wide layers by Winograd's minimal filtering, others by oneDNN where it is installed, else by XLA.

`conv_general_dilated` is a drop-in for `jax.lax.conv_general_dilated` and is handed to `flax.linen.Conv` in its field of that
name. Everything outside the plain case (2-d NHWC/HWIO, no dilation, one group, one type), and every backend but the CPU, goes to XLA
as JAX writes it.
"""

from contextlib import contextmanager
from functools import partial

import jax
from jax import lax

from ispf_jax.errors import UserError
from ispf_jax.ops import conv_onednn, conv_winograd, conv_xla

IMPLEMENTATIONS = ("auto", "onednn", "xla")
_WIDE_FOR_ONEDNN, _WIDE_FOR_XLA = 128, 64  # channels from which on Winograd's are faster than the direct ones
_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
_chosen = "auto"


def choose_convolutions(implementation: str):
    """Which convolutions programs traced from now on in this process use on a CPU, one of `IMPLEMENTATIONS`.

    "auto" takes the fastest there is; "onednn" and "xla" are direct convolutions for all layers.

    Raises:
      UserError: "onednn", and its library is not installed.
    """
    global _chosen
    if implementation == "onednn" and conv_onednn.library() is None:
        raise UserError(
            f"config.convolutions='onednn', but oneDNN 3 for CPUs cannot be loaded ({'; '.join(conv_onednn.problems)}); "
            "install this package's extra onednn (pip install '.[onednn]'), or set --config.convolutions=auto."
        )
    _chosen = implementation


@contextmanager
def only_xla():
    """XLA's convolutions, whatever was chosen, in what is traced inside: XLA knows nothing of the operations of others."""
    global _chosen
    chosen, _chosen = _chosen, "xla"
    try:
        yield
    finally:
        _chosen = chosen


def convolutions() -> str:
    """What computes convolutions on this machine's default device: "oneDNN 3.2.0" or "XLA", with "auto" "... and Winograd"."""
    direct = f"oneDNN {conv_onednn.version()}" if _with_onednn() else "XLA"
    return f"{direct} and Winograd" if _with_winograd() else direct


def _with_onednn():
    return jax.default_backend() == "cpu" and _chosen != "xla" and conv_onednn.library() is not None


def _with_winograd():
    return jax.default_backend() == "cpu" and _chosen == "auto"


def compiler_options() -> dict:
    """Options of XLA for programs with these convolutions.

    oneDNN's use all cores, so XLA must not run other operations beside them.
    """
    return {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"} if _with_onednn() else {}


def conv_general_dilated(
    lhs,
    rhs,
    window_strides,
    padding,
    lhs_dilation=None,
    rhs_dilation=None,
    dimension_numbers=None,
    feature_group_count=1,
    batch_group_count=1,
    precision=None,
    preferred_element_type=None,
):
    """`jax.lax.conv_general_dilated` with own gradients where that pays: images [N, H, W, I], filters [h, w, I, O]."""
    plain = (
        jax.default_backend() == "cpu"
        and lhs.ndim == 4
        and lhs.dtype == rhs.dtype
        and set(lhs_dilation or (1,)) == {1}
        and set(rhs_dilation or (1,)) == {1}
        and feature_group_count == batch_group_count == 1
        and preferred_element_type is None
        and dimension_numbers == lax.conv_dimension_numbers(lhs.shape, rhs.shape, _DIMENSIONS)
    )
    if not plain:
        return lax.conv_general_dilated(
            lhs,
            rhs,
            window_strides,
            padding,
            lhs_dilation,
            rhs_dilation,
            dimension_numbers,
            feature_group_count,
            batch_group_count,
            precision,
            preferred_element_type,
        )
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], window_strides, padding)
    return _conv(lhs, rhs, tuple(window_strides), tuple(tuple(p) for p in padding), precision)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _conv(x, w, strides, padding, precision):
    return forward(x, w, strides, padding, precision)


def _conv_forward(x, w, strides, padding, precision):
    return forward(x, w, strides, padding, precision), (x, w)


def _conv_backward(strides, padding, precision, residuals, g):
    x, w = residuals
    return input_gradient(g, w, x.shape, strides, padding, precision), filter_gradient(
        x, g, w.shape, strides, padding, precision
    )


_conv.defvjp(_conv_forward, _conv_backward)


def forward(x, w, strides, padding, precision):
    """Images [N, H, W, I] and filters [h, w, I, O] to outputs [N, H', W', O]; padding ((low, high), (low, high))."""
    if _by_winograd(x, w.shape, strides, padding):
        return conv_winograd.forward(x, w, precision)
    windows = zip(x.shape[1:3], padding, w.shape[:2], strides)
    size = [(pixels + low + high - kernel) // stride + 1 for pixels, (low, high), kernel, stride in windows]
    y = jax.ShapeDtypeStruct((x.shape[0], *size, w.shape[3]), x.dtype)
    fast = _by_onednn(conv_onednn.FORWARD, x, w, y, strides, padding)
    return fast(x, w) if fast else conv_xla.forward(x, w, strides, padding, precision)


def input_gradient(g, w, x_shape, strides, padding, precision):
    """Output gradients [N, H', W', O] to the input's, of `x_shape`."""
    if _by_winograd(g, w.shape, strides, padding):
        return conv_winograd.input_gradient(g, w, precision)
    fast = _by_onednn(conv_onednn.BY_INPUT, jax.ShapeDtypeStruct(x_shape, g.dtype), w, g, strides, padding)
    return fast(w, g) if fast else conv_xla.input_gradient(g, w, x_shape, strides, padding, precision)


def filter_gradient(x, g, w_shape, strides, padding, precision):
    """Images [N, H, W, I] and output gradients [N, H', W', O] to the filters' gradient, of `w_shape`."""
    if _by_winograd(x, w_shape, strides, padding):
        return conv_winograd.filter_gradient(x, g, precision)
    fast = _by_onednn(conv_onednn.BY_FILTERS, x, jax.ShapeDtypeStruct(w_shape, g.dtype), g, strides, padding)
    return fast(x, g) if fast else conv_xla.filter_gradient(x, g, w_shape, strides, padding, precision)


def merges_upsampling() -> bool:
    """Whether a convolution of strided gradients is fast, so that merging upsampling into a forward convolution pays."""
    return _with_onednn()


def _by_winograd(images, w_shape, strides, padding):
    wide = _WIDE_FOR_ONEDNN if _with_onednn() else _WIDE_FOR_XLA
    return _with_winograd() and conv_winograd.pays(images, w_shape, strides, padding, wide)


def _by_onednn(kind, x, w, y, strides, padding):
    return conv_onednn.convolution(kind, x, w, y, strides, padding) if _with_onednn() else None
