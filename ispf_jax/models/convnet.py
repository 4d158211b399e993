"""Plain convolutional networks: AllCNN, VGG, LeNet and whatever else is a chain of convolutions and dense layers.

AllCNN with batch norm and a linear head is the variant of the unlearning literature (Golatkar 2020, Chundawat 2023).
VGG is Simonyan and Zisserman 2015 (arXiv 1409.1556). Tensors do not show strides, pooling and padding. VGG's numbers in
`features.N` leave gaps where it pools; otherwise the first of the usual arrangements is taken whose image is what the
first dense layer takes.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from ispf_jax.models.layers import Call, at_least_single, boundary, max_pool, scaled
from ispf_jax.models.tensors import Found, Given, Layer, Unlike, head_of, natural, of_kind, refuse_more

_ALLCNN = ((3, 3, 3, 3, 3, 3, 3, 1), (1, 1, 2, 1, 1, 2, 1, 1))  # kernels, strides
_ACTIVATIONS = ("relu", "tanh", "sigmoid", "gelu", "silu", "elu", "leaky_relu", "relu6")
_SIZES = (32, 28, 224, 64, 96, 128)  # of images, where nothing says how large they are


class ConvNet(nn.Module):
    """Convolutions, each with batch norm (or not), ReLU and max-pooling (or none); then a head of dense layers.

    Called with normalised images [N, H, W, C], returns (logits [N, num_classes], features [N, F]), both float32.

    Attributes:
      filters, kernels, strides, padding, bias, norm, pool: of each convolution; pool: size and stride of max-pooling
        behind it, 0 for none.
      size: the head sees the mean over that many times that many parts of the image, flattened; 0: all positions.
      hidden: sizes of dense layers before the last one.
      average: average-pooling in place of max-pooling.
      activation: relu, tanh, sigmoid, gelu, silu, elu, leaky_relu or relu6.
    """

    num_classes: int
    filters: tuple[int, ...]
    kernels: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[int, ...]
    bias: tuple[bool, ...]
    norm: tuple[bool, ...]
    pool: tuple[int, ...]
    size: int = 1
    hidden: tuple[int, ...] = ()
    average: bool = False
    activation: str = "relu"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool = False, mask=None, axis=None):
        if self.activation not in _ACTIVATIONS:
            raise ValueError(f"activation={self.activation!r} must be one of {', '.join(_ACTIVATIONS)}")
        call, activation = Call(self.dtype, train, mask, axis), getattr(nn, self.activation)
        x = x.astype(self.dtype)
        layers = zip(self.filters, self.kernels, self.strides, self.bias, self.padding, self.norm, self.pool)
        for n, (filters, kernel, stride, bias, padding, norm, pool) in enumerate(layers, start=1):
            x = activation(call.conv(x, filters, kernel, stride, (f"conv{n}", f"bn{n}" * norm), bias, padding))
            if pool and min(x.shape[1:3]) >= pool:
                windows = (pool, pool), (pool, pool)
                x = nn.avg_pool(x, *windows) if self.average else max_pool(x, pool, pool)
            x = boundary(x)
        x = at_least_single(x)
        if self.size == 1:
            x = jnp.mean(x, axis=(1, 2))
        elif self.size:
            rows, columns = (_parts(n, self.size) for n in x.shape[1:3])
            x = jnp.einsum("nhwc,ih,jw->nijc", x, rows, columns)
        return call.head(x.reshape(x.shape[0], -1), self.hidden, self.num_classes, activation)

    @property
    def title(self) -> str:
        """The network's usual name."""
        if (self.kernels, self.strides) == _ALLCNN:
            return "AllCNN"
        deep = len(self.filters) >= 8 and set(self.kernels) == {3}
        return f"VGG{len(self.filters) + len(self.hidden) + 1}" if deep else "ConvNet"


