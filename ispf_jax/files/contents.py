"""Which of the things in a file are the tensors of a network: one state_dict, under PyTorch's names and in its layout.

Programs save networks with much around them. Here an average of the weights, a wrapper, a mask of pruning or a layer
that normalises is recognised by its name; what is left out is noted.
"""

import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ispf_jax.errors import UserError, few
from ispf_jax.files.flax_names import TRAINING, is_flax, to_torch_names
from ispf_jax.files.pickles import Symbol

MAX_NETWORKS = 50  # that are looked at
_DEPTH, _MODULES = 30, 20_000
_USUAL = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "module", "params")
"""Usual paths of the network in a checkpoint."""

_NORMALISER = re.compile(r"(.*?)(mean|std)")
Known = Callable[[Mapping[str, np.ndarray]], bool]


@dataclass(frozen=True)
class Contents:
    """The tensors of a network, and what became of everything else.

    Attributes:
      tensors: under PyTorch's names, in its layout.
      flax: {name: the file's own name}, where it has Flax's names and layout.
      kept: tensors that normalise the images, as JSON, to be written again as they are.
      settings: the mean and std in them.
      notes: (level of logging, what was done or left out).
    """

    tensors: dict[str, np.ndarray]
    flax: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    notes: tuple[tuple[int, str], ...] = ()

    def noted(self, text: str, level: int = logging.WARNING) -> "Contents":
        return replace(self, notes=(*self.notes, (level, text)))


def network_in(saved: Any, is_known: Known, wanted: str | None = None) -> Contents:
    """The network in what a file holds.

    Args:
      is_known: whether tensors have the names of a network; decides between several.
      wanted: the path of keys to the network, as in "ema.state_dict", or the prefix of its tensors' names.

    Raises:
      UserError: there is none, or several, or not the one wanted; the text continues a sentence about the file.
    """
    groups, objects = _groups(saved)
    if wanted is not None:
        return _wanted(groups, wanted.strip("."))
    training = [path for path in groups if TRAINING.match(path)]
    found = _known({path: tensors for path, tensors in groups.items() if path not in training}, is_known)
    chosen = next((path for path in _USUAL if path in found), next(iter(found)) if len(found) == 1 else None)
    if chosen is None:
        what = f"objects ({few(objects)})" if objects else "none"
        what = f"several ({few(path or 'at the top' for path in found)})" if found else what
        raise UserError(f"holds {what} where one state_dict is wanted{'; weights= chooses one.' if found else ''}")
    contents = found.pop(chosen)
    if found:
        contents = contents.noted(f"{chosen!r} is taken; it also holds {few(found)}, which weights= chooses")
    return contents.noted(f"not needed: {few(training)}", logging.INFO) if training else contents


def _known(groups, is_known) -> dict[str, Contents]:
    """Those groups, or parts of groups with a common prefix, that are a network; else all groups."""
    if len(groups) > MAX_NETWORKS:
        return {path: Contents(tensors) for path, tensors in groups.items()}
    cleaned = {path: clean(tensors) for path, tensors in groups.items()}
    found = {path: contents for path, contents in cleaned.items() if is_known(contents.tensors)}
    for path, contents in () if found else cleaned.items():
        parts = {prefix: _under(contents, prefix) for prefix in _prefixes(contents.tensors)}
        known = [prefix for prefix, part in parts.items() if is_known(part.tensors)]
        outer = [prefix for prefix in known if not any(prefix.startswith(other + ".") for other in known)]
        found |= {prefix if len(outer) > 1 or not path else path: parts[prefix] for prefix in outer}
    return found or cleaned


def _wanted(groups, wanted) -> Contents:
    """The group of that path, or the part of a group under that prefix."""
    if wanted in groups:
        return clean(groups[wanted])
    for path, tensors in groups.items():
        start = f"{path}." if path and wanted.startswith(f"{path}.") else ""
        prefix = wanted.removeprefix(start)
        if any(name.startswith(f"{prefix}.") for name in tensors):
            return _under(clean(tensors), prefix)
    raise UserError(
        f"has no network at weights={wanted!r}; it has {few([path or 'one at the top' for path in groups])}."
    )


def _prefixes(tensors) -> list[str]:
    """Beginnings of several names, up to four levels, those of most tensors first."""
    counts: dict[str, int] = {}
    for name in tensors:
        parts = name.split(".")
        for end in range(1, min(len(parts) - 1, 5)):
            prefix = ".".join(parts[:end])
            counts[prefix] = counts.get(prefix, 0) + 1
    return sorted((prefix for prefix, count in counts.items() if count > 1), key=lambda p: -counts[p])[:10]


