"""How files name the tensors of a network, and how PyTorch's layouts differ from those of Flax.

PyTorch has filters as [out, in, h, w] and linear layers as [out, in]; here they are [h, w, in, out] and [in, out]. A
linear layer behind a flattened image counts channels first there, and last here.

Here variables are flat: {"params/conv1/kernel": array or shape}.
"""

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from ispf_jax.errors import few
from ispf_jax.models import CONVENTIONS, FAMILIES
from ispf_jax.models.adapted import calls
from ispf_jax.models.tensors import COUNTER, Unlike, size

_LEAVES = (
    *(("weight", "params/{}/kernel"), ("weight", "params/{}/scale"), ("bias", "params/{}/bias")),
    *(("running_mean", "batch_stats/{}/mean"), ("running_var", "batch_stats/{}/var")),
)
_PARTS = 3  # query, key and value
_FLAX_AXES, _TORCH_AXES = {2: (1, 0), 4: (2, 3, 1, 0)}, {2: (1, 0), 4: (3, 2, 0, 1)}


class Useless(Unlike):
    """Tensors with which no network can compute anything; the text says which."""


@dataclass(frozen=True)
class Naming:
    """How a file names the tensors of a network.

    Attributes:
      modules: {name of a PyTorch module: path of the Flax module}, in the network's order; of a tensor by itself the
        path of the variable. "path:i" is the i-th of three modules that are one here (query, key and value).
      prefix: what stands before every name, such as "module.".
      keys: the tensors of the file, in its order.
      counters: the numbers in its batch norms that nothing uses.
      flax: {key: the file's own name}, where the file has Flax's names and layout.
      kept: tensors of the file that are written as they are, as JSON.
    """

    modules: dict[str, str]
    prefix: str
    keys: tuple[str, ...]
    counters: dict[str, int] = field(default_factory=dict)
    flax: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)

    def places(self, flat: Mapping) -> dict[str, str]:
        """{tensor: variable, or "variable:i" for a third of one} in the network's order.

        Raises:
          Unlike: there are no names for some of the variables.
        """
        pairs = [
            (f"{self.prefix}{theirs}{name and '.'}{name}", leaf.format(ours.partition(":")[0]), ours.partition(":")[2])
            for theirs, ours in self.modules.items()
            for name, leaf in ([("", "{}")] if ours.startswith("params/") else _LEAVES)
        ]
        found = {key: place + (part and f":{part}") for key, place, part in pairs if place in flat}
        if unnamed := set(flat) - {place.partition(":")[0] for place in found.values()}:
            raise Unlike(f"CONVENTIONS has no names for its {few(sorted(unnamed))}")
        return found

    def spare(self, key: str) -> bool:
        """Whether a tensor is a counter of a module that is known."""
        module, _, name = key.removeprefix(self.prefix).rpartition(".")
        return name == COUNTER and module in self.modules


def find_naming(network: str, tensors: Collection[str], flat: Mapping) -> Naming:
    """How `tensors` name the tensors of a classifier.

    Raises:
      Unlike: in no known way; the text has the differences from the nearest one.
    """
    keys = tuple(tensors)
    nearest = Unlike(f"it has {few(keys)}", math.inf)
    for modules in CONVENTIONS.get(network, ()):
        anchor = f"{next(iter(modules))}.weight"
        prefixes = {key.removesuffix(anchor) for key in keys if key.endswith(anchor)}
        for prefix in sorted(prefixes, key=len)[:3]:
            naming = Naming(modules, prefix, keys)
            needed = naming.places(flat)
            missing = [key for key in needed if key not in tensors]
            unknown = [key for key in keys if key not in needed and not naming.spare(key)]
            differences = [("there is no", missing), ("it also has", unknown)]
            distance = len(missing) + len(unknown)
            if not distance:
                return naming
            if distance < nearest.distance:
                nearest = Unlike("; ".join(f"{what} {few(which)}" for what, which in differences if which), distance)
    raise nearest


def own_naming(network: str, module, image_shape, flat: Mapping) -> Naming:
    """The naming for a network that did not come from a file: of `CONVENTIONS`, of its family, or its own paths."""
    if network in CONVENTIONS:
        modules = CONVENTIONS[network][0]
    elif type(module) in FAMILIES:
        modules = FAMILIES[type(module)].names(module)
    else:
        paths = calls(module, image_shape)
        modules = {path.replace("/", "."): path for path in paths}
    return Naming(modules, "", tuple(Naming(modules, "", ()).places(flat)))


def torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that a variable has in PyTorch."""
    return tuple(shape[i] for i in _TORCH_AXES[len(shape)]) if len(shape) in _TORCH_AXES else shape


def shape_at(place: str, flat: Mapping) -> tuple[int, ...]:
    """The shape that a tensor of `Naming.places` has in PyTorch."""
    variable, _, part = place.partition(":")
    shape = flat[variable].shape
    return torch_shape((*shape[:-1], shape[-1] // _PARTS) if part else shape)


def to_flax(naming: Naming, tensors: Mapping[str, np.ndarray], flat: Mapping) -> dict[str, np.ndarray]:
    """Variables in float32, of the shapes in `flat`.

    Raises:
      Unlike: a tensor has another shape or type; Useless: it has impossible numbers.
    """
    found, places = {}, naming.places(flat)
    parts: dict[str, dict[str, np.ndarray]] = {}
    flattened = {} if naming.flax else _flattened(places, flat)
    for key, place in places.items():
        value = _single(key, tensors[key])
        theirs = shape_at(place, flat)
        if value.shape != theirs:
            raise Unlike(f"{key} is {size(value.shape)} and should be {size(theirs)}")
        if place.endswith("/var") and (value.min() < 0 or not value.any()):
            raise Useless(f"{key} has negative numbers, or nothing but zeros, where variances should be")
        if place.endswith("/kernel") and value.size > 1 and value.min() == value.max():
            raise Useless(f"{key} has the same number everywhere, so nothing was ever learned in it")
        if place in flattened:
            value = value.reshape(len(value), flattened[place], -1).swapaxes(1, 2).reshape(value.shape)
        value = value.transpose(_FLAX_AXES[value.ndim]) if value.ndim in _FLAX_AXES else value
        variable, _, part = place.partition(":")
        parts.setdefault(variable, {})[part] = value
    for variable, values in parts.items():
        found[variable] = np.ascontiguousarray(np.concatenate([values[part] for part in sorted(values)], axis=-1))
        if found[variable].shape != flat[variable].shape:
            raise Unlike(f"there are {len(values)} of the {_PARTS} tensors that make {variable}")
    return found


def to_torch(naming: Naming, flat: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse of `to_flax`, with the names and in the order of `naming.keys`."""
    tensors, places = {}, naming.places(flat)
    flattened = {} if naming.flax else _flattened(places, flat)
    for key in naming.keys:
        place = places.get(key)
        if place is None:
            tensors[key] = np.asarray(naming.counters.get(key, 0), np.int64)
            continue
        variable, _, part = place.partition(":")
        value = np.asarray(flat[variable])
        value = np.split(value, _PARTS, axis=-1)[int(part)] if part else value
        value = value.transpose(_TORCH_AXES[value.ndim]) if value.ndim in _TORCH_AXES else value
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
    for place in (place for place in places.values() if ":" not in place):
        shape = flat[place].shape
        if channels and len(shape) == 2 and shape[0] != channels and shape[0] % channels == 0:
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
