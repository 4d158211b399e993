"""Classifiers from and for other programs: files of tensors in, files of tensors out."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors.numpy

from ispf_jax.errors import UserError
from ispf_jax.interop import torch_file
from ispf_jax.interop.names import CONVENTIONS, Naming, Unlike, find_naming, own_naming, to_flax, to_torch

__all__ = ["FORMATS", "Given", "Naming", "encode", "own_naming", "read_classifier"]

FORMATS = ("pt", "safetensors")
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "weights")  # what a dictionary around a state_dict calls it


@dataclass(frozen=True)
class Given:
    """A classifier from a file.

    Attributes:
      variables: {"params", "batch_stats"}, float32.
      naming: how the file names its tensors, so that others can be written like it.
      format: of `FORMATS`.
      digest: of the file's content.
    """

    variables: dict
    naming: Naming
    format: str
    digest: str


def read_classifier(path: str | Path, arch: str, template: dict, width: float) -> Given:
    """Reads a state_dict, of `torch.save` or in a safetensors file, into the variables of a classifier.

    Args:
      arch: key of `models.CLASSIFIERS`.
      template: variables of the shapes that the configuration asks for.
      width: what the configuration's is; named in errors.

    Raises:
      UserError: the file cannot be read, or does not hold that network; says what to change.
    """
    path = Path(path).expanduser()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"config.model.checkpoint={str(path)!r} cannot be read ({error.strerror or error}); name a file of tensors, .pt or .safetensors.") from error
    tensors, format_ = _tensors(path, content)
    try:
        naming = find_naming(arch, tensors)
    except Unlike as error:
        raise UserError(f"config.model.checkpoint={str(path)!r} does not hold {arch} under names that are known here: {error}; {_advice(arch, tensors)}") from error
    _check_sizes(path, naming, tensors, template, width)
    try:
        variables = to_flax(naming, tensors, template)
    except Unlike as error:
        raise UserError(
            f"config.model.checkpoint={str(path)!r} is not {arch} as it is built here: {error} (docs/checkpoints.md has the network's definition)."
        ) from error
    return Given(variables, naming, format_, hashlib.blake2b(content, digest_size=16).hexdigest())


def encode(format_: str, naming: Naming, variables: dict, about: dict[str, str]) -> bytes:
    """The content of a file of a network's tensors; `about` is kept in the header of safetensors, the other format has no place for it."""
    tensors = to_torch(naming, variables)
    return torch_file.write(tensors) if format_ == "pt" else safetensors.numpy.save(tensors, {"format": "pt", **about})


def _tensors(path, content) -> tuple[Mapping[str, np.ndarray], str]:
    """The tensors of a file by name, and its format, which the content tells."""
    if content[:2] == b"PK":
        try:
            return _state_dict(path, torch_file.read(content)), "pt"
        except torch_file.Unreadable as error:
            raise UserError(f"config.model.checkpoint={str(path)!r} cannot be read: {error}; {_RESAVE}") from error
    try:
        return {name: _decoded(entry) for name, entry in safetensors.deserialize(content)}, "safetensors"
    except Exception as error:  # noqa: BLE001 - its error class, and those of types that numpy lacks
        raise UserError(
            f"config.model.checkpoint={str(path)!r} is neither a file of torch.save (since PyTorch 1.6) nor of safetensors ({error}); {_RESAVE}"
        ) from error


def _decoded(entry):
    """A tensor of a safetensors file; bfloat16, which the library's numpy part cannot read, too."""
    kinds = {"F64": "f8", "F32": "f4", "F16": "f2", "BF16": ml_dtypes.bfloat16, "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1", "U8": "u1", "BOOL": "?"}
    return np.frombuffer(entry["data"], np.dtype(kinds[entry["dtype"]])).reshape(entry["shape"])


_RESAVE = "in PyTorch, load the model and write it with torch.save(model.state_dict(), 'model.pt')."


def _state_dict(path, saved: Any) -> dict[str, np.ndarray]:
    """The dictionary of tensors in what was saved: itself, or one that it holds."""
    if not isinstance(saved, dict):
        raise UserError(f"config.model.checkpoint={str(path)!r} holds an object of {_class(saved)} and not a state_dict; {_RESAVE}")
    if tensors := _only_tensors(saved):
        return tensors
    found = {key: tensors for key, value in saved.items() if isinstance(value, dict) and (tensors := _only_tensors(value))}
    name = next((name for name in (*_WRAPPERS, *found) if name in found and (name in _WRAPPERS or len(found) == 1)), None)
    if name is None:
        held = f"several ({', '.join(map(str, found))})" if found else "none"
        raise UserError(f"config.model.checkpoint={str(path)!r} holds {held} where one state_dict is wanted; {_RESAVE}")
    return found[name]


def _only_tensors(candidate):
    """`candidate` if it is a state_dict, whose values are tensors, else None."""
    named = all(isinstance(key, str) and isinstance(value, np.ndarray) for key, value in candidate.items())
    return candidate if candidate and named else None


def _class(value):
    return f"{type(value).__module__}.{type(value).__name__}"


def _advice(arch, tensors):
    for other in CONVENTIONS:
        if other != arch:
            try:
                find_naming(other, tensors)
            except Unlike:
                continue
            return f"it looks like {other}: set config.model.name={other!r}."
    return "docs/checkpoints.md lists the names; rename the tensors of the state_dict to them."


def _check_sizes(path, naming, tensors, template, width):
    """Classes, channels and width, which are keys of the configuration; UserError if they do not fit."""
    modules = {ours: f"{naming.prefix}{theirs}.weight" for theirs, ours in naming.modules.items()}
    first = next(iter(naming.modules.values()))
    if tensors[modules[first]].ndim != 4 or tensors[modules["classifier"]].ndim != 2:
        return  # other kinds of layers, which are told by their shapes
    (filters, channels), outputs = tensors[modules[first]].shape[:2], tensors[modules["classifier"]].shape[0]
    wanted, classes = template["params"][first]["kernel"].shape, template["params"]["classifier"]["bias"].shape[0]
    told = f"config.model.checkpoint={str(path)!r} has"
    if outputs != classes:
        raise UserError(f"{told} {outputs} classes and the images of config.data have {classes}; they must be the same, in the same order (without images: set config.data.classes={outputs}).")
    if channels != wanted[2]:
        raise UserError(f"{told} a network for {channels} channel(s) and the images have {wanted[2]}; set config.data.channels={channels}.")
    if filters != wanted[3]:
        fitting = width * filters / wanted[3]
        raise UserError(f"{told} {filters} filters in its first layer, which config.model.width={width} makes {wanted[3]}; set config.model.width={fitting:g}, or near it where filters were rounded.")
