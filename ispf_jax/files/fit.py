"""Which network the tensors of a file are: a family reads its layout from them, or a module has layers like theirs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import flax.linen as nn
import numpy as np
from flax.traverse_util import flatten_dict

from ispf_jax.classifier import Network
from ispf_jax.files.naming import Naming, Unlike, find_naming, shape_at, torch_shape
from ispf_jax.models import CLASSIFIERS, CONVENTIONS, FAMILIES, build_classifier, title, with_layout
from ispf_jax.models.adapted import calls
from ispf_jax.models.tensors import COUNTER, Layer, layers_in, natural, of_kind, refuse_more, size

_SIZES = (32, 28, 16, 224, 64, 96, 128, 160, 192, 256, 384)


@dataclass(frozen=True)
class Fit:
    """A network found in tensors.

    Attributes:
      network: its name.
      note: what of it cannot be seen in the tensors, and is assumed; "" if nothing is.
    """

    network: str
    module: nn.Module
    naming: Naming
    classes: int
    channels: int
    note: str = ""


@lru_cache(20)
def shapes(module, image_shape: tuple[int, ...]) -> dict:
    """Flat shapes of a classifier's variables.

    Raises:
      Unlike: the module cannot be built for such images.
    """
    try:
        found = flatten_dict(Network(module, image_shape, (0.5,), (0.5,)).shapes(), sep="/")
        return {place: shape for place, shape in found.items() if hasattr(shape, "shape")}
    except Exception as error:  # the module's, Flax's or JAX's
        text = f"it cannot be built for images of {size(image_shape)}: {type(error).__name__}"
        raise Unlike(text) from error


def fit(network: str, tensors: Mapping[str, np.ndarray], image_shape=None, width=1.0, layout=None) -> Fit:
    """Finds a network, a key of `CLASSIFIERS`, in tensors; of a family any of that family.

    Args:
      image_shape: (H, W, C); None: any that fits.
      width: of a module that is not of a family.
      layout: fields of the module that are known, see `models.with_layout`.

    Raises:
      Unlike: it is not there; says why.
    """
    layers = layers_in(tensors)
    family = type(build_classifier(network, 2))
    if family in FAMILIES:
        return _of_family(family, layers, tensors, image_shape, layout)
    convs, linears = (of_kind(layers, kind) for kind in ("conv", "linear"))
    if not linears:
        raise Unlike("there is no linear layer", len(layers))
    channels = convs[0].shape[1] if convs else 3
    shape = tuple(image_shape or (32, 32, channels))
    module = build_classifier(network, linears[-1].shape[0], width, layout=layout)
    if network in CONVENTIONS:
        naming = find_naming(network, tensors, shapes(module, shape))
    else:
        naming = Naming(_in_order(module, shape, layers), "", tuple(tensors), _counters(tensors))
    return Fit(network, module, naming, linears[-1].shape[0], channels)


def find(tensors: Mapping[str, np.ndarray], image_shape=None, layout=None) -> Fit:
    """The network that the tensors are: of a family, or a module of `CLASSIFIERS` with its default width.

    Raises:
      Unlike: there is none; says which is nearest, and the first difference.
    """
    others = [name for name in CLASSIFIERS if type(build_classifier(name, 2)) not in FAMILIES]
    nearest, layers = Unlike("it has no layers of a network", math.inf), layers_in(tensors)
    attempts: dict[str, Any] = {
        family.__name__: partial(_of_family, family, layers, tensors, image_shape, layout) for family in FAMILIES
    }
    attempts |= {name: partial(fit, name, tensors, image_shape) for name in others}
    for name, attempt in attempts.items():
        try:
            return attempt()
        except Unlike as error:
            if error.distance < nearest.distance:
                nearest = Unlike(f"the nearest network is {name}: {error}", error.distance)
    raise nearest


def image_shape_of(found: Fit, tensors: Mapping[str, np.ndarray]) -> tuple[int, int, int]:
    """The first usual shape of images with which the network has the shapes of the tensors; of 32 pixels if none."""
    for pixels in _SIZES:
        shape = (pixels, pixels, found.channels)
        try:
            flat = shapes(found.module, shape)
            places = found.naming.places(flat)
        except Unlike:
            continue
        if all(tensors[key].shape == shape_at(place, flat) for key, place in places.items()):
            return shape
    return (_SIZES[0], _SIZES[0], found.channels)


def is_known(tensors: Mapping[str, np.ndarray], network: str | None = None) -> bool:
    """Whether tensors are those of a network, or of any that is known."""
    try:
        return bool(fit(network, tensors) if network in CLASSIFIERS else find(tensors))
    except Unlike:
        return False


def _of_family(family, layers, tensors, image_shape, layout) -> Fit:
    module, modules, note = FAMILIES[family].read(layers, image_shape, partial(with_layout, layout=layout))
    naming = Naming(modules, "", tuple(tensors), _counters(tensors))
    convs = of_kind(layers, "conv")
    return Fit(title(module).lower(), module, naming, module.num_classes, convs[0].shape[1], note)


def _counters(tensors) -> dict[str, int]:
    return {key: int(value) for key, value in tensors.items() if key.endswith(COUNTER) and np.size(value) == 1}


def _in_order(module, image_shape, layers: list[Layer]) -> dict[str, str]:
    """{name in the file: path here}: the n-th convolution there is the n-th called here, likewise for other layers."""
    flat, places, called = shapes(module, image_shape), {}, {}
    for path, kind in calls(module, image_shape).items():
        called.setdefault(kind, []).append(path)
    refuse_more(of_kind(layers, "tensor"))
    for kind, paths in called.items():
        there = of_kind(layers, kind)
        if len(there) != len(paths):
            raise Unlike(f"it has {len(there)} layers like {there[0].name if there else kind}, not {len(paths)}", 1)
        weights = [flat.get(f"params/{p}/kernel", flat.get(f"params/{p}/scale")).shape for p in paths]
        wanted = [torch_shape(shape) for shape in weights]
        orders = there, sorted(there, key=lambda layer: natural(layer.name))
        order = next((o for o in orders if [layer.shape for layer in o] == wanted), there)
        for layer, path, shape in zip(order, paths, wanted):
            places[layer.require(*shape, bias=f"params/{path}/bias" in flat).name] = path
    refuse_more(layer for layer in layers if layer.name not in places)
    return places