def _parts(pixels: int, parts: int) -> np.ndarray:
    """[parts, pixels]: weights of PyTorch's adaptive average pooling."""
    edges = [(i * pixels // parts, -(-(i + 1) * pixels // parts)) for i in range(parts)]
    return np.array([[(a <= p < b) / (b - a) for p in range(pixels)] for a, b in edges], np.float32)


def allcnn(num_classes: int, width: float, dtype) -> ConvNet:
    """AllCNN."""
    (kernels, strides), filters = _ALLCNN, (96, 96, 192, 192, 192, 192, 192, 192)
    return _made(num_classes, scaled(filters, width), kernels, strides, dtype=dtype)


def vgg(*stages: int):
    """A function (classes, width, type) -> VGG with batch norm and a single dense layer; convolutions per stage."""
    filters = [min(64 << stage, 512) for stage, n in enumerate(stages) for _ in range(n)]
    pool = tuple(2 * (i == n - 1) for n in stages for i in range(n))
    return lambda classes, width, dtype: _made(
        classes, scaled(filters, width), (3,) * len(filters), pool=pool, dtype=dtype
    )


def lenet(num_classes: int, width: float, dtype) -> ConvNet:
    """Two 5x5 convolutions with pooling, and a hidden dense layer; no batch norm."""
    filters, hidden = scaled((32, 64), width), scaled((128,), width)
    without = {"bias": (True, True), "norm": (False, False), "size": 0}
    return _made(num_classes, filters, (5, 5), pool=(2, 2), hidden=hidden, dtype=dtype, **without)


def _made(classes, filters, kernels, strides=None, **fields) -> ConvNet:
    n = len(filters)
    usual = {"bias": (False,) * n, "norm": (True,) * n, "pool": (0,) * n, "padding": tuple(k // 2 for k in kernels)}
    return ConvNet(classes, filters, kernels, strides or (1,) * n, **(usual | fields))


def read(layers: list[Layer], image_shape, given: Given) -> Found:
    """The network of a file's layers; Unlike if they are no chain."""
    try:
        return _read(layers, image_shape, given)
    except Unlike as error:
        try:
            return _read(sorted(layers, key=lambda layer: natural(layer.name)), image_shape, given)
        except Unlike:
            raise error from None


def _read(layers, image_shape, given) -> Found:
    convs, linears, norms = (of_kind(layers, kind) for kind in ("conv", "linear", "norm"))
    refuse_more(layer for layer in layers if layer.kind in ("affine", "tensor"))
    if not convs:
        raise Unlike("there is no convolution", len(layers))
    inputs, behind = None, _norms_behind(layers, convs, norms)
    for n, conv in enumerate(convs):
        kernel = conv.shape[-1]
        inputs = conv.require(None, inputs, kernel, kernel).shape[0]
        if n in behind:
            behind[n].require(inputs)
    refuse_more(norm for norm in norms if norm not in behind.values())
    hidden, classes, head = head_of(linears, None)
    network = _made(
        classes,
        tuple(conv.shape[0] for conv in convs),
        tuple(conv.shape[-1] for conv in convs),
        bias=tuple(conv.bias for conv in convs),
        norm=tuple(n in behind for n in range(len(convs))),
        hidden=hidden,
    )
    places = {}
    for n, conv in enumerate(convs):
        places |= {conv.name: f"conv{n + 1}"} | ({behind[n].name: f"bn{n + 1}"} if n in behind else {})
    if network.kernels == _ALLCNN[0] and linears[0].shape[1] == network.filters[-1]:
        return given(replace(network, strides=_ALLCNN[1])), places | head, ""
    network, note = _arranged(network, _pools_in_numbers(convs, behind), linears[0], image_shape, given)
    return network, places | head, note


def _norms_behind(layers, convs, norms) -> dict[int, Layer]:
    """{number of a convolution: its batch norm}: one by one, else that which follows it, or has its number."""
    if len(norms) == len(convs):
        return dict(enumerate(norms))
    found = {}
    for norm in norms:
        before = of_kind(layers[: layers.index(norm)], "conv")
        number = re.findall(r"\d+", norm.name)[-1:]
        same = [c for c in convs if re.findall(r"\d+", c.name)[-1:] == number]
        chosen = before[-1:] if before and len(before) < len(convs) else same or before[-1:]
        found |= {convs.index(conv): norm for conv in chosen if convs.index(conv) not in found}
    return found


def _arranged(network: ConvNet, gaps, dense: Layer, image_shape, given: Given) -> tuple[ConvNet, str]:
    """The network with the first of the usual arrangements that makes what the first dense layer takes, and a note."""
    takes, channels = dense.shape[1], network.filters[-1]
    candidates = list(dict.fromkeys(map(given, _arrangements(network, gaps))))
    sizes, fitting = [image_shape[:2]] if image_shape else [(n, n) for n in _SIZES], []
    for candidate in candidates:
        for pixels in (_through(candidate, height) * _through(candidate, width) for height, width in sizes):
            size = candidate.size if candidate.size > 1 else int(pixels == 1 or takes == channels)
            if pixels and takes == channels * (size**2 or pixels):
                fitting.append(candidate if candidate.size > 1 else given(replace(candidate, size=size)))
                break
    if fitting:
        f = fitting[0]
        note = "" if gaps or len(candidates) == 1 else _NOTE.format(f.strides, f.pool, f.padding, len(fitting))
        return f, note
    parts = (takes / channels) ** 0.5
    if not gaps or parts != int(parts):
        images = "x".join(map(str, image_shape[:2])) if image_shape else "usual"
        what = f"{takes} numbers, which no usual strides, pooling and padding make of {images} images"
        raise Unlike(f"{dense.name}.weight takes {what}", 1)
    return replace(candidates[0], size=int(parts)), ""


_NOTE = (
    "strides, pooling and padding cannot be seen in the tensors: taken are strides {}, max-pooling {} and padding {}, "
    "the first of {} arrangements that fit"
)


def _pools_in_numbers(convs, behind) -> tuple[int, ...] | None:
    """Where a `Sequential` pools: its numbers leave room for one more module than batch norm and ReLU there."""
    matches = [re.fullmatch(r"(.*?)(\d+)", conv.name) for conv in convs]
    if len(convs) < 2 or None in matches or len({match[1] for match in matches if match}) > 1:
        return None
    at = [int(match[2]) for match in matches if match]
    more = [after - before - 2 - (n in behind) for n, (before, after) in enumerate(pairwise(at))]
    named_alike = not matches[0][1] or matches[0][1].endswith(".")  # pyright: ignore
    return tuple(2 * (m > 0) for m in more) if named_alike and min(more) >= 0 else None


def _arrangements(network: ConvNet, gaps) -> Iterator[ConvNet]:
    """Networks with the usual strides, pooling and padding, the most common first."""
    n, filters, kernels = len(network.filters), network.filters, network.kernels
    grows = [i > 0 and filters[i] > filters[i - 1] for i in range(n)]
    before_growth = tuple(2 * (i == n - 1 or grows[i + 1]) for i in range(n))
    if gaps is not None:
        pools = [(*gaps, 2), (*gaps, 0)]
    else:
        last, none = (0,) * (n - 1) + (2,), (0,) * n
        pools = [(2,) * n, tuple(2 * (i % 2) for i in range(n)), before_growth, (*before_growth[:-1], 0), last, none]
        pools += [(2,) * i + (0,) * (n - i) for i in range(1, n)]
    same, valid = tuple(k // 2 for k in kernels), (0,) * n
    paddings = [same, valid, (*same[:1], *valid[1:])]
    strides = [(1,) * n]
    strides += [] if gaps is not None else [(2,) * n, tuple(1 + g for g in grows)]
    for s in strides:
        for padding in paddings:
            for pool in pools if set(s) == {1} else [(0,) * n]:
                yield replace(network, strides=s, pool=pool, padding=padding)


def _through(network: ConvNet, pixels: int) -> int:
    """The pixels along one side that the last convolution leaves of as many."""
    for kernel, stride, padding, pool in zip(network.kernels, network.strides, network.padding, network.pool):
        pixels = (pixels + 2 * padding - kernel) // stride + 1
        pixels = pixels // pool if pool and pixels >= pool else pixels
        if pixels < 1:
            return 0
    return pixels


def names(network: ConvNet) -> dict[str, str]:
    """The names for a network that did not come from a file, {name of a module in a file: path here}.

    VGG's where these show how it is built; for AllCNN those of the authors' program.
    """
    numbered = network.title != "AllCNN" and set(network.strides) == {1} and max(network.pool) in (0, 2)
    numbered = numbered and all(padding == k // 2 for padding, k in zip(network.padding, network.kernels))
    pair = ("conv{}.0", "conv{}.1") if all(network.norm) else ("conv{}", "bn{}")  # the first: the authors' program
    found, at = {}, 0
    for n, (norm, pool) in enumerate(zip(network.norm, network.pool), start=1):
        theirs = (f"features.{at}", f"features.{at + 1}") if numbered else (name.format(n) for name in pair)
        found |= dict(zip(theirs, (f"conv{n}", f"bn{n}")[: 1 + norm]))
        at += 2 + norm + (pool > 0)
    hidden = {f"classifier.{3 * n}": f"dense{n + 1}" for n in range(len(network.hidden))}
    return found | hidden | {f"classifier.{3 * len(hidden)}": "classifier"}
