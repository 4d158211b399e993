"""How files name the tensors of a network, and how PyTorch's layouts differ from those of Flax.

PyTorch has filters as [out, in, h, w] and linear layers as [out, in]; here they are [h, w, in, out] and [in, out]. A
linear layer behind a flattened image counts channels first there, and last here. The bias of `convX` before a batch
norm `bnX`, which some programs have, is taken into the running mean, where it does the same; written back, it is zero.

Here variables are flat: {"params/conv1/kernel": array or shape}.
"""

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from ispf_jax.errors import few
from ispf_jax.models import CONVENTIONS

_LEAVES = (
    *(("weight", "params/{}/kernel"), ("weight", "params/{}/scale"), ("bias", "params/{}/bias")),
    *(("running_mean", "batch_stats/{}/mean"), ("running_var", "batch_stats/{}/var")),
)
_COUNTER = "num_batches_tracked"  # of PyTorch's batch norm; used by nothing as long as its momentum is set


class Unlike(Exception):
    """Tensors that are not those of the network; the text says which, `distance` how many differ by name."""

    def __init__(self, text: str, distance: float = 0):
        super().__init__(text)
        self.distance = distance


class Useless(Unlike):
    """Tensors with which no network can compute anything; the text says which."""


@dataclass(frozen=True)
class Naming:
    """How a file names the tensors of a network.

    Attributes:
      modules: {name of a PyTorch module: path of the Flax module}, in the network's order.
      prefix: what stands before every name, such as "module.".
      keys: the tensors of the file, in its order.
      flax: {key: the file's own name}, where the file has Flax's names and layout.
      kept: tensors of the file that are written as they are, as JSON.
    """

    modules: dict[str, str]
    prefix: str
    keys: tuple[str, ...]
    flax: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)

    def places(self, flat: Mapping) -> dict[str, str]:
        """{tensor: variable} in the network's order.

        Raises:
          Unlike: there are no names for some of the variables.
        """
        pairs = [
            (f"{self.prefix}{theirs}.{name}", leaf.format(ours))
            for theirs, ours in self.modules.items()
            for name, leaf in _LEAVES
        ]
        found = {key: place for key, place in pairs if place in flat}
        if unnamed := set(flat) - set(found.values()):
            raise Unlike(f"CONVENTIONS has no names for its {few(sorted(unnamed))}")
        return found

    def spare(self, key: str, flat: Mapping) -> str:
        """The running mean that a tensor, which the network can do without, belongs to; "" if it is no such tensor."""
        module, _, name = key.removeprefix(self.prefix).rpartition(".")
        head, slash, ours = self.modules.get(module, "").rpartition("/")
        batch_norm = {_COUNTER: ours, "bias": ours.replace("conv", "bn", 1)}.get(name, "")
        place = f"batch_stats/{head}{slash}{batch_norm}/mean"
        return place if place in flat else ""


def find_naming(network: str, tensors: Collection[str], flat: Mapping) -> Naming:
    """How `tensors` name the tensors of a classifier.

    Raises:
      Unlike: in no known way; the text has the differences from the nearest one.
    """
    keys = tuple(tensors)
    nearest = Unlike(f"it has {few(keys)}", math.inf)
    own = {path.replace("/", "."): path for path in (place.split("/", 1)[1].rpartition("/")[0] for place in flat)}
    for modules in (*CONVENTIONS.get(network, ()), own):  # the last of trees of Flax
        anchor = f"{next(iter(modules))}.weight"
        prefixes = {key.removesuffix(anchor) for key in keys if key.endswith(anchor)}
        for prefix in sorted(prefixes, key=len)[:3]:
            naming = Naming(modules, prefix, keys)
            needed = naming.places(flat)
            missing = [key for key in needed if key not in tensors]
            unknown = [key for key in keys if key not in needed and not naming.spare(key, flat)]
            differences = [("there is no", missing), ("it also has", unknown)]
            distance = len(missing) + len(unknown)
            if not distance:
                return naming
            if distance < nearest.distance and modules is not own:
                nearest = Unlike("; ".join(f"{what} {few(which)}" for what, which in differences if which), distance)
    raise nearest


