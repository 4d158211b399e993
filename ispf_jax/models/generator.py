"""The image generator of DFQ's reproduction by Fang et al. (2021), for any image size and number of channels.

For images above 32 pixels it is deeper in the manner of DCGAN (Radford et al. 2016, arXiv 1511.06434): each further
doubling of the size comes before the others and has twice the filters of the next, up to 512.
"""

import math

import flax.linen as nn
import jax.numpy as jnp

from ispf_jax.models.layers import MaskedBatchNorm, at_least_single, boundary, conv, dense, scaled


class Generator(nn.Module):
    """Noise [N, latent] -> images [N, H, W, channels] in [0, 1] (sigmoid; not yet normalised), float32.

    Linear to 256 feature maps at a quarter of the image size, then twice nearest-neighbour upsampling and convolution;
    above 32 pixels as many times as it takes to begin with at most 8. Sizes that are no multiple of the first are made
    larger and cropped.
    """

    image_size: tuple[int, int]
    channels: int
    width: float = 1.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, z, train: bool = False, mask=None, axis=None):
        doublings = max(2, math.ceil(math.log2(max(self.image_size) / 8)))
        maps = scaled([min(512, 64 << n) for n in range(doublings, -1, -1)], self.width)
        height, width = (-(-size // 2**doublings) for size in self.image_size)
        x = dense(z.astype(self.dtype), height * width * maps[0], dtype=self.dtype, name="project")
        x = x.reshape(-1, height, width, maps[0])
        x = MaskedBatchNorm(dtype=self.dtype, name="bn0")(x, train, mask, axis)
        for i in range(1, doublings + 1):
            x = conv(x, maps[i], use_bias=False, dtype=self.dtype, name=f"conv{i}", stride=0.5)
            x = MaskedBatchNorm(dtype=self.dtype, name=f"bn{i}")(x, train, mask, axis)
            x = boundary(nn.leaky_relu(x, 0.2))
        x = conv(x, self.channels, dtype=self.dtype, name=f"conv{doublings + 1}")
        return nn.sigmoid(at_least_single(x))[:, : self.image_size[0], : self.image_size[1]]
