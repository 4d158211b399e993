"""What a file is, by its first bytes, and which of the things in it are the tensors of a network, by their names."""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ispf_jax.errors import ArgumentError, UserError, few
from ispf_jax.files import safetensors_file, torch_zip
from ispf_jax.files.pickles import Symbol
from ispf_jax.runtime.guard import read_bounded, reading

MAX_FILE = 2 << 30  # bytes; ResNet18 with the state of its optimiser has 0.14 GiB
MAX_TENSORS, MAX_NETWORKS = 10_000, 50

FORMATS = {"pt": torch_zip, "safetensors": safetensors_file}
"""Modules with SUFFIXES, recognises(content), read(content) -> (tensors, header), write(tensors, header) -> content."""

_OTHERS = {
    b"version https://git-lfs": "is a pointer of Git LFS and not the file itself; fetch it with git lfs pull.",
    b"<": "is a web page and not a file of weights; download it again.",
    b"\x89HDF": "is an HDF5 file, as Keras writes it; only files of PyTorch and safetensors are read.",
    b"\x80": "is a pickle, perhaps of torch.save before PyTorch 1.6",
}
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "weights")  # usual names of a state_dict in a checkpoint
_RESAVE = "; in PyTorch, load the model and write it with torch.save(model.state_dict(), 'model.pt')."


@dataclass(frozen=True)
class Weights:
    """The content of a file: tensors by name, format (a key of `FORMATS`), header, and digest of all its bytes."""

    tensors: dict[str, np.ndarray]
    format: str
    header: dict[str, str]
    digest: str


def read_weights(path: str | Path, is_known: Callable[[Mapping], bool] = lambda tensors: False) -> Weights:
    """Reads the one state_dict in a file.

    Args:
      is_known: whether tensors have the names of a wanted network; decides between several state_dicts.

    Raises:
      ArgumentError: (path) it cannot be read, or holds none or several.
    """
    path = Path(os.path.expanduser(path))
    try:
        content = read_bounded(path, MAX_FILE)
        name = next((name for name, format_ in FORMATS.items() if format_.recognises(content)), None)
        if name is None:
            start = next(
                (text for start, text in _OTHERS.items() if content.startswith(start)), "is of no known format"
            )
            raise UserError(f"{path} {start if content else 'is empty; make or fetch it again.'}")
        with reading(path):
            saved, header = FORMATS[name].read(content)
            tensors = _state_dict(path, saved, is_known)
            size = sum(tensor.nbytes for tensor in tensors.values())
            if len(tensors) > MAX_TENSORS or size > 2 * len(content):  # several tensors may share their data
                raise ValueError("it has more, or larger, tensors than it has data for")
    except (UserError, OSError, RuntimeError) as error:  # an unknown user in the path
        advice = "" if str(error).endswith(".") else _RESAVE
        raise ArgumentError("path", f": {error}{advice}") from error
    return Weights(tensors, name, header, hashlib.blake2b(content, digest_size=16).hexdigest())


def _state_dict(path, saved, is_known):
    """The dictionary of tensors in what was saved: itself, or the one that it holds; of several the known one."""
    if _is_state_dict(saved):
        return saved
    held = saved if isinstance(saved, dict) else {"it": saved}
    once = {id(value): key for key, value in reversed(held.items())}  # a small file may name one of them very often
    found = {key: held[key] for key in reversed(once.values()) if _is_state_dict(held[key])}
    if len(found) <= MAX_NETWORKS:
        found = {key: tensors for key, tensors in found.items() if is_known(tensors)} or found
    chosen = [key for key in _WRAPPERS if key in found] or (list(found) if len(found) == 1 else [])
    if chosen:
        return found[chosen[0]]
    objects = [f"{key}: {value.name.replace(' ', '.')}" for key, value in held.items() if isinstance(value, Symbol)]
    what = f"several ({few(found)})" if found else f"objects ({few(objects)})" if objects else "none"
    raise UserError(f"{path} holds {what} where one state_dict is wanted")


def _is_state_dict(saved):
    return isinstance(saved, dict) and bool(saved) and all(isinstance(value, np.ndarray) for value in saved.values())
