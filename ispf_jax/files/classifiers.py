"""A classifier from a file, and a file from a classifier."""

import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any, TypedDict, Unpack

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from ispf_jax.classifier import Classifier
from ispf_jax.errors import ArgumentError
from ispf_jax.files import flax_msgpack, jax_export, model_folder, orbax_directory, safetensors_file, torch_zip
from ispf_jax.files.check import compare
from ispf_jax.files.detect import Weights, read_weights
from ispf_jax.files.fit import Fit, find, fit, is_known, shapes
from ispf_jax.files.flax_names import to_flax_names
from ispf_jax.files.ledger import forgotten, history_of
from ispf_jax.files.naming import Naming, Unlike, Useless, own_naming, to_flax, to_torch
from ispf_jax.models import CLASSIFIERS, from_layout, layout_of, named
from ispf_jax.runtime.atomic import atomic_write_bytes
from ispf_jax.runtime.provenance import weights_digest

_logger = logging.getLogger(__name__)

FORMATS = {
    "pt": torch_zip,
    "safetensors": safetensors_file,
    "msgpack": flax_msgpack,
    "orbax": orbax_directory,
    "huggingface": model_folder,
    "jax": jax_export,
}
"""Formats that are written; all but the last are read too."""


class Given(TypedDict, total=False):
    """What a caller of `load` knows of a classifier; all of it may be left out, or None."""

    network: str | None
    image_shape: Sequence[int] | None
    width: float | None
    layout: Mapping[str, Any] | None
    mean: float | Sequence[float] | None
    std: float | Sequence[float] | None
    class_names: Sequence[str] | None


def load(
    path: str | Path,
    *,
    weights: str | None = None,
    check: str | Path | None = None,
    dtype: str = "float32",
    **given: Unpack[Given],
) -> Classifier:
    """Reads a classifier from a file of PyTorch, safetensors or Flax, or a directory of Orbax or Hugging Face.

    What is not given is taken from what the file says beside its tensors, or found in them. What of a file is not used
    is logged. A ledger next to the file that ends with these weights says what they have forgotten already.

    Args:
      weights: which of several networks in the file, by the path of its keys, such as "ema".
      check: a file with images and logits that the program the weights come from computed; see `check.compare`.
      dtype: in which the network computes; variables are float32.
      network: key of `models.CLASSIFIERS`; one of the families of this package stands for its whole family, whose
        layout is read from the tensors.
      image_shape: (H, W, C).
      width: of a network of your own, whose layout is not read from the tensors.
      layout: fields of the module that tensors do not show, such as {"strides": [1, 2], "pool": 0}.
      mean, std: normalisation for pixels in [0, 1]; 0.5 if nothing says otherwise.
      class_names: one per output, in their order.

    Raises:
      ArgumentError: the file cannot be read, an argument does not fit what it holds, or it computes other logits.
    """
    if unknown := given.keys() - Given.__annotations__.keys():
        raise TypeError(f"load() got an unexpected keyword argument {min(unknown)!r}")
    known = {name: value for name, value in given.items() if value is not None}
    network = given.get("network")
    found = read_weights(path, lambda tensors: is_known(tensors, network), weights)
    for level, text in found.notes:
        _log_once(level, str(path), text)
    said = found.settings | settings_in(path, found.header)
    _compare(path, known, said)
    try:
        classifier = _made(path, found, {"mean": 0.5, "std": 0.5} | said | known, dtype)
    except ArgumentError as error:
        if error.argument in known or error.argument not in said:
            raise
        raise ArgumentError("path", f"={str(path)!r} says of itself what is not right: {error}") from error
    entries = history_of(Path(os.path.expanduser(path)).parent, weights_digest(classifier.variables))
    classifier.origin |= {"ledger": entries, "forgotten": forgotten(entries)}
    classifier.origin["said"] = {name: said[name] for name in ("mean", "std", "class_names") if name in said}
    if check is not None:
        compare(classifier, check)
    return classifier


def _made(path, weights: Weights, settings: dict[str, Any], dtype: str) -> Classifier:
    """The classifier, from what the file says and what is given together."""
    shape = tuple(settings.get("image_shape", ()))
    if len(shape) != 3 or min(shape) < 1 or math.prod(shape) > 1 << 24:
        text = f"={shape} must be (height, width, channels) of at most 2**24 numbers; {path} does not say it."
        raise ArgumentError("image_shape", text)
    width, layout = settings.pop("width", 1.0), settings.pop("layout", None)
    found = _fit(path, settings.pop("network", None), weights.tensors, shape, width, layout)
    found = replace(found, naming=replace(found.naming, flax=weights.flax, kept=weights.kept))
    if found.channels != shape[2]:
        raise ArgumentError("image_shape", f"={shape} must have {found.channels} channel(s), as in {path}.")
    if found.note:
        _log_once(logging.WARNING, str(path), f"{found.note}; where that is wrong, give layout.")
    module = found.module.clone(dtype=jnp.dtype(dtype)) if hasattr(found.module, "dtype") else found.module
    try:
        variables = unflatten_dict(to_flax(found.naming, weights.tensors, shapes(module, shape)), sep="/")
    except Useless as error:
        text = f"={str(path)!r} holds no network that works: {error}; save it from a time when it did."
        raise ArgumentError("path", text) from error
    except Unlike as error:
        text = f"={str(path)!r} is not {found.network} as it is built here: {error}"
        raise ArgumentError("path", f"{text} (docs/checkpoints.md has the network's definition).") from error
    origin = {"path": str(path), "format": weights.format, "naming": asdict(found.naming), "digest": weights.digest}
    return Classifier(module, {"batch_stats": {}} | variables, **settings, origin=origin)


