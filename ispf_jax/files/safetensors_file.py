"""Files of safetensors: the length of a header, the header in JSON, the tensors' bytes."""

import json
from collections.abc import Mapping

import ml_dtypes
import numpy as np
import safetensors

from ispf_jax.files.pickles import MAX_INDEX

SUFFIXES = (".safetensors",)
_DTYPES = {
    **{"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16},
    **{"I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8, "U8": np.uint8, "BOOL": np.bool_},
    **{"F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2},
    **{"U64": np.uint64, "U32": np.uint32, "U16": np.uint16},
}
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}


def recognises(content: bytes) -> bool:
    """Whether a file begins like one of this format."""
    return content[8:9] == b"{"


def read(content: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tensors and header.

    Raises:
      Exception: not a whole file of this format; the library raises many kinds.
    """
    end = 8 + int.from_bytes(content[:8], "little")
    if end > MAX_INDEX:
        raise ValueError("it has a header that is too long")
    entries, header = dict(safetensors.deserialize(content)), json.loads(content[8:end], object_pairs_hook=_unique)
    tensors = {
        name: np.frombuffer(entries[name]["data"], _DTYPES[entries[name]["dtype"]]).reshape(entries[name]["shape"])
        for name in header  # in this order, which `entries` has lost
        if name in entries
    }
    return tensors, header.get("__metadata__", {})


def _unique(pairs):
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError("it has two tensors or entries of the same name")
    return found


def write(tensors: Mapping[str, np.ndarray], header: Mapping[str, str]) -> bytes:
    """A file that the library safetensors reads; with equal tensors and headers an equal one."""
    offsets, data = {}, bytearray()
    for name, value in sorted(tensors.items(), key=lambda item: -item[1].itemsize):  # so that all of them are aligned
        offsets[name] = [len(data), len(data) + value.nbytes]
        data += value.tobytes()
    entries = {
        name: {"dtype": _NAMES[value.dtype], "shape": value.shape, "data_offsets": offsets[name]}
        for name, value in tensors.items()
    }
    text = json.dumps({"__metadata__": {"format": "pt"} | dict(sorted(header.items())), **entries}).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + bytes(data)
