"""The ResNet family: CIFAR's 6n+2, 18 to 152 layers, basic and bottleneck blocks, pre-activation, wide.

He et al. 2016 (arXiv 1512.03385, 1603.05027), Zagoruyko and Komodakis 2016 (1605.07146). Tensors do not show strides
and pooling. Convention: the first block of each stage after the first has stride 2, in a bottleneck at its 3x3
convolution; a stem of 7x7 has stride 2 and max-pooling 3x3 of stride 2, one of 3x3 neither. A shortcut without weights
where the shape changes takes every second pixel and pads channels with zeros, half of them on each side (option A).
With pre-activation, a shortcut's convolution sees the activated input.
"""

import re
from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp

from ispf_jax.models.layers import Call, at_least_single, boundary, max_pool, scaled
from ispf_jax.models.tensors import Found, Given, Layer, Unlike, head_of, natural, of_kind, refuse_more

_BLOCK = re.compile(
    r"(?:(?:layer|block|stage|group|conv)_?|stages\.)(\d+)(?:_x)?\.(?:(?:layers?|blocks?)\.)?(\d+)\.(.+)"
)
_SHORTCUT = re.compile("shortcut|downsample|skip|proj", re.IGNORECASE)
_KERNELS = {2: (3, 3), 3: (1, 3, 1)}


