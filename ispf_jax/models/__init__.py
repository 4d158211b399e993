"""Networks: the families with their names in files, the classifiers by name, and the generator."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from ispf_jax.errors import ArgumentError, short_repr
from ispf_jax.models import convnet, resnet, vit
from ispf_jax.models.adapted import Function, adapt, title
from ispf_jax.models.convnet import ConvNet
from ispf_jax.models.generator import Generator
from ispf_jax.models.resnet import ResNet
from ispf_jax.models.tensors import Unlike
from ispf_jax.models.vit import ViT
from ispf_jax.settings import converted

FAMILIES = {ResNet: resnet, ConvNet: convnet, ViT: vit}
"""Modules with `read` (a network from the layers of a file) and `names` (for a network made here)."""

CLASSIFIERS: dict[str, Callable[[int, float, Any], nn.Module]] = {
    "allcnn": convnet.allcnn,
    "resnet18": resnet.basic((2, 2, 2, 2)),
    "resnet34": resnet.basic((3, 4, 6, 3)),
    "resnet50": resnet.bottleneck((3, 4, 6, 3)),
    **{f"resnet{6 * n + 2}": resnet.basic((n, n, n), (16, 32, 64), padded=True) for n in (3, 5, 9)},
    "wrn-16-4": resnet.wide(16, 4),
    "wrn-28-10": resnet.wide(28, 10),
    "vgg11": convnet.vgg(1, 1, 2, 2, 2),
    "vgg16": convnet.vgg(2, 2, 3, 3, 3),
    "lenet": convnet.lenet,
    "vit-tiny": vit.vit(192, 6),
    "vit-small": vit.vit(384, 8),
}
"""Functions (number of classes, width, type of activations) -> module, by name."""

CONVENTIONS: dict[str, tuple[dict[str, str], ...]] = {}
"""What files call the modules of other classifiers, in one or several ways: ({name in the file: path here}, ...)."""


def build_classifier(name: str, num_classes: int, width: float = 1.0, dtype: str = "float32", layout: Any = None):
    """The classifier module of that name; called with images it returns (logits, features).

    Args:
      layout: other values of the module's fields; see `with_layout`.
    """
    if not isinstance(name, str) or name not in CLASSIFIERS:
        raise ArgumentError("network", f"={short_repr(name)} is unknown; allowed are {', '.join(CLASSIFIERS)}.")
    width = converted(float, "width", width)
    return with_layout(CLASSIFIERS[name](num_classes, width, jnp.dtype(dtype)), layout)


def layout_of(module: nn.Module) -> dict[str, Any]:
    """The fields of a network of `FAMILIES`, and its "family": with them `from_layout` makes it again; else empty."""
    if type(module) not in FAMILIES:
        return {}
    fields = {f.name: getattr(module, f.name) for f in dataclasses.fields(module)}
    return {"family": type(module).__name__} | {n: v for n, v in fields.items() if n not in _NOT_LAYOUT}


_NOT_LAYOUT = ("parent", "name", "dtype")


def from_layout(layout: Mapping[str, Any], dtype: str = "float32") -> nn.Module:
    """The network that `layout_of` described."""
    family = next((made for made in FAMILIES if made.__name__ == layout.get("family")), None)
    if family is None:
        raise ArgumentError("layout", f" has the family {short_repr(layout.get('family'))}, which is none.")
    try:
        return family(**{n: _tuples(v) for n, v in layout.items() if n != "family"}, dtype=jnp.dtype(dtype))
    except TypeError as error:
        raise ArgumentError("layout", f"={short_repr(dict(layout))} does not make a {family.__name__}.") from error


def with_layout(module: nn.Module, layout: Mapping[str, Any] | None) -> nn.Module:
    """The module with other values of its fields, of which one number stands for as many as there were.

    Raises:
      ArgumentError: there is no such field.
    """
    given = dict(layout or {})
    if given.pop("family", type(module).__name__) != type(module).__name__:
        raise Unlike(f"it is no {layout['family']}", 1)  # pyright: ignore
    known = {f.name for f in dataclasses.fields(module)} - {*_NOT_LAYOUT, "num_classes"}
    if unknown := sorted(given.keys() - known - {"num_classes"}):
        text = f" has {unknown[0]}, which {type(module).__name__} does not; it has {', '.join(sorted(known))}."
        raise ArgumentError("layout", text)
    old = {name: getattr(module, name) for name in given}
    wide = {n: (v,) * len(old[n]) if isinstance(old[n], tuple) and isinstance(v, int) else v for n, v in given.items()}
    return module.clone(**{name: _tuples(value) for name, value in wide.items()})


def _tuples(value):
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value


def named(module: nn.Module) -> str:
    """The name of a network in results: that of `CLASSIFIERS` where it is a class there, else its title."""
    kind = type(getattr(module, "inner", module))
    name = title(module).lower() if kind in FAMILIES else kind.__name__
    return next((name for name, made in CLASSIFIERS.items() if made is kind), name)


__all__ = [
    "CLASSIFIERS",
    "CONVENTIONS",
    "FAMILIES",
    "ConvNet",
    "Function",
    "Generator",
    "ResNet",
    "ViT",
    "adapt",
    "build_classifier",
    "from_layout",
    "layout_of",
    "named",
    "title",
    "with_layout",
]
