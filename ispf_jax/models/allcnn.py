"""AllCNN with batch norm and a linear head, the variant of the unlearning literature (Golatkar 2020, Chundawat
2023)."""

import flax.linen as nn
import jax.numpy as jnp

from ispf_jax.models.layers import MaskedBatchNorm, at_least_single, conv, dense

# (filters at width 1, kernel, stride) of the eight convolutions.
_LAYERS = ((96, 3, 1), (96, 3, 1), (192, 3, 2), (192, 3, 1), (192, 3, 1), (192, 3, 2), (192, 3, 1), (192, 1, 1))


class AllCNN(nn.Module):
    """Eight convolutions with batch norm and ReLU, average pooling over all positions, one linear layer.

    Called with normalised images [N, H, W, C], returns (logits [N, num_classes], features [N, 192 * width]), both
    float32.
    """

    num_classes: int
    width: float = 1.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool = False, mask=None, axis=None):
        x = x.astype(self.dtype)
        for i, (filters, kernel, stride) in enumerate(_LAYERS, start=1):
            x = conv(
                x,
                max(1, round(filters * self.width)),
                kernel,
                stride,
                use_bias=False,
                dtype=self.dtype,
                name=f"conv{i}",
            )
            x = nn.relu(MaskedBatchNorm(dtype=self.dtype, name=f"bn{i}")(x, train, mask, axis))
        features = jnp.mean(at_least_single(x), axis=(1, 2))
        return dense(features, self.num_classes, features.dtype, name="classifier"), features


def _named(features):
    """{PyTorch's module: ours} for names of the eight pairs of convolution and batch norm."""
    pairs = {f"{name}.{i}": f"{kind}{n}" for n, name in enumerate(features, 1) for i, kind in enumerate(("conv", "bn"))}
    return pairs | {"classifier.0": "classifier"}


CONVENTIONS = (
    _named([f"conv{n}" for n in range(1, 9)]),  # the authors' program
    _named([f"features.{n}" for n in (0, 1, 2, 4, 5, 6, 8, 9)]),  # Golatkar 2020 and its heirs: dropout between
)
"""What files call the modules: {name in the file: path of the Flax module}; the first is for networks trained here."""
