"""Files of `torch.save` before PyTorch 1.6, read without PyTorch.

Such a file is a row of pickles: a magic number, a version, facts about the machine, the object, in which tensors refer
to storages, and the list of their keys. Then follow the storages in that order: how many numbers, and their bytes.
"""

import io
from typing import Any

import numpy as np

from ispf_jax.files.pickles import MAX_INDEX, load
from ispf_jax.files.torch_zip import FUNCTIONS, Storage, checked_identity

_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001
_BEGIN = b"\x8a\x0a" + _MAGIC.to_bytes(10, "little")


def recognises(content: bytes) -> bool:
    """Whether a file begins like one of this format."""
    return content[:1] == b"\x80" and content[2:14] == _BEGIN


def read(content: bytes) -> tuple[Any, dict[str, str]]:
    """What `torch.save` was given, with tensors as arrays that may share memory, and a header, which this format lacks.

    Raises:
      Exception: not a whole file of this format.
    """
    types: dict[str, np.dtype] = {}
    storages: dict[str, Storage] = {}

    def note(identity):
        if identity[0] != "module":
            dtype, key, _ = checked_identity(identity)
            if types.setdefault(key, dtype) != dtype:
                raise ValueError("it has a storage of two types")

    def refer(identity):
        if identity[0] == "module":  # a class, followed by its source code
            return identity[1]
        view = identity[5] if len(identity) > 5 else None
        numbers = storages[identity[2]].numbers
        if view is None:
            return Storage(numbers)
        _, offset, count = view
        if any(type(n) is not int for n in (offset, count)) or not 0 <= offset <= offset + count <= len(numbers):
            raise ValueError("it has a view that reaches beyond its data")
        return Storage(numbers[offset : offset + count])

    def following(at, functions, refer):
        stream = io.BytesIO(content[at : at + MAX_INDEX])
        return load(stream, functions, refer), at + stream.tell()

    at = 0
    for wanted in (_MAGIC, _VERSION):
        found, at = following(at, {}, note)
        if type(found) is not int or found != wanted:
            raise ValueError("it is of a version of torch.save that is not known here")
    machine, start = following(at, {}, note)
    if not machine.get("little_endian", True):
        raise ValueError("it was written on a big-endian machine")
    _, at = following(start, {}, note)
    keys, at = following(at, {}, note)
    for key in keys:
        count = int.from_bytes(content[at : at + 8], "little")
        end = at + 8 + count * types[key].itemsize
        if end > len(content) or key in storages:
            raise ValueError("it ends before its data does, or has data twice")
        storages[key] = Storage(np.frombuffer(content, types[key], count, at + 8))
        at = end
    if at != len(content):
        raise ValueError("there is more after the end of its data")
    return following(start, FUNCTIONS, refer)[0], {}
