"""Operations that XLA does badly on some backend, and nothing else."""

from ispf_jax.ops.conv import (
    IMPLEMENTATIONS,
    choose_convolutions,
    compiler_options,
    conv_general_dilated,
    convolutions,
    only_xla,
)
from ispf_jax.ops.upsample import upsampled_conv

__all__ = [
    "IMPLEMENTATIONS",
    "choose_convolutions",
    "compiler_options",
    "conv_general_dilated",
    "convolutions",
    "only_xla",
    "upsampled_conv",
]

from contextlib import contextmanager

from ispf_jax.ops import conv as _conv


@contextmanager
def using(name):
    old = _conv._chosen
    choose_convolutions(name)
    try:
        yield
    finally:
        _conv._chosen = old


def describe():
    return convolutions()
