"""The official archives of SVHN (MATLAB files) and CIFAR (binary rows in a tar), read without unpacking them.

Copies that were repacked or cut down are accepted: zlib's and gzip's checksums and the checks of shapes and labels here
prove what a download's checksum would.
"""

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np

from ispf_jax.data.dataset import ImageData
from ispf_jax.errors import UserError
from ispf_jax.runtime.guard import read_bounded, tar_entries

PIXELS = 3 * 32 * 32
_SLACK = 1 << 20  # bytes beyond the pixels: labels, names, headers


def read_archives(name: str, files: list[Path], counts: tuple[int, int]) -> ImageData:
    """Reads a complete data set.

    Args:
      name: "svhn" (files: train and test .mat), "cifar10" or "cifar100" (one .tar.gz, binary version).
      counts: the most images that the splits may hold.

    Raises:
      UserError: a file is damaged, truncated or holds something else; the message names it.
    """
    file = files[0]
    try:
        if name != "svhn":
            return _cifar(name, file, counts)
        train, test = [_svhn_split(file := path, count) for path, count in zip(files, counts)]
        return ImageData(train, test, tuple("0123456789"), name)
    except Exception as error:  # zlib, struct, scipy and numpy raise many kinds
        if type(error) is UserError:  # by the guard: names the file already
            raise
        reason = f"{type(error).__name__}: {error}"
        text = f"{file} is damaged or not the official file ({reason}); remove it and download it again."
        raise UserError(text) from error


def _svhn_split(file: Path, most: int):
    """X uint8 [32, 32, 3, N], y [N, 1] with 1..10, where 10 stands for the digit 0."""
    from scipy.io import loadmat, whosmat

    limit = (PIXELS + 8) * most + _SLACK
    content = io.BytesIO(_inflated(read_bounded(file, limit), limit))
    kinds = {name: kind for name, _, kind in whosmat(content) if name in ("X", "y")}
    if kinds.get("X") != "uint8" or kinds.get("y") not in ("uint8", "double"):
        raise ValueError("it does not hold the numbers X and y")
    with warnings.catch_warnings(action="error"):  # of two variables with one name
        found = loadmat(content, variable_names=["X", "y"])
    images, y = found["X"], found["y"].reshape(-1)
    labels = y.astype(np.int32)
    if images.shape != (32, 32, 3, len(y)) or not 0 < len(y) <= most:
        raise ValueError(f"X has the shape {images.shape} and y {found['y'].shape}")
    if (labels != y).any() or labels.min() < 1 or labels.max() > 10:
        raise ValueError("labels must be 1 to 10")
    return np.ascontiguousarray(images.transpose(3, 0, 1, 2)), labels % 10


def _inflated(content: bytes, limit: int) -> bytes:
    """A MATLAB 5 file with its compressed elements unpacked, which together may have `limit` bytes."""
    parts, at = [content[:128]], 128
    while at < len(content):
        kind, size = struct.unpack_from("<II", content, at)
        part, at = content[at : at + 8 + size], at + 8 + size
        if len(part) < 8 + size:
            raise EOFError("it ends too early")
        if kind == 15:  # miCOMPRESSED
            stream = zlib.decompressobj()
            part = stream.decompress(part[8:], limit)
            if not stream.eof:
                raise ValueError(f"it holds more than {limit:,} bytes or is truncated")
        parts.append(part)
        limit -= len(part)
    return b"".join(parts)


def _cifar(name: str, file: Path, counts: tuple[int, int]) -> ImageData:
    """Rows of 1 (CIFAR-100: coarse, then fine) label byte(s) and red, green and blue planes."""
    fine = name == "cifar100"
    label_bytes, batches = (2, ["train.bin"]) if fine else (1, [f"data_batch_{i}.bin" for i in range(1, 6)])
    test, names = ("test.bin", "fine_label_names.txt") if fine else ("test_batch.bin", "batches.meta.txt")
    members = {}
    limit = (label_bytes + PIXELS) * max(counts[0] // len(batches), counts[1])
    base = lambda path: path.rsplit("/", 1)[-1]
    for path, content in tar_entries(file, lambda path: base(path) in (*batches, test, names), limit):
        if content is not None and base(path) in members:
            raise ValueError(f"it holds {base(path)} twice")
        members[base(path)] = content
    for member in (*batches, test, names):
        if member not in members:
            raise ValueError(f"it does not hold {member}")

    def split(files):
        rows = np.frombuffer(b"".join(members[file] for file in files), np.uint8).reshape(-1, label_bytes + PIXELS)
        images = rows[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return np.ascontiguousarray(images), rows[:, label_bytes - 1].astype(np.int32)

    class_names = members[names].decode().split()
    if len(class_names) != (100 if fine else 10) or not members[test]:
        raise ValueError(f"it holds {len(class_names)} class names and {len(members[test])} bytes of test images")
    return ImageData(split(batches), split([test]), class_names, name)
