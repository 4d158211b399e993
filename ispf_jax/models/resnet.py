"""ResNet18 in the CIFAR variant (He et al. 2016): 3x3 stem without pooling, four stages of two basic blocks."""

from itertools import product

import flax.linen as nn
import jax.numpy as jnp

from ispf_jax.models.layers import MaskedBatchNorm, at_least_single, conv, dense

_STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))  # filters at width 1, stride of the first block
_BLOCKS = 2


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution with batch norm where the shape changes."""

    filters: int
    stride: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train, mask, axis):
        def conv_bn(h, kernel, stride, name):
            h = conv(h, self.filters, kernel, stride, use_bias=False, dtype=self.dtype, name=f"conv{name}")
            return MaskedBatchNorm(dtype=self.dtype, name=f"bn{name}")(h, train, mask, axis)

        h = nn.relu(conv_bn(x, 3, self.stride, "1"))
        h = conv_bn(h, 3, 1, "2")
        if self.stride != 1 or x.shape[-1] != self.filters:
            x = conv_bn(x, 1, self.stride, "_shortcut")
        return nn.relu(h + x)


class ResNet18(nn.Module):
    """Called with normalised images [N, H, W, C], returns (logits [N, num_classes], features [N, 512 * width]), both
    float32."""

    num_classes: int
    width: float = 1.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool = False, mask=None, axis=None):
        x = x.astype(self.dtype)
        x = conv(x, self._filters(64), use_bias=False, dtype=self.dtype, name="conv_stem")
        x = nn.relu(MaskedBatchNorm(dtype=self.dtype, name="bn_stem")(x, train, mask, axis))
        for stage, (filters, stride) in enumerate(_STAGES, start=1):
            for block in range(_BLOCKS):
                block_stride = stride if block == 0 else 1
                name = f"stage{stage}_block{block + 1}"
                x = BasicBlock(self._filters(filters), block_stride, self.dtype, name=name)(x, train, mask, axis)
        features = jnp.mean(at_least_single(x), axis=(1, 2))
        return dense(features, self.num_classes, features.dtype, name="classifier"), features

    def _filters(self, filters):
        return max(1, round(filters * self.width))


def _named(stem, stages, layers, shortcut, head):
    """{PyTorch's module: ours}; `layers`: names of a block's first convolution, its batch norm, and the second ones."""
    names = dict(zip(stem, ("conv_stem", "bn_stem")))
    for (n, stage), block in product(enumerate(stages, start=1), range(_BLOCKS)):
        inside = dict(zip(layers, ("conv1", "bn1", "conv2", "bn2")))
        if n > 1 and block == 0:
            inside |= {f"{shortcut}.0": "conv_shortcut", f"{shortcut}.1": "bn_shortcut"}
        names |= {f"{stage}.{block}.{theirs}": f"stage{n}_block{block + 1}/{ours}" for theirs, ours in inside.items()}
    return names | {head: "classifier"}


_LAYERS = ("conv1", "bn1", "conv2", "bn2")
CONVENTIONS = (
    *(  # torchvision and timm; others
        _named(("conv1", "bn1"), [f"layer{n}" for n in range(1, 5)], _LAYERS, shortcut, head)
        for shortcut, head in product(("downsample", "shortcut"), ("fc", "linear", "classifier"))
    ),
    _named(
        ("conv1.0", "conv1.1"),
        [f"conv{n}_x" for n in range(2, 6)],
        [f"residual_function.{i}" for i in (0, 1, 3, 4)],
        "shortcut",
        "fc",
    ),
)
"""What files call the modules: {name in the file: path of the Flax module}; the first is for networks trained here."""
