"""What a file or directory is, by its first bytes and the names in it, and the network that it holds.

This is the one place that knows all formats: those that are read, and others that are refused with what helps there.
"""

import hashlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ispf_jax.errors import ArgumentError, UserError
from ispf_jax.files import flax_msgpack, model_folder, orbax_directory, safetensors_file, torch_legacy, torch_zip
from ispf_jax.files.contents import Known, network_in
from ispf_jax.runtime.guard import directory_digest, read_bounded, reading

MAX_FILE = 2 << 30  # bytes; ResNet18 with the state of its optimiser has 0.14 GiB
MAX_TENSORS = 10_000

_READERS = {"pt": (torch_zip, torch_legacy), "safetensors": (safetensors_file,), "msgpack": (flax_msgpack,)}
"""Modules with recognises(content) and read(content) -> (what was saved, header), by format."""

_TORCH = "; in PyTorch, write the state_dict by itself: torch.save(model.state_dict(), 'model.pt')."
_ARRAYS = "write it as {name: array} with safetensors.numpy.save_file, named as docs/checkpoints.md says."
_OTHERS = {  # first bytes: what it is, and what helps
    rb"version https://git-lfs": "is a pointer of Git LFS and not the file itself; fetch it with git lfs pull.",
    rb"(\xef\xbb\xbf)?\s*<": "is a web page and not a file of weights; download it again.",
    rb"\x89HDF": f"is an HDF5 file, as Keras writes it; read its arrays with h5py and {_ARRAYS}",
    rb"GGUF": f"is a GGUF file, of language models; from the file it was made from, {_ARRAYS}",
    rb"\x93NUMPY": f"is one array of NumPy and no network; {_ARRAYS}",
    rb"\x08[\x03-\x1e][\x12\x1a\x22\x28\x32\x3a\x42]": "is an ONNX model; in Python, read the arrays with "
    f"onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer, and {_ARRAYS}",
    rb"\x08\x01\x12|\x0a.{1,4}\x0a": "is a graph of TensorFlow (SavedModel); in TensorFlow, take the arrays from the "
    f"variables of tf.saved_model.load(directory) and {_ARRAYS}",
    rb".{4}TFL3": f"is a TensorFlow Lite model; from the model it was made from, {_ARRAYS}",
    rb"\x1f\x8b|BZh|\xfd7zXZ|.{257}ustar|7z\xbc\xaf|Rar!": "is an archive; unpack it and give the weights in it.",
    rb"\{": "is JSON and no file of weights; give the file of weights next to it.",
    rb"\x80[\x00-\x05]": f"is a pickle of another program than torch.save, and pickles can run code; there, {_ARRAYS}",
    rb"PK\x03\x04[^.]*\.npy": f"is an archive of NumPy; {_ARRAYS}",
    rb"PK\x03\x04": f"is a model of Keras; in Keras, take the arrays from model.get_weights() and {_ARRAYS}",
}


@dataclass(frozen=True)
class Weights:
    """The content of a file.

    Attributes:
      tensors: by name, under PyTorch's names and in its layout.
      format: key of `FORMATS`.
      header: of safetensors.
      settings: arguments of `load` that the file says otherwise, as a folder with config.json does.
      digest: of all bytes.
      flax, kept, notes: see `contents.Contents`.
    """

    tensors: dict[str, np.ndarray]
    format: str
    header: dict[str, str]
    digest: str
    settings: dict = field(default_factory=dict)
    flax: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    notes: tuple[tuple[int, str], ...] = ()


def read_weights(path: str | Path, is_known: Known = lambda tensors: False, weights: str | None = None) -> Weights:
    """Reads the one network in a file, or in a directory of Orbax or Hugging Face.

    Args:
      is_known: whether tensors have the names of a wanted network; decides between several.
      weights: which of several, by the path of its keys in the file.

    Raises:
      ArgumentError: (path) it cannot be read, or holds none or several.
    """
    path = Path(os.path.expanduser(path))
    try:
        settings, folder = {}, None
        if path.is_dir() and (inner := model_folder.weights_in(path)):
            settings, folder, path = model_folder.settings_in(path), path, inner
        read = _directory if path.is_dir() else _file
        format, size, digest, saved, header = read(path)
        with reading(path):
            found = network_in(saved, is_known, weights)
            if len(found.tensors) > MAX_TENSORS or sum(t.nbytes for t in found.tensors.values()) > 2 * size:
                raise ValueError("it has more, or larger, tensors than it has data for")  # which they may share
    except (UserError, OSError, RuntimeError) as error:  # an unknown user in the path
        text = str(error) if str(path) in str(error) else f"{path} {error}"
        advice = "" if text.endswith(".") else _TORCH
        raise ArgumentError("path", f": {text}{advice}") from error
    rest = found.settings | settings, found.flax, found.kept, found.notes
    return Weights(found.tensors, "huggingface" if folder else format, header, digest, *rest)


def _file(path):
    content = read_bounded(path, MAX_FILE)
    digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    known = [(name, reader) for name, readers in _READERS.items() for reader in readers if reader.recognises(content)]
    if not known:
        raise UserError(f"{path} {_other(content)}")
    (name, reader), *_ = known
    with reading(path):
        return name, len(content), digest, *reader.read(content)


def _directory(path):
    item = orbax_directory.item_in(path)
    if item is None:
        what = next((text for name, text in _DIRECTORIES.items() if (path / name).exists()), "holds no weights")
        raise UserError(f"{path} is a directory that {what}; give the file of weights.")
    size, digest = directory_digest(item, MAX_FILE)
    with reading(path):
        return "orbax", size, digest, *orbax_directory.read(item, size)


_DIRECTORIES = {
    "saved_model.pb": f"TensorFlow saved; in TensorFlow, take the arrays from tf.saved_model.load(...) and {_ARRAYS}"
}


def _other(content: bytes) -> str:
    """What a file of none of the formats is, and what to do."""
    if not content:
        return "is empty; make or fetch it again."
    kinds = (text for start, text in _OTHERS.items() if re.match(start, content[:512], re.DOTALL))
    return next(kinds, "is of no known format.")
