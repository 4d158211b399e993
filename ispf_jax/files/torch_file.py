"""PyTorch's files (`torch.save` since PyTorch 1.6), read and written without PyTorch.

Such a file is a zip archive: `<name>/data.pkl` is a pickle in which tensors are references to storages, `<name>/data/<key>` are their raw
bytes. The pickle may name any function of any module; here only the few that tensors need are known, and everything else becomes an
inert object, so a file cannot run anything.
"""

import io
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from typing import Any

import ml_dtypes
import numpy as np

_DTYPES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
_STORAGES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
_ROOT = "weights"  # what `<name>` is in files written here


class Unreadable(Exception):
    """Not a whole file of PyTorch; the text says what is wrong."""


def read(data: bytes) -> Any:
    """What `torch.save` was given, with tensors as numpy arrays and objects of unknown classes as `Opaque` ones.

    Raises:
      Unreadable: `data` is no such file, or a damaged one.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise Unreadable("a zip archive, but without the data.pkl that torch.save writes")
            root = pickles[0].removesuffix("data.pkl")
            if root + "byteorder" in archive.namelist() and archive.read(root + "byteorder") != b"little":
                raise Unreadable("written on a big-endian machine")
            return _plain(
                _Unpickler(io.BytesIO(archive.read(pickles[0])), lambda key: archive.read(f"{root}data/{key}")).load()
            )
    except Unreadable:
        raise
    except Exception as error:
        raise Unreadable(f"damaged ({type(error).__name__}: {error})") from error


def write(tensors: dict[str, np.ndarray]) -> bytes:
    """A file that `torch.load` reads, also with `weights_only=True`: an ordered dictionary of tensors, a state_dict."""
    storages = {f"data/{key}": np.ascontiguousarray(value).tobytes() for key, value in enumerate(tensors.values())}
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        for name, data in {
            "data.pkl": _pickled(tensors),
            "byteorder": b"little",
            **storages,
            "version": b"3\n",
        }.items():
            archive.writestr(
                zipfile.ZipInfo(f"{_ROOT}/{name}"), data
            )  # without the time, so that the same tensors give the same file
    return content.getvalue()


class Opaque:
    """An object of a class that is not known here: takes everything, does nothing."""

    def __new__(cls, *args, **kwargs):
        return object.__new__(cls)

    def __init__(self, *args, **kwargs):
        pass

    def __call__(self, *args, **kwargs):
        return self

    def __setstate__(self, state):
        pass

    def __setitem__(self, key, value):
        pass

    def append(self, value):
        pass

    def extend(self, values):
        pass


class _Unpickler(pickle.Unpickler):
    def __init__(self, file, read_storage):
        super().__init__(file, encoding="utf-8")
        self._read_storage = read_storage

    def find_class(self, module, name):
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        return _KNOWN.get((module, name)) or type(name, (Opaque,), {"__module__": module})

    def persistent_load(self, reference):
        kind, dtype, key, _, count = reference
        if kind != "storage" or issubclass(dtype, Opaque):
            raise Unreadable(f"with tensors of a type that is not known here ({getattr(dtype, '__name__', kind)})")
        return _Storage(np.frombuffer(self._read_storage(key), dtype, count))


class _Storage:
    """The numbers of a storage; nothing else in a pickle may stand for one."""

    __slots__ = ("numbers",)

    def __init__(self, numbers):
        self.numbers = numbers


def _tensor(storage, offset, size, stride, *_):
    """torch._utils._rebuild_tensor_v2; refuses to look outside the storage, and what is larger than it."""
    if (
        type(storage) is not _Storage
        or type(size) is not tuple
        or type(stride) is not tuple
        or len(size) != len(stride)
    ):
        raise Unreadable("with a tensor that is not made of a storage")
    storage = storage.numbers
    if any(type(n) is not int or n < 0 for n in (offset, *size, *stride)) or math.prod(size) > len(storage):
        raise Unreadable("with a tensor that reaches beyond its data")
    if math.prod(size) and offset + sum((n - 1) * s for n, s in zip(size, stride)) >= len(storage):
        raise Unreadable("with a tensor that reaches beyond its data")
    steps = [s * storage.itemsize for s in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, steps, writeable=False).copy()


class _Call:
    """A function that a pickle can call and cannot change."""

    __slots__ = ("_function",)

    def __init__(self, function):
        object.__setattr__(self, "_function", function)

    def __call__(self, *args):
        return self._function(*args)

    def __setattr__(self, name, value):
        raise Unreadable("with a pickle that changes the program")

    def __setstate__(self, state):
        raise Unreadable("with a pickle that changes the program")


_KNOWN = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): _Call(tuple),
    ("torch._utils", "_rebuild_tensor_v2"): _Call(_tensor),
    ("torch._utils", "_rebuild_parameter"): _Call(lambda data, *_: data),
    ("torch._utils", "_rebuild_parameter_with_state"): _Call(lambda data, *_: data),
}


def _plain(value):
    """Ordered dictionaries, which a pickle may have given attributes, as plain ones."""
    return {key: _plain(item) for key, item in dict.items(value)} if isinstance(value, dict) else value


def _pickled(tensors):
    """The opcodes of a pickle, protocol 2: Python's own writer would have to import PyTorch to name its functions."""
    ordered = _named("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE
    entries = b"".join(
        _text(name) + _reference(key, value, ordered) for key, (name, value) in enumerate(tensors.items())
    )
    return pickle.PROTO + b"\x02" + ordered + pickle.MARK + entries + pickle.SETITEMS + pickle.STOP


def _reference(key, value, no_hooks):
    """A call of torch._utils._rebuild_tensor_v2 with (storage, offset, size, stride, requires_grad, hooks)."""
    strides = [s // value.itemsize for s in np.empty(value.shape, value.dtype).strides]
    storage = (
        _tuple(
            _text("storage"),
            _named("torch", _STORAGES[value.dtype]),
            _text(str(key)),
            _text("cpu"),
            _number(value.size),
        )
        + pickle.BINPERSID
    )
    size, stride = (_tuple(*map(_number, numbers)) for numbers in (value.shape, strides))
    arguments = _tuple(storage, _number(0), size, stride, pickle.NEWFALSE, no_hooks)
    return _named("torch._utils", "_rebuild_tensor_v2") + arguments + pickle.REDUCE


def _tuple(*items):
    return pickle.MARK + b"".join(items) + pickle.TUPLE


def _named(module, name):
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def _text(text):
    encoded = text.encode()
    return pickle.BINUNICODE + struct.pack("<I", len(encoded)) + encoded


def _number(n):
    return pickle.BININT + struct.pack("<i", n)
