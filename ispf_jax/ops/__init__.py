"""Convolutions for `flax.linen.Conv` that are fast on a CPU, where XLA's own are slow."""

from ispf_jax.ops.conv import (
    IMPLEMENTATIONS,
    compiler_options,
    conv_general_dilated,
    convolutions,
    describe,
    upsampled_conv,
)

__all__ = ["IMPLEMENTATIONS", "compiler_options", "conv_general_dilated", "convolutions", "describe", "upsampled_conv"]