def own_naming(network: str, flat: Mapping) -> Naming:
    """The naming for a network that did not come from a file.

    Raises:
      Unlike: `CONVENTIONS` has none.
    """
    if network not in CONVENTIONS:
        raise Unlike(f"CONVENTIONS has no names for the modules of {network}")
    modules = CONVENTIONS[network][0]
    return Naming(modules, "", tuple(Naming(modules, "", ()).places(flat)))


def to_flax(naming: Naming, tensors: Mapping[str, np.ndarray], flat: Mapping) -> dict[str, np.ndarray]:
    """Variables in float32, of the shapes in `flat`.

    Raises:
      Unlike: a tensor has another shape or type; Useless: it has impossible numbers.
    """
    found, places = {}, naming.places(flat)
    flattened = {} if naming.flax else _flattened(places, flat)
    biases = {naming.spare(key, flat): key for key in naming.keys if key not in places and key.endswith(".bias")}
    for key, place in places.items():
        value = _single(key, tensors[key])
        if place in biases:
            bias = _single(biases[place], tensors[biases[place]])
            if bias.shape != value.shape:
                raise Unlike(f"{biases[place]} is {_size(bias.shape)} and should be {_size(value.shape)}")
            value = value - bias
        shape = flat[place].shape
        theirs = shape[::-1] if len(shape) == 2 else tuple(shape[i] for i in (3, 2, 0, 1)) if len(shape) == 4 else shape
        if value.shape != theirs:
            raise Unlike(f"{key} is {_size(value.shape)} and should be {_size(theirs)}")
        if place.endswith("/var") and (value.min() < 0 or not value.any()):
            raise Useless(f"{key} has negative numbers, or nothing but zeros, where variances should be")
        if place.endswith("/kernel") and value.size > 1 and value.min() == value.max():
            raise Useless(f"{key} has the same number everywhere, so nothing was ever learned in it")
        if place in flattened:
            value = value.reshape(len(value), flattened[place], -1).swapaxes(1, 2).reshape(value.shape)
        value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
        found[place] = np.ascontiguousarray(value)
    return found


def to_torch(naming: Naming, flat: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse of `to_flax`, with the names and in the order of `naming.keys`."""
    tensors, places = {}, naming.places(flat)
    flattened = _flattened(places, flat)
    for key in naming.keys:
        place = places.get(key)
        if place is None:
            mean = np.asarray(flat[naming.spare(key, flat)])
            tensors[key] = np.zeros((), np.int64) if key.endswith(_COUNTER) else np.zeros_like(mean)
            continue
        value = np.asarray(flat[place])
        value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
        if place in flattened:
            value = value.reshape(len(value), -1, flattened[place]).swapaxes(1, 2).reshape(value.shape)
        tensors[key] = np.ascontiguousarray(value)
    for key, text in naming.kept.items():
        dtype, value = json.loads(text)
        tensors[key] = np.array(value, dtype)
    return tensors


def _flattened(places, flat):
    """{kernel of a linear layer behind a flattened image: channels of the image}."""
    channels, found = 0, {}
    for place in places.values():
        shape = flat[place].shape
        if channels and len(shape) == 2 and shape[0] != channels:
            found[place] = channels
        if place.endswith("/kernel"):
            channels = shape[-1] if len(shape) == 4 else 0
    return found


def _single(key, value):
    """float32 of finite numbers."""
    if value.dtype.kind not in "fV":  # V: bfloat16
        raise Unlike(f"{key} is of type {value.dtype}, which is not one of weights")
    with np.errstate(over="ignore"):
        value = value.astype(np.float32)
    if not np.all(np.isfinite(value)):
        raise Useless(f"{key} has numbers that are not finite")
    return value


def _size(shape):
    return "x".join(map(str, shape)) or "a single number"
