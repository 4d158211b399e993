"""Operations that XLA does badly on some backend, and nothing else."""

from ispf_jax.ops.conv import conv_general_dilated
from ispf_jax.ops.upsample import upsampled_conv

__all__ = ["conv_general_dilated", "upsampled_conv"]
