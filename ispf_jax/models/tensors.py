"""The tensors of a file as layers: what a family of networks reads its layout from."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn

from ispf_jax.errors import few

COUNTER = "num_batches_tracked"  # of PyTorch's batch norm; used by nothing as long as its momentum is set
_LEAVES = ("weight", "bias", "running_mean", "running_var", COUNTER)

Found = tuple[nn.Module, dict[str, str], str]
"""A network read from layers, {name of a module in the file: path here}, and what of the network is only assumed."""

Given = Callable[[Any], Any]
"""Sets those fields of a network that the user says."""


class Unlike(Exception):
    """Tensors that are not those of the network; the text says which, `distance` how many of them."""

    def __init__(self, text: str, distance: float = 0):
        super().__init__(text)
        self.distance = distance


@dataclass
class Layer:
    """The tensors of one module in a file.

    Attributes:
      kind: conv, linear, norm (with running statistics), affine (a scale and a bias alone), or tensor (by itself).
      shapes: of its tensors, by the last part of their names.
    """

    name: str
    kind: str = "tensor"
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the weight; PyTorch's [out, in, h, w] or [out, in]."""
        return self.shapes.get("weight", ())

    @property
    def bias(self) -> bool:
        return "bias" in self.shapes

    def require(self, *shape: int | None, bias: bool | None = None) -> "Layer":
        """Itself; Unlike unless the weight has this shape (None: any size), and a bias or none."""
        if len(shape) != len(self.shape) or any(want not in (None, got) for want, got in zip(shape, self.shape)):
            if len(shape) != len(self.shape):
                raise Unlike(f"{self.name}.weight has {len(self.shape)} dimensions and should have {len(shape)}", 1)
            raise Unlike(f"{self.name}.weight is {size(self.shape)} and should be {size(shape)}", 1)
        if 0 in self.shape:
            raise Unlike(f"{self.name}.weight has no numbers", 1)
        if bias is not None and bias != self.bias:
            raise Unlike(f"there is {'no' if bias else 'also'} {self.name}.bias", 1)
        return self


def layers_in(tensors: Mapping) -> list[Layer]:
    """The layers of tensors, or of anything with a shape, by name, in the order of the file."""
    found: dict[str, Layer] = {}
    for key, tensor in tensors.items():
        name, _, leaf = key.rpartition(".")
        name, leaf = (name, leaf) if leaf in _LEAVES else (key, key)
        found.setdefault(name, Layer(name)).shapes[leaf] = tuple(tensor.shape)
    for layer in found.values():
        kinds = {4: "conv", 2: "linear", 1: "norm" if "running_mean" in layer.shapes else "affine"}
        layer.kind = kinds.get(len(layer.shape), "tensor")
        if layer.kind == "norm" and {"weight", "bias", "running_var"} - layer.shapes.keys():
            raise Unlike(f"there is no {layer.name}.{min({'weight', 'bias', 'running_var'} - layer.shapes.keys())}", 1)
    return list(found.values())


def of_kind(layers: Collection[Layer], kind: str) -> list[Layer]:
    return [layer for layer in layers if layer.kind == kind]


def natural(name: str) -> list:
    """Sorts the numbers in names by their value."""
    return [(word.isdigit(), int(word) if word.isdigit() else word) for word in re.split(r"(\d+)", name)]


def size(shape: Collection) -> str:
    return "x".join("any" if n is None else str(n) for n in shape) or "a single number"


def refuse_more(layers: Iterable[Layer]):
    """Unlike if there is any layer left, for which the network has no place."""
    if left := list(layers):
        keys = [f"{layer.name}.{leaf}" if layer.name != leaf else leaf for layer in left for leaf in layer.shapes]
        raise Unlike(f"it also has {few(keys)}", len(keys))


def head_of(linears: Collection[Layer], inputs: int | None) -> tuple[tuple[int, ...], int, dict[str, str]]:
    """(hidden sizes, classes, {name: path here}) of the dense layers at the end of a network, however wrapped.

    Args:
      inputs: features that the first must take; None: any.
    """
    if not linears:
        raise Unlike("there is no linear layer", 1)
    for layer in linears:
        inputs = layer.require(None, inputs, bias=True).shape[0]
    *hidden, classes = (layer.shape[0] for layer in linears)
    paths = [f"dense{n}" for n in range(1, len(linears))] + ["classifier"]
    return tuple(hidden), classes, {layer.name: path for layer, path in zip(linears, paths)}
