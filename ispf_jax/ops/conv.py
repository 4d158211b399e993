"""The convolutions that networks call, and the choice of what computes them on a CPU.

Wide float32 layers use Winograd's minimal filtering, others oneDNN where it is installed, else XLA. Each module has
three functions of images x, filters w and outputs y: `forward` (x, w -> y), `input_gradient` (gradient of y, w ->
gradient of x) and `filter_gradient` (x, gradient of y -> gradient of w).
"""

from contextlib import AbstractContextManager
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ispf_jax.errors import ArgumentError
from ispf_jax.ops import onednn, winograd, xla
from ispf_jax.ops.task import LAYOUT, Task

IMPLEMENTATIONS = ("auto", "onednn", "xla")
_implementation = jax.make_user_context("auto")
_WIDE = {"onednn": 128, "xla": 64}  # channels from which Winograd's convolutions are faster than these direct ones
# Each input pixel reaches four by four upsampled outputs. Row m marks which of the three taps lead to the m-th of four.
_TAPS = np.array([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]], np.float32)


def convolutions(implementation: str) -> AbstractContextManager:
    """A context that sets what computes the convolutions of programs traced inside it, in this thread, on a CPU.

    `jax.jit` traces and compiles a function once for each implementation under which it is called.

    Args:
      implementation: "auto", the default, for the fastest; "onednn" or "xla" for direct convolutions everywhere.

    Raises:
      ArgumentError: the name is unknown, or oneDNN is not installed.
    """
    if implementation not in IMPLEMENTATIONS:
        raise ArgumentError("convolutions", f"={implementation!r} must be one of {', '.join(IMPLEMENTATIONS)}.")
    if implementation == "onednn" and (problem := onednn.problem()):
        rest = f"='onednn' needs oneDNN 3 ({problem}); install this package's extra onednn, or use 'auto'."
        raise ArgumentError("convolutions", rest)
    return _implementation(implementation)


def describe() -> str:
    """What computes convolutions here on the default backend, such as "oneDNN 3.2.0 and Winograd" or "XLA"."""
    direct, wide = _choice()
    return (f"oneDNN {onednn.version()}" if direct == "onednn" else "XLA") + (" and Winograd" if wide else "")


def compiler_options() -> dict[str, str]:
    """XLA's options for programs traced here: oneDNN uses all cores, so XLA must run nothing at the same time."""
    return {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"} if _choice()[0] == "onednn" else {}


def conv_general_dilated(lhs, rhs, window_strides, padding, **options):
    """`jax.lax.conv_general_dilated`, called as `flax.linen.Conv` calls it.

    Backends other than the CPU, dilation, groups, mixed types and layouts other than NHWC are left to `jax.lax`.
    """
    if not _plain(lhs, rhs, options):
        return lax.conv_general_dilated(lhs, rhs, window_strides, padding, **options)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], window_strides, padding)
    padding = tuple(map(tuple, padding))
    task = Task(lhs.shape, rhs.shape, tuple(window_strides), padding, lhs.dtype.name, options.get("precision"))
    return _conv(lhs, rhs, task, _choice())


def upsampled_conv(lhs, rhs, window_strides, padding, **options):
    """3x3 convolution, stride 1 and padding 1, of images [N, H, W, I] upsampled by two (nearest): [N, 2H, 2W, O].

    The map from output gradients to input gradients is one convolution with stride two, whose 4x4 filters are sums of
    the taps of `rhs` [3, 3, I, O]; the forward map is its transpose. Both take 16 multiplications per input pixel and
    pair of channels, not 36. XLA's transpose is no faster than upsampling first, so with XLA the forward map does that.
    """
    if not _plain(lhs, rhs, options):
        return conv_general_dilated(_upsampled(lhs), rhs, window_strides, padding, **options)
    (n, height, width, inputs), outputs = lhs.shape, rhs.shape[3]
    images, filters = (n, 2 * height, 2 * width, outputs), (4, 4, outputs, inputs)
    merged = Task(images, filters, (2, 2), ((1, 1), (1, 1)), lhs.dtype.name, options.get("precision"))
    return _upsampled_conv(lhs, rhs, merged, _choice())


def _choice():
    """The direct convolutions, and the number of channels from which Winograd's replace them (0: never)."""
    if jax.default_backend() != "cpu":
        return "xla", 0
    direct = "onednn" if _implementation.value != "xla" and onednn.available() else "xla"
    return direct, _WIDE[direct] if _implementation.value == "auto" else 0


def _plain(lhs, rhs, options):
    """Whether this is a two-dimensional convolution on a CPU in which everything but the precision has its default.

    One with a symbolic size is for `jax.export`, and another machine.
    """
    fixed = all(isinstance(n, int) for n in lhs.shape)
    if jax.default_backend() != "cpu" or lhs.ndim != 4 or lhs.dtype != rhs.dtype or not fixed:
        return False
    numbers = [lax.conv_dimension_numbers(lhs.shape, rhs.shape, n) for n in (options.get("dimension_numbers"), LAYOUT)]
    others = (value for name, value in options.items() if name not in ("dimension_numbers", "precision"))
    return numbers[0] == numbers[1] and all(value is None or set(np.ravel(value)) == {1} for value in others)


def _compute(kind, task, choice, *arrays):
    """One of the three functions of two arrays, by the fastest that has it for this task."""
    direct, wide = choice
    if wide and winograd.pays(task, wide):
        return getattr(winograd, kind)(*arrays, task.precision)
    fast = onednn.convolution(kind, task) if direct == "onednn" else None
    return fast(*arrays) if fast else getattr(xla, kind)(*arrays, task)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(x, w, task, choice):
    return _compute("forward", task, choice, x, w)


def _conv_backward(task, choice, residuals, g):
    x, w = residuals
    return _compute("input_gradient", task, choice, g, w), _compute("filter_gradient", task, choice, x, g)


_conv.defvjp(lambda x, w, *static: (_conv(x, w, *static), (x, w)), _conv_backward)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _upsampled_conv(x, w, merged, choice):
    if choice[0] == "onednn":
        return _compute("input_gradient", merged, choice, x, _merged_filters(w))
    x = _upsampled(x)
    return _compute("forward", merged._replace(images=x.shape, filters=w.shape, strides=(1, 1)), choice, x, w)


def _upsampled_conv_backward(merged, choice, residuals, g):
    x, w = residuals
    by_merged = _compute("filter_gradient", merged, choice, g, x)
    by_w = jnp.einsum("mi,nj,mnoc->ijco", _TAPS, _TAPS, by_merged, precision=lax.Precision.HIGHEST)
    return _compute("forward", merged, choice, g, _merged_filters(w)), by_w.astype(w.dtype)


_upsampled_conv.defvjp(lambda x, w, *static: (_upsampled_conv(x, w, *static), (x, w)), _upsampled_conv_backward)


def _merged_filters(w):
    """Filters [4, 4, O, I] of the convolution from output gradients to input gradients."""
    return jnp.einsum("mi,nj,ijco->mnoc", _TAPS, _TAPS, w, precision=lax.Precision.HIGHEST).astype(w.dtype)


def _upsampled(x):
    return x.repeat(2, axis=1).repeat(2, axis=2)