class Block(nn.Module):
    """Convolutions with batch norm and a shortcut, which is a 1x1 convolution where the shape changes.

    Attributes:
      filters: of two convolutions (3x3, 3x3) or three (1x1, 3x3, 1x1).
      padded: whether the shortcut pads with zeros instead.
      preact: whether batch norm and ReLU come before each convolution.
    """

    filters: tuple[int, ...]
    stride: int
    padded: bool = False
    preact: bool = False
    bias: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train, mask, axis):
        call, kernels = Call(self.dtype, train, mask, axis), _KERNELS[len(self.filters)]
        last, changes = len(kernels), self.stride != 1 or x.shape[-1] != self.filters[-1]
        h = x
        for n, (filters, kernel) in enumerate(zip(self.filters, kernels), start=1):
            stride = self.stride if kernel == 3 and 3 not in kernels[: n - 1] else 1
            if self.preact:
                h = nn.relu(call.norm(h, f"bn{n}"))
                x = h if n == 1 and changes else x
            h = call.conv(h, filters, kernel, stride, (f"conv{n}", "" if self.preact else f"bn{n}"), self.bias)
            h = h if self.preact or n == last else nn.relu(h)
        if changes and self.padded:
            more = self.filters[-1] - x.shape[-1]
            x = jnp.pad(x[:, :: self.stride, :: self.stride], [(0, 0)] * 3 + [(more // 2, more - more // 2)])
        elif changes:
            names = ("conv_shortcut", "" if self.preact else "bn_shortcut")
            x = call.conv(x, self.filters[-1], 1, self.stride, names, self.bias)
        return h + x if self.preact else nn.relu(h + x)


class ResNet(nn.Module):
    """Called with normalised images [N, H, W, C], returns (logits [N, num_classes], features [N, F]), both float32.

    Attributes:
      stem: filters of the first convolution.
      stages: filters of each convolution of each block of each stage.
      kernel, stem_stride, stem_pool: of the stem; pooling 0: none.
      strides: of the first block of each stage.
      padded, preact, bias: see `Block`; without pre-activation all convolutions have a batch norm.
      final_norm: with pre-activation: whether batch norm and ReLU follow the last block.
      hidden: sizes of dense layers before the last one.
    """

    num_classes: int
    stem: int
    stages: tuple[tuple[tuple[int, ...], ...], ...]
    kernel: int = 3
    stem_stride: int = 1
    stem_pool: int = 0
    strides: tuple[int, ...] = (1, 2, 2, 2)
    padded: bool = False
    preact: bool = False
    final_norm: bool = False
    bias: bool = False
    hidden: tuple[int, ...] = ()
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool = False, mask=None, axis=None):
        call = Call(self.dtype, train, mask, axis)
        names = ("conv_stem", "" if self.preact else "bn_stem")
        x = call.conv(x.astype(self.dtype), self.stem, self.kernel, self.stem_stride, names, self.bias)
        x = x if self.preact else nn.relu(x)
        if self.stem_pool:
            x = max_pool(x, self.stem_pool, 2, self.stem_pool // 2)
        for stage, (blocks, stride) in enumerate(zip(self.stages, self.strides, strict=True), start=1):
            for n, filters in enumerate(blocks, start=1):
                fields = (filters, stride if n == 1 else 1, self.padded, self.preact, self.bias, self.dtype)
                x = boundary(Block(*fields, name=f"stage{stage}_block{n}")(x, train, mask, axis))
        x = nn.relu(call.norm(x, "bn_final")) if self.final_norm else x
        return call.head(jnp.mean(at_least_single(x), axis=(1, 2)), self.hidden, self.num_classes)

    @property
    def title(self) -> str:
        """The network's usual name."""
        convolutions = sum(len(filters) for blocks in self.stages for filters in blocks)
        if self.preact and len(self.stages) == 3:
            return f"WRN-{convolutions + 4}-{self.stages[0][0][-1] / 16:g}"
        return f"{'PreAct' * self.preact}ResNet{convolutions + 2}"


def basic(depths, filters=(64, 128, 256, 512), **fields):
    """A function (classes, width, type) -> network of basic blocks."""
    return _builder([[(f, f)] * n for n, f in zip(depths, filters, strict=True)], **fields)


def bottleneck(depths):
    """The same of bottlenecks, each four times as wide at its end."""
    return _builder([[(f, f, 4 * f)] * n for n, f in zip(depths, (64, 128, 256, 512), strict=True)], 64)


def wide(depth: int, factor: int):
    """The same, a wide ResNet."""
    filters, fields = [16 * factor, 32 * factor, 64 * factor], {"preact": True, "final_norm": True}
    return basic([(depth - 4) // 6] * 3, filters, stem=16, **fields)


def _builder(stages, stem=None, **fields):
    fields["strides"] = (1,) + (2,) * (len(stages) - 1)

    def build(num_classes: int, width: float, dtype):
        filters = scaled(stem or stages[0][0][0], width), scaled(stages, width)
        return ResNet(num_classes, *filters, dtype=dtype, **fields)

    return build


def read(layers: list[Layer], image_shape, given: Given) -> Found:
    """The network of a file's layers; Unlike if they are no ResNet."""
    blocks: dict[tuple[int, int], list[Layer]] = {}
    outside = []
    for layer in layers:
        if match := _BLOCK.search(layer.name):
            blocks.setdefault((int(match[1]), int(match[2])), []).append(layer)
        else:
            outside.append(layer)
    stem, norms, linears = (of_kind(outside, kind) for kind in ("conv", "norm", "linear"))
    if not blocks:
        raise Unlike("there are no blocks of layers", len(layers))
    if not stem:
        raise Unlike("there is no convolution before the blocks", 1)
    refuse_more(layer for layer in outside if layer not in (stem[0], *norms[:1], *linears))
    bias, places = stem[0].bias, {}
    kernel = stem[0].shape[-1]
    preact = _is_preact(blocks)
    channels, stages, padded, order = stem[0].shape[0], {}, set(), sorted(blocks)
    numbers = sorted({stage for stage, _ in order})
    for stage, block in order:
        n = [b for s, b in order if s == stage].index(block) + 1
        path = f"stage{numbers.index(stage) + 1}_block{n}/"
        new = n == 1 and stage != numbers[0]
        filters, found, pads = _read_block(blocks[stage, block], channels, preact, new, bias)
        places |= {name: path + ours for name, ours in found.items()}
        padded |= {pads} - {None}
        stages.setdefault(stage, []).append(filters)
        channels = filters[-1]
    if len(padded) > 1:
        raise Unlike("some shortcuts have weights, and some that change the shape have none", 1)
    norm = norms[-1].require(channels if preact else stem[0].shape[0]) if norms else None
    if not norm and not preact:
        raise Unlike("there is no batch norm behind the first convolution", 1)
    hidden, classes, head = head_of(linears, channels)
    first = {stem[0].name: "conv_stem"} | ({norm.name: "bn_stem"} if norm and not preact else {})
    last = {norm.name: "bn_final"} if norm and preact else {}
    large = kernel == 7
    network = ResNet(
        classes,
        stem[0].shape[0],
        tuple(map(tuple, stages.values())),
        kernel,
        2 if large else 1,
        3 if large else 0,
        (1,) + (2,) * (len(stages) - 1),
        padded == {True},
        preact,
        bool(last),
        bias,
        hidden,
    )
    return given(network), first | places | last | head, ""


def _is_preact(blocks: Mapping) -> bool:
    """Whether the first batch norm of a block is as wide as its input, where its first convolution is not."""
    for inside in blocks.values():
        conv, norm = _main(inside, "conv"), _main(inside, "norm")
        if conv and norm and len(conv[0].shape) == 4 and conv[0].shape[0] != conv[0].shape[1]:
            return norm[0].shape[0] == conv[0].shape[1]
    return False


def _main(inside, kind):
    """Layers of a kind in a block, but for its shortcut, in the order of their names."""
    return sorted((a for a in of_kind(inside, kind) if not _is_shortcut(a)), key=lambda a: natural(a.name))


def _is_shortcut(layer: Layer) -> bool:
    return bool(_SHORTCUT.search(_BLOCK.search(layer.name)[3]))  # pyright: ignore


def _read_block(inside: list[Layer], channels: int, preact: bool, new: bool, bias: bool):
    """(filters, {name: path here}, whether a changed shape is padded or None) of a block with that many inputs."""
    convs, norms, places, filters = _main(inside, "conv"), _main(inside, "norm"), {}, []
    kernels = _KERNELS.get(len(convs))
    shortcut = [layer for layer in inside if _is_shortcut(layer)]
    refuse_more(layer for layer in inside if layer not in (*convs, *norms, *shortcut))
    if kernels is None or len(norms) != len(convs):
        name = inside[0].name.rpartition(".")[0]
        raise Unlike(f"{name} has {len(convs)} convolutions and {len(norms)} batch norms, not two or three of each", 1)
    inputs = channels
    for n, (conv, norm, kernel) in enumerate(zip(convs, norms, kernels), start=1):
        outputs = conv.require(None, inputs, kernel, kernel, bias=bias).shape[0]
        norm.require(inputs if preact else outputs)
        places |= {conv.name: f"conv{n}", norm.name: f"bn{n}"}
        filters.append(outputs)
        inputs = outputs
    changes = new or inputs != channels
    conv, norm = of_kind(shortcut, "conv"), of_kind(shortcut, "norm")
    if conv and changes:
        places[conv[0].require(inputs, channels, 1, 1, bias=bias).name] = "conv_shortcut"
        if len(conv) > 1 or len(norm) != (not preact):
            raise Unlike(f"{conv[0].name} has {len(norm)} batch norms and should have {int(not preact)}", 1)
        places |= {layer.name: "bn_shortcut" for layer in norm}
    else:
        refuse_more(shortcut)
    return tuple(filters), places, not conv if changes else None


def names(network: ResNet) -> dict[str, str]:
    """torchvision's names, {name of a module in a file: path here}."""
    found = {"conv1": "conv_stem"} | ({} if network.preact else {"bn1": "bn_stem"})
    channels = network.stem
    for s, (blocks, stride) in enumerate(zip(network.stages, network.strides), start=1):
        for b, filters in enumerate(blocks):
            kinds = [f"{kind}{n}" for n in range(1, len(filters) + 1) for kind in ("conv", "bn")]
            inside = dict(zip(kinds, kinds))
            if (channels != filters[-1] or (b == 0 and stride != 1)) and not network.padded:
                inside["downsample.0"] = "conv_shortcut"
                inside |= {} if network.preact else {"downsample.1": "bn_shortcut"}
            found |= {f"layer{s}.{b}.{theirs}": f"stage{s}_block{b + 1}/{ours}" for theirs, ours in inside.items()}
            channels = filters[-1]
    found |= {"bn_final": "bn_final"} if network.final_norm else {}
    hidden = {f"fc{n}": f"dense{n}" for n in range(1, len(network.hidden) + 1)}
    return found | hidden | {"fc": "classifier"}
