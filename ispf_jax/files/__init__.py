"""Classifiers from and for other programs: files of tensors in, files of tensors out."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors.numpy

from ispf_jax.errors import UserError
from ispf_jax.files import torch_file
from ispf_jax.files.names import CONVENTIONS, Naming, Unlike, check_complete, find_naming, own_naming, to_flax, to_torch
from ispf_jax.files.sizes import check_sizes

__all__ = ["CONVENTIONS", "FORMATS", "Given", "Naming", "encode", "own_naming", "read_classifier"]

FORMATS = ("pt", "safetensors")
_WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "weights",
)  # what a dictionary around a state_dict calls it


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


def read_classifier(path: str | Path, arch: str, shapes_at: Callable[[float], dict], width: float) -> Given:
    """Reads a state_dict, of `torch.save` or in a safetensors file, into the variables of a classifier.

    Args:
      arch: key of `models.CLASSIFIERS`.
      shapes_at: variables, or their shapes, by the network's width.
      width: what the configuration asks for.

    Raises:
      UserError: the file cannot be read, or does not hold that network; says what to change.
    """
    path = Path(path).expanduser()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"config.model.checkpoint={str(path)!r} cannot be read ({error.strerror or error}); name a file of tensors, .pt or .safetensors."
        ) from error
    tensors, format_ = _tensors(path, content, arch)
    try:
        naming = find_naming(arch, tensors)
    except Unlike as error:
        raise UserError(
            f"config.model.checkpoint={str(path)!r} does not hold {arch} under names that are known here: {error}; {_advice(arch, tensors)}"
        ) from error
    try:
        check_sizes(naming, tensors, shapes_at, width)
    except Unlike as error:
        raise UserError(f"config.model.checkpoint={str(path)!r} has {error}") from error
    try:
        variables = to_flax(naming, tensors, shapes_at(width))
    except Unlike as error:
        raise UserError(
            f"config.model.checkpoint={str(path)!r} is not {arch} as it is built here: {error} (docs/checkpoints.md has the network's definition)."
        ) from error
    return Given(variables, naming, format_, hashlib.blake2b(content, digest_size=16).hexdigest())


def encode(format_: str, naming: Naming, variables: dict, about: dict[str, str]) -> bytes:
    """The content of a file of a network's tensors; `about` is kept in the header of safetensors, the other format has no place for it."""
    try:
        check_complete(naming, variables)
    except Unlike as error:
        raise UserError(f"The network cannot be exported: {error} (docs/extending.md).") from error
    tensors = to_torch(naming, variables)
    return torch_file.write(tensors) if format_ == "pt" else safetensors.numpy.save(tensors, {"format": "pt", **about})


def _tensors(path, content, arch) -> tuple[Mapping[str, np.ndarray], str]:
    """The tensors of a file by name, and its format, which the content tells."""
    if content[:2] == b"PK":
        try:
            return _state_dict(path, torch_file.read(content), arch), "pt"
        except torch_file.Unreadable as error:
            raise UserError(f"config.model.checkpoint={str(path)!r} cannot be read: {error}; {_RESAVE}") from error
    try:
        return {name: _decoded(entry) for name, entry in safetensors.deserialize(content)}, "safetensors"
    except Exception as error:
        raise UserError(
            f"config.model.checkpoint={str(path)!r} is neither a file of torch.save (since PyTorch 1.6) nor of safetensors ({error}); {_RESAVE}"
        ) from error


def _decoded(entry):
    """A tensor of a safetensors file; bfloat16, which the library's numpy part cannot read, too."""
    kinds = {
        "F64": "f8",
        "F32": "f4",
        "F16": "f2",
        "BF16": ml_dtypes.bfloat16,
        "I64": "i8",
        "I32": "i4",
        "I16": "i2",
        "I8": "i1",
        "U8": "u1",
        "BOOL": "?",
    }
    return np.frombuffer(entry["data"], np.dtype(kinds[entry["dtype"]])).reshape(entry["shape"])


_RESAVE = "in PyTorch, load the model and write it with torch.save(model.state_dict(), 'model.pt')."


def _state_dict(path, saved: Any, arch) -> dict[str, np.ndarray]:
    """The dictionary of tensors in what was saved: itself, or one that it holds, of several one that is named like `arch`."""
    if not isinstance(saved, dict):
        raise UserError(
            f"config.model.checkpoint={str(path)!r} holds an object of {_class(saved)} and not a state_dict; {_RESAVE}"
        )
    if _is_state_dict(saved):
        return saved
    found = {key: value for key, value in saved.items() if isinstance(value, dict) and _is_state_dict(value)}
    found = {key: tensors for key, tensors in found.items() if _is_named_like(arch, tensors)} or found
    name = next(
        (name for name in (*_WRAPPERS, *found) if name in found and (name in _WRAPPERS or len(found) == 1)), None
    )
    if name is None:
        objects = [f"{key}: {_class(value)}" for key, value in saved.items() if isinstance(value, torch_file.Opaque)]
        held = (
            f"several ({', '.join(map(str, found))})"
            if found
            else f"objects ({', '.join(objects)})"
            if objects
            else "none"
        )
        raise UserError(f"config.model.checkpoint={str(path)!r} holds {held} where one state_dict is wanted; {_RESAVE}")
    return found[name]


def _is_state_dict(candidate):
    return bool(candidate) and all(
        isinstance(key, str) and isinstance(value, np.ndarray) for key, value in candidate.items()
    )


def _is_named_like(arch, tensors):
    try:
        find_naming(arch, tensors)
    except Unlike:
        return False
    return True


def _class(value):
    return f"{type(value).__module__}.{type(value).__name__}"


def _advice(arch, tensors):
    for other in CONVENTIONS:
        if other != arch and _is_named_like(other, tensors):
            return f"it looks like {other}: set config.model.name={other!r}."
    return "docs/checkpoints.md lists the names; rename the tensors of the state_dict to them."
