"""The image generator of DFQ's reproduction by Fang et al. (2021), for any image size and number of channels."""

import flax.linen as nn
import jax.numpy as jnp

from ispf_jax.models.layers import MaskedBatchNorm, at_least_single, conv, dense


class Generator(nn.Module):
    """Noise [N, latent] -> images [N, H, W, channels] in [0, 1] (sigmoid; not yet normalised), float32.

    Linear to 256 feature maps at a quarter of the image size, then twice nearest-neighbour upsampling and convolution.
    Sizes that are no multiple of four are made one size larger and cropped.
    """

    image_size: tuple[int, int]
    channels: int
    width: float = 1.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, z, train: bool = False, mask=None, axis=None):
        maps = [max(1, round(n * self.width)) for n in (256, 128, 64)]
        height, width = (-(-size // 4) for size in self.image_size)
        x = dense(z.astype(self.dtype), height * width * maps[0], dtype=self.dtype, name="project")
        x = x.reshape(-1, height, width, maps[0])
        x = MaskedBatchNorm(dtype=self.dtype, name="bn0")(x, train, mask, axis)
        for i in (1, 2):
            x = conv(x, maps[i], use_bias=False, dtype=self.dtype, name=f"conv{i}", stride=0.5)
            x = MaskedBatchNorm(dtype=self.dtype, name=f"bn{i}")(x, train, mask, axis)
            x = nn.leaky_relu(x, 0.2)
        x = conv(x, self.channels, dtype=self.dtype, name="conv3")
        return nn.sigmoid(at_least_single(x))[:, : self.image_size[0], : self.image_size[1]]