@cache
def _log_once(level: int, path: str, note: str):
    """A run reads its file several times."""
    _logger.log(level, "%s: %s", path, note)


def save(
    classifier: Classifier, path: str | Path, format: str | None = None, header: Mapping[str, str] | None = None
) -> Path:
    """Writes the weights for other programs, with the names of the file that they came from, or else the network's own.

    Args:
      format: a key of `FORMATS`; None: by the suffix.
      header: more entries for the header of safetensors, which says how to feed the network; other formats have none.

    Raises:
      ArgumentError: the format is not known, or there are no names for all tensors.
      StorageError: the file cannot be written.
    """
    path = Path(os.path.expanduser(path))
    if format is None:
        format = next((name for name, f in FORMATS.items() if path.suffix in f.SUFFIXES), None)
        if format is None:
            raise ArgumentError("path", f"={str(path)!r} must end in {_SUFFIXES}, or format be given.")
    if format not in FORMATS:
        raise ArgumentError("format", f"={format!r} must be one of {', '.join(FORMATS)}.")
    if format == "jax":
        return atomic_write_bytes(path, jax_export.write(classifier))
    module = classifier.module
    facts = {name: getattr(classifier, name) for name in ("class_names", "mean", "std", "image_shape")}
    facts = {name: json.dumps(value) for name, value in (facts | {"layout": layout_of(module)}).items()}
    facts |= {"model": named(module), **(header or {})}
    tensors = _tensors(classifier, format)
    if format in ("orbax", "huggingface"):
        return FORMATS[format].write(path, tensors, facts)
    return atomic_write_bytes(path, FORMATS[format].write(tensors, facts))


def _tensors(classifier: Classifier, format: str) -> dict[str, np.ndarray]:
    """The tensors to be written, with the names and the layout that the format has, or the file they came from had."""
    origin, in_flax = classifier.origin, format in ("msgpack", "orbax")
    flat: dict[str, Any] = flatten_dict(dict(classifier.variables), sep="/")
    naming = Naming(**origin["naming"]) if origin.get("naming") else None
    if in_flax and not (naming and naming.flax):
        return {name: np.asarray(value) for name, value in flat.items()}
    try:
        naming = naming or own_naming(named(classifier.module), classifier.module, classifier.image_shape, flat)
        if naming.flax and (in_flax or format == origin.get("format")):
            return to_flax_names(to_torch(naming, flat), naming.flax)
        return to_torch(replace(naming, flax={}), flat)
    except Unlike as error:
        raise ArgumentError("classifier", f" cannot be written: {error} (docs/extending.md).") from error


_SUFFIXES = ", ".join(suffix for format_ in FORMATS.values() for suffix in format_.SUFFIXES)


_KINDS = {"class_names": (str,), "mean": (int, float), "std": (int, float), "image_shape": (int,)}


def settings_in(path, header: Mapping[str, str]) -> dict[str, Any]:
    """The arguments of `load` in a header that `save` wrote; empty for other headers.

    Raises:
      ArgumentError: (path) it has all entries of such a header, but not what `save` writes.
    """
    if not {"model", *_KINDS} <= header.keys():
        return {}
    said: dict[str, Any] = {"network": header["model"]} if header["model"] in CLASSIFIERS else {}
    for name, kinds in _KINDS.items():
        try:
            value = json.loads(header[name])
        except (ValueError, RecursionError):
            value = None
        if type(value) is not list or not all(type(v) in kinds for v in value):
            text = f"={str(path)!r} has a header whose {name} is {header[name][:200]!r}, which is none; write it again."
            raise ArgumentError("path", text)
        said[name] = tuple(value)
    return said | _layout_in(path, header)


def _layout_in(path, header) -> dict[str, Any]:
    """The layout of the network in a header; none in those of networks without one."""
    try:
        layout = json.loads(header.get("layout", "{}"))
        return {"layout": layout_of(from_layout(layout))} if layout else {}
    except (ValueError, RecursionError, AttributeError, TypeError) as error:
        raise ArgumentError("path", f"={str(path)!r} has a header whose layout is none; write it again.") from error


def _compare(path, given, said):
    """Refuses classes in another order than the file's; warns of another normalisation."""
    names, order = (list(source.get("class_names", [])) for source in (given, said))
    if names != order and sorted(names) == sorted(order):
        raise ArgumentError("class_names", f"={names} has another order than {path}, which says {order}.")
    for name in {"mean", "std"} & given.keys() & said.keys():
        one, other = np.ravel(given[name]), np.ravel(said[name])
        if len({1, len(one), len(other)}) > 2 or not np.allclose(one, other, atol=1e-3):
            _logger.warning("%s=%s is used, but the header of %s says %s.", name, given[name], path, said[name])


def _fit(path, network, tensors, image_shape, width, layout) -> Fit:
    """What of a network, or of any where it is None, is in tensors."""
    if network and network not in CLASSIFIERS:
        raise ArgumentError("network", f"={network!r} must be one of {', '.join(CLASSIFIERS)}.")
    try:
        return fit(network, tensors, image_shape, width, layout) if network else find(tensors, image_shape, layout)
    except Unlike as error:
        if not network:
            text = f"={str(path)!r} holds no network that is known here: {error}"
            raise ArgumentError("path", f"{text}; docs/extending.md says how to add a network.") from error
        other = next((name for name in CLASSIFIERS if is_known(tensors, name)), None)
        advice = f"it looks like {other}: give that." if other else "docs/extending.md says how to add a network."
        raise ArgumentError("network", f"={network!r} is not what {path} holds: {error}; {advice}") from error
