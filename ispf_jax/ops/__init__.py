"""Operations that XLA does badly on some backend, and nothing else."""

from ispf_jax.ops.conv import conv_general_dilated

__all__ = ["conv_general_dilated"]
