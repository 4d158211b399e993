"""Files of `flax.serialization.to_bytes`: a tree in MessagePack, with arrays as an extension type."""

from collections.abc import Mapping

import ml_dtypes
import msgpack
import numpy as np
from flax import serialization
from flax.traverse_util import unflatten_dict

from ispf_jax.files.flax_names import grouped

SUFFIXES = (".msgpack",)
_ITEMS, _LONGEST = 300_000, 10_000
_ARRAY, _SCALAR = 1, 3  # numbers of the extension types
_TYPES = {
    "bfloat16": ml_dtypes.bfloat16,
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8_e5m2": ml_dtypes.float8_e5m2,
}


def recognises(content: bytes) -> bool:
    """Whether a file begins like one of this format: a map whose first key is text."""
    first, key = content[:1], content[{b"\xde": 3, b"\xdf": 5}.get(content[:1], 1) :][:1]
    return (b"\x81" <= first <= b"\x8f" or first in (b"\xde", b"\xdf")) and (
        b"\xa0" <= key <= b"\xbf" or key == b"\xd9"
    )


def read(content: bytes) -> tuple[dict, dict[str, str]]:
    """Tensors by the groups of `flax_names.grouped`, and a header, which this format lacks.

    Raises:
      Exception: not a whole file of this format.
    """
    count = 0

    def counted(items):
        nonlocal count
        count += len(items)
        if count > _ITEMS:
            raise ValueError("it has more entries than a network has")
        return items

    tree = msgpack.unpackb(
        content,
        ext_hook=_array,
        list_hook=counted,
        object_pairs_hook=lambda pairs: dict(counted(pairs)),
        strict_map_key=False,
        max_array_len=_LONGEST,
        max_map_len=_LONGEST,
    )
    return grouped(tree), {}


def _array(code: int, data: bytes) -> np.ndarray:
    if code not in (_ARRAY, _SCALAR):
        raise ValueError("it has something other than arrays of numbers")
    shape, name, numbers = msgpack.unpackb(data, max_array_len=32)
    dtype = np.dtype(_TYPES.get(name) or name)
    if dtype.kind not in "biufV" or dtype.itemsize * np.prod(shape, dtype=object) != len(numbers):
        raise ValueError("it has an array whose shape or type is not that of its data")
    return np.frombuffer(numbers, dtype).reshape(shape)


def write(tensors: Mapping[str, np.ndarray], header: Mapping[str, str]) -> bytes:
    """A file that `flax.serialization.msgpack_restore` reads; names have a slash between levels."""
    return serialization.msgpack_serialize(unflatten_dict(dict(tensors), sep="/"))
