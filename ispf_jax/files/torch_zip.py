"""Files of `torch.save` since PyTorch 1.6, and of TorchScript, read without PyTorch; the former are written too.

Such a file is a zip archive: `<name>/data.pkl` is a pickle in which tensors refer to storages, and `<name>/data/<key>`
are the bytes of those. TorchScript adds programs in `<name>/code`, which are not opened.
"""

import io
import math
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np

from ispf_jax.files.pickles import Symbol, literal, load, named, tuple_of
from ispf_jax.runtime.guard import stored_zip

SUFFIXES = (".pt", ".pth")
_ROOT = "weights"  # what `<name>` is in files written here
_DIMENSIONS, _LISTED = 8, 1 << 16
_DTYPES = {
    **{"Float": np.float32, "Double": np.float64, "Half": np.float16, "BFloat16": ml_dtypes.bfloat16},
    **{"Long": np.int64, "Int": np.int32, "Short": np.int16, "Char": np.int8, "Byte": np.uint8, "Bool": np.bool_},
}
STORAGES = {f"torch {name}Storage": np.dtype(dtype) for name, dtype in _DTYPES.items()}
_NAMES = {dtype: name for name, dtype in STORAGES.items()}
STORAGES["torch.storage UntypedStorage"] = np.dtype(np.uint8)
_NEWER = (np.uint16, np.uint32, np.uint64, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2)  # without a storage type
_TYPES = {f"torch {np.dtype(dtype).name}": np.dtype(dtype) for dtype in (*_DTYPES.values(), *_NEWER)}


def recognises(content: bytes) -> bool:
    """Whether a file begins like one of this format, and does not list files of NumPy or Keras at its end."""
    return content[:4] == b"PK\x03\x04" and not re.search(rb"\.npyPK|weights\.h5", content[-_LISTED:])


def read(content: bytes) -> tuple[Any, dict[str, str]]:
    """What `torch.save` was given, with tensors as arrays that may share memory, and a header, which this format lacks.

    Raises:
      Exception: not a whole file of this format; zipfile and others raise many kinds.
    """
    archive = stored_zip(io.BytesIO(content), unread="/code/")  # of TorchScript
    names = archive.namelist()
    pickles = [name for name in names if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError("it is a zip archive without the one data.pkl that torch.save writes")
    root = pickles[0].removesuffix("data.pkl")
    if root + "byteorder" in names and archive.read(root + "byteorder") != b"little":
        raise ValueError("it was written on a big-endian machine")
    read_storage = cache(lambda key: archive.read(f"{root}data/{key}"))

    def refer(identity):
        dtype, key, count = checked_identity(identity)
        return Storage(np.frombuffer(read_storage(key), dtype, count))

    return load(archive.read(pickles[0]), FUNCTIONS, refer), {}


def checked_identity(identity) -> tuple[np.dtype, str, int]:
    """(type, key, count of numbers) from the identity of a storage in a pickle, whatever that is."""
    kind, symbol, key, _, count, *_ = identity
    if not isinstance(symbol, Symbol) or type(key) is not str or kind != "storage":
        raise ValueError("it refers to something that is no storage")
    if symbol.name not in STORAGES:
        raise ValueError(f"it has tensors of a type that is not known here, {symbol.name}")
    return STORAGES[symbol.name], key, count


def write(tensors: Mapping[str, np.ndarray], header: Mapping[str, str]) -> bytes:
    """A file that `torch.load` reads, also with `weights_only=True`: an ordered dictionary of tensors, a state_dict."""
    no_hooks = named("collections OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE
    opcodes, files = [pickle.PROTO, b"\x02", no_hooks, pickle.MARK], {}
    for key, (name, value) in enumerate(tensors.items()):
        strides = [s // value.itemsize for s in np.empty(value.shape, value.dtype).strides]
        words = literal("storage"), named(_NAMES[value.dtype]), literal(str(key)), literal("cpu"), literal(value.size)
        shape, steps = (tuple_of(map(literal, numbers)) for numbers in (value.shape, strides))
        arguments = tuple_of(words) + pickle.BINPERSID, literal(0), shape, steps, pickle.NEWFALSE, no_hooks
        opcodes += [literal(name), named(_REBUILD), tuple_of(arguments), pickle.REDUCE]
        files[f"data/{key}"] = value.tobytes()
    index = b"".join([*opcodes, pickle.SETITEMS, pickle.STOP])
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, data in {"data.pkl": index, "byteorder": b"little", **files, "version": b"3\n"}.items():
            archive.writestr(zipfile.ZipInfo(f"{_ROOT}/{name}"), data)  # no time: equal tensors give equal files
    return file.getvalue()


@dataclass(frozen=True)
class Storage:
    """One-dimensional numbers; nothing else in a pickle can stand for them."""

    numbers: np.ndarray


def _tensor(storage, offset, size, stride, *_):
    """torch._utils._rebuild_tensor_v2 with arguments of any type; refuses what does not lie inside the storage."""
    if not isinstance(storage, Storage) or type(size) is not tuple or type(stride) is not tuple:
        raise ValueError("it has a tensor that is not made of a storage")
    if len(size) != len(stride) or len(size) > _DIMENSIONS:
        raise ValueError("it has a tensor of too many dimensions")
    if any(type(n) is not int or not 0 <= n < 1 << 40 for n in (offset, *size, *stride)):
        raise ValueError("it has a tensor whose shape is not made of numbers")
    numbers, count = storage.numbers, math.prod(size)
    last = offset + sum((n - 1) * s for n, s in zip(size, stride))
    if count > len(numbers) or (count and last >= len(numbers)):
        raise ValueError("it has a tensor that reaches beyond its data")
    strides, plain = [s * numbers.itemsize for s in stride], numbers.view(f"u{numbers.itemsize}")
    return np.lib.stride_tricks.as_strided(plain[offset:], size, strides, writeable=False).view(numbers.dtype)


def _typed_tensor(storage, offset, size, stride, _grad, _hooks, dtype, *_):
    """torch._utils._rebuild_tensor_v3: offset and strides count numbers of `dtype` in a storage of bytes."""
    if not isinstance(storage, Storage) or not isinstance(dtype, Symbol) or dtype.name not in _TYPES:
        raise ValueError("it has a tensor of a type that is not known here")
    return _tensor(Storage(storage.numbers.view(_TYPES[dtype.name])), offset, size, stride)


_REBUILD = "torch._utils _rebuild_tensor_v2"
FUNCTIONS = {
    "collections OrderedDict": lambda *_: {},
    "torch Size": lambda size, *_: size,
    **dict.fromkeys((_REBUILD, "torch._utils _rebuild_tensor"), _tensor),
    "torch._utils _rebuild_tensor_v3": _typed_tensor,
    "torch._utils _rebuild_parameter": lambda data, *_: data,
    "torch._utils _rebuild_parameter_with_state": lambda data, *_: data,
}
