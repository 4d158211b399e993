"""The official archives of SVHN (MATLAB files) and CIFAR (python pickles or binary rows in a tar), read straight.

They are not unpacked, and pickles are read without running anything that they name. What the checksums of a download
prove is proved here by the formats' own sums (zlib, gzip) and by checking shapes and labels, so copies that somebody
repacked or cut down are accepted as well.
"""

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np

from ispf_jax.data.dataset import ArrayDataset, ImageData
from ispf_jax.data.whole_tar import whole_members
from ispf_jax.errors import UserError

PIXELS = 3 * 32 * 32
_BATCHES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5")


class _Format(Exception):
    """The file is readable but does not hold what it should."""


def read(name: str, files: list[Path]) -> ImageData:
    """Reads a complete data set from its archive(s).

    name: "svhn" (files: train and test .mat), "cifar10" or "cifar100" (one tar, python or binary version, told apart
    by its members).
    Raises UserError naming the file if it is damaged, truncated or holds something else.
    """
    file = files[0]
    try:
        if name == "svhn":
            train, test = [_svhn_split(file := path) for path in files]
            return ImageData(name, train, test, tuple("0123456789"))
        return _cifar(name, file)
    except Exception as error:  # tarfile, gzip, zlib, pickle, scipy and numpy each have their own ways to say it
        raise UserError(
            f"{file} is damaged or not the official file ({type(error).__name__}: {error}); download it again."
        ) from error


def _svhn_split(file: Path) -> ArrayDataset:
    """X uint8 [32, 32, 3, N], y [N, 1] with 1..10, where 10 stands for the digit 0."""
    from scipy.io import loadmat

    content = loadmat(file)
    if "X" not in content or "y" not in content:
        raise _Format("the variables X and y are missing")
    labels = content["y"].reshape(-1).astype(np.int32)
    if len(labels) == 0 or labels.min() < 1 or labels.max() > 10:
        raise _Format("labels must be 1 to 10")
    return ArrayDataset(np.ascontiguousarray(content["X"].transpose(3, 0, 1, 2)), labels % 10)


def _cifar(name: str, file: Path) -> ImageData:
    fine = name == "cifar100"
    train_names = ("train",) if fine else _BATCHES
    test_name = "test" if fine else "test_batch"
    meta = "meta" if fine else "batches.meta"
    meta_text = "fine_label_names.txt" if fine else "batches.meta.txt"
    binary = tuple(f"{member}.bin" for member in (*train_names, test_name))
    members = _members(file, {*train_names, test_name, meta, meta_text, *binary})
    if meta in members:
        labels_key = "fine_labels" if fine else "labels"
        parts = [_pickled_batch(members, member, labels_key) for member in (*train_names, test_name)]
        listed = _unpickle(_need(members, meta))["fine_label_names" if fine else "label_names"]
        names = [item.decode() if isinstance(item, bytes) else item for item in listed]
    else:
        parts = [_binary_batch(_need(members, member), 2 if fine else 1) for member in binary]
        names = _need(members, meta_text).decode().split()
    if len(names) != (100 if fine else 10):
        raise _Format(f"{len(names)} class names")
    train = ArrayDataset(np.concatenate([p.images for p in parts[:-1]]), np.concatenate([p.labels for p in parts[:-1]]))
    return ImageData(name, train, parts[-1], tuple(names))


def _members(file: Path, wanted: set[str]) -> dict[str, bytes]:
    """The wanted members of a tar by their last path component."""
    with tarfile.open(file) as tar:
        return {
            base: tar.extractfile(member).read()
            for member in whole_members(tar)
            if member.isfile() and (base := member.name.rsplit("/", 1)[-1]) in wanted
        }


def _need(members: dict[str, bytes], name: str) -> bytes:
    if name not in members:
        raise _Format(f"the member {name} is missing")
    return members[name]


def _planes(rows: np.ndarray) -> np.ndarray:
    """Rows of red, green and blue planes, uint8 [N, 3072], as images [N, 32, 32, 3]."""
    return np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def _binary_batch(content: bytes, label_bytes: int) -> ArrayDataset:
    """Rows of 1 (CIFAR-100: coarse, then fine) label byte(s) and 3072 pixels."""
    rows = np.frombuffer(content, np.uint8).reshape(-1, label_bytes + PIXELS)
    return ArrayDataset(_planes(rows[:, label_bytes:]), rows[:, label_bytes - 1].astype(np.int32))


def _pickled_batch(members: dict[str, bytes], member: str, labels_key: str) -> ArrayDataset:
    batch = _unpickle(_need(members, member))
    data = batch["data"]
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != PIXELS:
        raise _Format(f"{member} holds no uint8 [N, {PIXELS}] array")
    return ArrayDataset(_planes(data), np.array(batch[labels_key], np.int32))


def _latin1(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes in old protocols; the only encoding it uses."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"the pickle asks for the encoding {encoding}, which is not allowed")
    return text.encode("latin1")


class _ArraysOnly(pickle.Unpickler):
    """Refuses every global except those that numpy arrays need: an archive from anywhere must not run code."""

    ALLOWED = {
        ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _latin1,
    }

    def find_class(self, module, name):
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"the pickle asks for {module}.{name}, which is not allowed")
        return self.ALLOWED[module, name]


def _unpickle(content: bytes) -> dict:
    """A dict of plain containers and arrays. Python 2 wrote the official files: their strings arrive as bytes."""
    found = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
    if not isinstance(found, dict):
        raise _Format(f"a pickle holds a {type(found).__name__}, not a dict")
    return {key.decode() if isinstance(key, bytes) else key: value for key, value in found.items()}
