"""Decoded data sets as one .npz file each, so that images are decoded once and not at every start.

A cache is a convenience: one that is damaged, stale or cannot be written costs time and a message, never an error. The
whole directory may be deleted at any moment.
"""

import hashlib
import io
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ispf_jax.data.dataset import ImageData
from ispf_jax.errors import StorageError
from ispf_jax.runtime.atomic import atomic_write_bytes
from ispf_jax.runtime.guard import regular_file, stored_zip

LAYOUT = 3  # raise it when the same files give other arrays, or are stored in another way
log = logging.getLogger(__name__)


def directory(cache_dir: str) -> Path | None:
    """`cache_dir`, else $XDG_CACHE_HOME/ispf_jax, else ~/.cache/ispf_jax; None for "off" or without a home."""
    if cache_dir == "off":
        return None
    if cache_dir:
        return Path(cache_dir).expanduser()
    home = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return None if home.startswith("~") else Path(home) / "ispf_jax"  # a user without a home has no cache


def cached(cache_dir: str, name: str, key, make: Callable[[], ImageData]) -> ImageData:
    """The result of `make()`, from the cache if it holds one for `key`.

    Args:
      name: begins the file's name, for the human who looks into the directory.
      key: anything JSON can write; everything the result depends on (file, size, time of change, options).
    """
    folder = directory(cache_dir)
    if folder is None:
        return make()
    digest = hashlib.sha256(json.dumps([LAYOUT, name, key], sort_keys=True).encode()).hexdigest()[:20]
    file = folder / f"{name}-{digest}.npz"
    data = _read(file)
    if data is None:
        data = make()
        _write(file, data)
    return data


def fingerprint(path: Path) -> list:
    """[absolute path, bytes, time of change in ns]: which differ for a later file in its place."""
    stat = path.stat()
    return [str(path.absolute()), stat.st_size, stat.st_mtime_ns]


def _read(file: Path) -> ImageData | None:
    try:
        if not os.path.lexists(file):
            return None
        with open(regular_file(file, 1 << 62), "rb") as content, stored_zip(content):
            content.seek(0)
            stored = np.load(content, allow_pickle=False)
            train, test = ((stored[f"{split}_images"], stored[f"{split}_labels"]) for split in ("train", "test"))
            return ImageData(
                train, test, stored["class_names"].tolist(), *(str(stored[key].item()) for key in ("name", "note"))
            )
    except Exception as error:  # zipfile, numpy and zlib raise many kinds, and none of them matters here
        log.warning("The cached data %s cannot be read (%s); decoding again.", file, error)
        return None


def _write(file: Path, data: ImageData) -> None:
    arrays = {"class_names": np.array(data.class_names), "name": data.name, "note": data.note}
    for split in ("train", "test"):
        arrays |= {f"{split}_{what}": getattr(getattr(data, split), what) for what in ("images", "labels")}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(buffer := io.BytesIO(), **arrays)
        atomic_write_bytes(file, buffer.getbuffer())
    except (OSError, StorageError) as error:
        log.warning("The decoded data cannot be kept in %s (%s); the next start decodes again.", file.parent, error)
