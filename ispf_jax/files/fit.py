"""Which network the tensors of a file are, how many classes it has, and how wide it is."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from flax.traverse_util import flatten_dict

from ispf_jax.classifier import Network
from ispf_jax.files.naming import Naming, Unlike, find_naming
from ispf_jax.models import CLASSIFIERS, build_classifier


@dataclass(frozen=True)
class Fit:
    """A network found in tensors.

    Attributes:
      width: the shortest factor on the filters of width 1 that yields the file's; None if there is none.
    """

    network: str
    naming: Naming
    classes: int
    channels: int
    width: float | None


@lru_cache(20)
def shapes(module, image_shape: tuple[int, ...]) -> dict:
    """Flat shapes of a classifier's variables.

    Raises:
      Unlike: the module cannot be built for such images.
    """
    try:
        return flatten_dict(Network(module, image_shape, (0.5,), (0.5,)).shapes(), sep="/")
    except Exception as error:  # the module's, Flax's or JAX's
        size = "x".join(map(str, image_shape))
        raise Unlike(f"it cannot be built for images of {size}: {type(error).__name__}") from error


def fit(network: str, tensors: Mapping[str, np.ndarray], image_shape=(32, 32, 3)) -> Fit:
    """Finds a network, a key of `CLASSIFIERS`, in tensors.

    Raises:
      Unlike: it is not there; says why.
    """
    full = shapes(build_classifier(network, 2), tuple(image_shape))
    naming = find_naming(network, tensors, full)
    kernels = {place: (key, tensors[key].shape) for key, place in naming.places(full).items() if "/kernel" in place}
    for place, (key, shape) in kernels.items():
        if len(shape) != len(full[place].shape):
            raise Unlike(f"{key} has {len(shape)} dimensions and should have {len(full[place].shape)}")
        if 0 in shape:
            raise Unlike(f"{key} has no numbers")
    first, classes = next(iter(kernels.values()))[1], kernels.pop("params/classifier/kernel")[1][0]
    width = _width([(shape[0], full[place].shape[-1]) for place, (_, shape) in kernels.items()])
    return Fit(network, naming, classes, first[1] if len(first) == 4 else image_shape[2], width)


def find(tensors: Mapping[str, np.ndarray]) -> Fit:
    """The network of `CLASSIFIERS` whose names the tensors have.

    Raises:
      Unlike: there is none; says which is nearest, and the differences.
    """
    nearest = Unlike("it is none of " + ", ".join(CLASSIFIERS), math.inf)
    for network in CLASSIFIERS:
        try:
            return fit(network, tensors)
        except Unlike as error:
            if error.distance < nearest.distance:
                nearest = Unlike(f"the nearest network is {network}: {error}", error.distance)
    raise nearest


def is_known(tensors: Mapping[str, np.ndarray], network: str | None = None) -> bool:
    """Whether tensors have the names of a network, or of any of `CLASSIFIERS`."""
    try:
        return bool(fit(network, tensors) if network in CLASSIFIERS else find(tensors))
    except Unlike:
        return False


def _width(pairs):
    """The width with the fewest digits that makes, for every pair, so many filters of the full ones, by rounding."""
    scaled = [(n, full) for n, full in pairs if n != full]  # other layers have a fixed size, or the width is 1
    exact = {n / full for n, full in scaled} or {1.0}
    if len(exact) == 1:
        return exact.pop()
    low = max((n - 0.5) / full if n > 1 else 0 for n, full in scaled)  # a layer has at least one
    high = min((n + 0.5) / full for n, full in scaled)
    candidates = (float(f"{(low + high) / 2:.{digits}g}") for digits in range(1, 7))
    return next((width for width in candidates if low < width < high), None)
