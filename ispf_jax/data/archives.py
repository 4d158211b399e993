"""The official archives of SVHN (MATLAB files) and CIFAR (binary rows in a tar), read without unpacking them.

Copies that were repacked or cut down are accepted: zlib's and gzip's checksums and the checks of shapes and labels here
prove what a download's checksum would.
"""

import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ispf_jax.data.dataset import ImageData
from ispf_jax.runtime.guard import read_bounded, reading, tar_entries

PIXELS = 3 * 32 * 32
_SLACK = 1 << 20  # bytes beyond the pixels: labels, names, headers
_ELEMENTS = 100  # of a MATLAB file; SVHN's have two


@dataclass(frozen=True)
class Official:
    """A data set: its title, images in the complete splits, name in tensorflow-datasets, site and archives there."""

    title: str
    classes: int
    counts: tuple[int, int]
    builder: str
    site: str
    files: tuple[str, ...]


_SVHN, _CIFAR = "http://ufldl.stanford.edu/housenumbers/", "https://www.cs.toronto.edu/~kriz/"
OFFICIAL = {
    # Without the 531,131 easier "extra" images (1.3 GB), which the method does not use.
    "svhn": Official("SVHN", 10, (73257, 26032), "svhn_cropped", _SVHN, ("train_32x32.mat", "test_32x32.mat")),
    "cifar10": Official("CIFAR-10", 10, (50000, 10000), "cifar10", _CIFAR, ("cifar-10-binary.tar.gz",)),
    "cifar100": Official("CIFAR-100", 100, (50000, 10000), "cifar100", _CIFAR, ("cifar-100-binary.tar.gz",)),
}


def read(official: Official, files: list[Path]) -> ImageData:
    """A complete data set of at most the official numbers of images from its archives, in the order of their names.

    Raises:
      UserError: a file is damaged, truncated or holds something else; the message names it.
    """
    if len(files) == 1:
        return _cifar(official, files[0])
    train, test = (_svhn_split(file, most) for file, most in zip(files, official.counts))
    return ImageData(train, test, tuple("0123456789"))


def _svhn_split(file: Path, most: int) -> tuple[np.ndarray, np.ndarray]:
    """X uint8 [32, 32, 3, N], y [N, 1] with 1..10, where 10 stands for the digit 0."""
    from scipy.io import loadmat, whosmat

    limit = (PIXELS + 8) * most + _SLACK
    with reading(file):
        content = _inflated(read_bounded(file, limit), limit)
        kinds = sorted((name, kind) for name, _, kind in whosmat(content) if name in ("X", "y"))
        if kinds not in ([("X", "uint8"), ("y", kind)] for kind in ("uint8", "double")):
            raise ValueError("it does not hold the numbers X and y")
        found = loadmat(content, variable_names=["X", "y"])
        images, y = found["X"], found["y"].reshape(-1)
        if images.dtype != np.uint8 or images.shape != (32, 32, 3, len(y)) or not 0 < len(y) <= most:
            raise ValueError(f"X has the shape {images.shape} and y {found['y'].shape}")
        if not np.isin(y, np.arange(1, 11)).all():
            raise ValueError("labels must be 1 to 10")
        return np.ascontiguousarray(images.transpose(3, 0, 1, 2)), y.astype(np.int32) % 10


def _inflated(content: bytes, limit: int) -> io.BytesIO:
    """A MATLAB 5 file with its compressed elements unpacked, which together have fewer than `limit` bytes."""
    view, at, out = memoryview(content), 128, io.BytesIO()
    out.write(view[:at])
    for _ in range(_ELEMENTS):
        if at >= len(content):
            return out
        kind, size = struct.unpack_from("<II", content, at)
        end = min(at + 8 + size, len(content))
        stream, at = (zlib.decompressobj(), at + 8) if kind == 15 else (None, at)  # miCOMPRESSED
        for start in range(at, end, _SLACK):
            part = view[start : min(start + _SLACK, end)]
            out.write(stream.decompress(part, limit - out.tell()) if stream else part)
            if out.tell() >= limit:  # for zlib, 0 bytes would be no limit
                raise ValueError("it holds more than the data set has")
        if stream and not stream.eof:
            raise ValueError("it is truncated")
        at = end
    raise ValueError(f"it holds more than {_ELEMENTS} arrays")


def _cifar(official: Official, file: Path) -> ImageData:
    """Rows of 1 (CIFAR-100: coarse, then fine) label byte(s) and red, green and blue planes."""
    fine = official.classes == 100
    label_bytes, batches = (2, ["train.bin"]) if fine else (1, [f"data_batch_{i}.bin" for i in range(1, 6)])
    test, names = ("test.bin", "fine_label_names.txt") if fine else ("test_batch.bin", "batches.meta.txt")
    row = label_bytes + PIXELS
    limit, total, members = row * official.counts[0] // len(batches), row * sum(official.counts) + _SLACK, {}

    def wanted(name):
        return name.rsplit("/", 1)[-1] in (*batches, test, names)

    def split(files):
        rows = np.frombuffer(b"".join(members[file] for file in files), np.uint8).reshape(-1, row)
        images = rows[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return np.ascontiguousarray(images), rows[:, label_bytes - 1].astype(np.int32)

    with reading(file):
        found = [
            (name.rsplit("/", 1)[-1], content)
            for name, content in tar_entries(file, wanted, limit, total)
            if wanted(name)
        ]
        members.update(found)
        if len(found) != len(batches) + 2 or len(members) != len(found):
            raise ValueError(f"it holds {', '.join(sorted(name for name, _ in found)) or 'nothing'}")
        class_names = members[names].decode().split()
        if len(class_names) != official.classes or not 0 < len(members[test]) <= row * official.counts[1]:
            raise ValueError(f"it holds {len(class_names)} class names and {len(members[test])} bytes of test images")
        return ImageData(split(batches), split([test]), class_names)
