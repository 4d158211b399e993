"""Writing files so that a reader never meets half of one, and plain JSON that every parser accepts."""

import json
import math
import os
import tempfile
import threading
from pathlib import Path
from typing import Any

from ispf_jax.errors import StorageError

NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def ensure_writable(directory: str | os.PathLike) -> Path:
    """Create `directory` if need be and prove that files can be written there.

    A file is really created and removed again: permission bits alone say nothing about read-only mounts or full quotas.

    Raises:
      StorageError: if the directory cannot be created or written.
    """
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory) as probe:
            probe.write(b"x")
            probe.flush()
    except OSError as error:
        text = "make it writable, or use another work directory"
        raise StorageError(f"cannot write in the directory {directory} ({_reason(error)}); {text}") from error
    return directory


def atomic_write_bytes(path: str | os.PathLike, data: bytes) -> Path:
    """Write `data` to `path` by way of a temporary file next to it, so that the old content stays until the new is
    complete.

    Raises:
      StorageError: if the file cannot be written (no directory, no permission, disk full); the old content is
        untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise StorageError(
            f"cannot write {path} ({_reason(error)}); free space or make its directory writable"
        ) from error
    finally:
        try:
            temporary.unlink(missing_ok=True)
        except OSError:  # the directory itself is unreachable, so there is nothing to remove
            pass
    return path


def atomic_write_text(path: str | os.PathLike, text: str) -> Path:
    """`atomic_write_bytes` of UTF-8 text."""
    return atomic_write_bytes(path, text.encode("utf-8"))


def atomic_write_json(path: str | os.PathLike, value: Any) -> Path:
    """`atomic_write_text` of strictly valid, indented JSON; see `to_plain` for what `value` may contain."""
    return atomic_write_text(path, json.dumps(to_plain(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def to_plain(value: Any) -> Any:
    """Turn nested dicts, sequences, paths and numpy or JAX scalars and arrays into what strict JSON can hold.

    JSON has no NaN and no infinity: these become the strings 'nan', 'inf' and '-inf', which `schema.fit` reads as
    numbers.
    """
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return str(value) if isinstance(value, os.PathLike) else value


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
