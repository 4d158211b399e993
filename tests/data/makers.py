"""Small files in the official formats, made on the spot."""

import hashlib
import io
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from ispf_jax.data import catalogue

CIFAR10_NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
CIFAR100_NAMES = [f"fine_{i:02d}" for i in range(100)]


def pixels(count, seed, size=32, channels=3):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, channels), dtype=np.uint8)


def svhn(folder: Path, train=24, test=12):
    """Returns (train images, train labels, test images, test labels); the digit 0 is written as 10."""
    folder.mkdir(parents=True, exist_ok=True)
    out = []
    for split, count in (("train", train), ("test", test)):
        images, labels = pixels(count, len(split)), np.arange(count) % 10
        stored = {"X": images.transpose(1, 2, 3, 0), "y": np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]}
        savemat(folder / f"{split}_32x32.mat", stored, do_compression=True)
        out += [images, labels]
    return out


def rows(images):
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def tar_of(file: Path, members: dict[str, bytes], mode="w:gz"):
    with tarfile.open(file, mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file


def cifar(folder: Path, name="cifar10", binary=False, names_as_bytes=True):
    """Returns the same as `svhn`. Python version as Python 2 wrote it: protocol 2, strings as bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    fine = name == "cifar100"
    batches = ["train"] if fine else [f"data_batch_{i}" for i in range(1, 6)]
    count = 200 if fine else 10
    number = "100" if fine else "10"
    classes = CIFAR100_NAMES if fine else CIFAR10_NAMES
    key = (lambda text: text.encode()) if names_as_bytes else (lambda text: text)
    members, images, labels = {}, [], []
    root = f"cifar-{number}-binary" if binary and fine else f"cifar-{number}-batches-bin" if binary else "cifar-10-batches-py"
    for i, batch in enumerate([*batches, "test" if fine else "test_batch"]):
        x, y = pixels(count, 7 * i + fine), np.random.default_rng(i).permutation(np.arange(count) % len(classes))
        images.append(x), labels.append(y)
        if binary:
            marks = np.stack([y // 5, y], 1) if fine else y[:, None]
            members[f"{root}/{batch}.bin"] = np.concatenate([marks.astype(np.uint8), rows(x)], 1).tobytes()
        else:
            content = {key("data"): rows(x), key("fine_labels" if fine else "labels"): y.tolist()}
            members[f"{root}/{batch}"] = pickle.dumps(content, protocol=2)
    listed = "\n".join(classes).encode() + b"\n\n"
    if binary:
        members[f"{root}/{'fine_label_names' if fine else 'batches.meta'}.txt"] = listed
    else:
        meta = {key("fine_label_names" if fine else "label_names"): [key(c) for c in classes]}
        members[f"{root}/{'meta' if fine else 'batches.meta'}"] = pickle.dumps(meta, protocol=2)
    tar_of(folder / f"cifar-{number}-{'binary' if binary else 'python'}.tar.gz", members)
    return np.concatenate(images[:-1]), np.concatenate(labels[:-1]), images[-1], labels[-1]


def register(monkeypatch, name, folder: Path, base: str):
    """Puts the files of `folder` into the catalogue as the official ones, at the address `base`."""
    import dataclasses

    official = catalogue.CATALOGUE[name]
    downloads = []
    for old in official.downloads:
        content = (folder / old.filename).read_bytes()
        downloads.append(catalogue.Download(base + old.filename, len(content), hashlib.sha256(content).hexdigest()))
    monkeypatch.setitem(catalogue.CATALOGUE, name, dataclasses.replace(official, downloads=tuple(downloads)))


def crc32c(data: bytes) -> int:
    """Bit by bit, independent of the table in the package."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 * (crc & 1))
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> int:
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def framed(record: bytes) -> bytes:
    head = struct.pack("<Q", len(record))
    return head + struct.pack("<I", masked(head)) + record + struct.pack("<I", masked(record))


def encoded(array, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(array[:, :, 0] if array.shape[-1] == 1 else array).save(buffer, kind)
    return buffer.getvalue()


def same_examples(split, images, labels):
    """Whether a split holds exactly these examples, in any order."""
    have = sorted((image.tobytes(), int(label)) for image, label in zip(split.images, split.labels))
    want = sorted((image.tobytes(), int(label)) for image, label in zip(images, labels))
    return have == want