def _under(contents: Contents, prefix: str) -> Contents:
    inside = {name: value for name, value in contents.tensors.items() if name.startswith(f"{prefix}.")}
    left = [name for name in contents.tensors if name not in inside]
    part, counts = replace(contents, tensors=inside), Counter(name.partition(".")[0] for name in left)
    parts = [f"{name}.* ({count} tensors)" for name, count in counts.items()]
    return part.noted(f"left out, as no part of the network {prefix}: {few(parts, 10)}") if left else part


def clean(tensors: Mapping[str, Any]) -> Contents:
    """A state_dict without what is known to be no layer of a network."""
    objects = [f"{name} ({value})" for name, value in tensors.items() if isinstance(value, Symbol)]
    plain = {name: value for name, value in tensors.items() if not isinstance(value, Symbol)}
    if is_flax(plain):
        numbers = [name for name, value in plain.items() if not value.ndim]
        renamed, names = to_torch_names({name: value for name, value in plain.items() if value.ndim})
        found = Contents(renamed, names)
        return found.noted(f"not needed: {few(numbers)}", logging.INFO) if numbers else found
    pruned = [name[:-5] for name in plain if name.endswith("_orig") and f"{name[:-5]}_mask" in plain]
    dense = {f"{name}_orig": (name, plain[f"{name}_orig"] * plain[f"{name}_mask"]) for name in pruned}
    left = {"n_averaged", *(f"{name}_mask" for name in pruned)}  # the first of torch.optim.swa_utils
    found = Contents(dict(dense.get(name, (name, value)) for name, value in plain.items() if name not in left))
    if "n_averaged" in plain:
        found = found.noted("not needed: n_averaged", logging.INFO)
    if objects:
        found = found.noted(f"left out, as no plain tensors: {few(objects)}")
    if pruned:
        found = found.noted(f"pruned: masks are applied, and {few(pruned)} written without them")
    return _without_normaliser(found)


def _without_normaliser(found: Contents) -> Contents:
    """Takes a pair of buffers such as normalize.mean and normalize.std for the normalisation."""
    pairs: dict[str, dict[str, str]] = {}
    for name, value in found.tensors.items():
        parts = _NORMALISER.fullmatch(name)
        if parts and value.dtype.kind == "f" and value.size in (1, 3) and value.ndim in (1, 3, 4):
            pairs.setdefault(parts[1], {})[parts[2]] = name
    names = next((pair for pair in pairs.values() if len(pair) == 2), {})
    values = {which: found.tensors[name].astype(np.float64).ravel() for which, name in names.items()}
    if not names or not all(np.all((value >= 0) & (value <= 255)) for value in values.values()):
        return found
    scale = 255.0 if max(value.max() for value in values.values()) > 1 else 1.0  # for pixels up to 255
    kept = {name: json.dumps([found.tensors[name].dtype.name, found.tensors[name].tolist()]) for name in names.values()}
    rest = {name: value for name, value in found.tensors.items() if name not in kept}
    settings = {which: tuple((value / scale).tolist()) for which, value in values.items()}
    return replace(found, tensors=rest, kept=kept, settings=settings)


def _groups(saved) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """{path of keys: tensors by name} of everything in a file that holds tensors, and the objects that hold none."""
    groups: dict[str, dict[str, Any]] = {}
    objects, queue, seen = [], [((), saved)], set()
    for path, value in queue:
        where = ".".join(path)
        if id(value) in seen or len(path) > _DEPTH:
            continue
        seen.add(id(value))
        if isinstance(value, Symbol):
            inside = dict(_module(value, "", [0]))
            groups |= {where: inside} if inside else {}
            objects += [] if inside else [f"{where or 'it'}: {value}"]
            continue
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        named = [(str(key), item) for key, item in items]
        own = {key: item for key, item in named if isinstance(item, np.ndarray)}
        if own and isinstance(value, dict):  # with objects that stand where tensors could
            groups[where] = {
                key: item for key, item in named if key in own or ("." in key and isinstance(item, Symbol))
            }
        queue += [((*path, key), item) for key, item in named if key not in own]
    return groups, objects


def _module(symbol: Symbol, prefix: str, count: list[int]) -> Iterator[tuple[str, np.ndarray]]:
    """Names and tensors in a module of PyTorch or TorchScript that was pickled whole, in PyTorch's order."""
    count[0] += 1
    state = symbol.state
    if not isinstance(state, dict) or count[0] > _MODULES or prefix.count(".") > _DEPTH:
        return
    parts = [state[part] for part in ("_parameters", "_buffers", "_modules") if isinstance(state.get(part), dict)]
    for part in parts or [state]:
        yield from ((prefix + name, value) for name, value in part.items() if isinstance(value, np.ndarray))
        for name, value in part.items():
            if isinstance(value, Symbol):
                yield from _module(value, f"{prefix}{name}.", count)
