"""Small files in the official formats, and small image folders, made on the spot."""

import hashlib
import io
import os
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from ispf_jax import data
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


def _py2(value) -> bytes:
    """A value in the opcodes Python 2's cPickle used for the official files: str is SHORT_BINSTRING or BINSTRING."""
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + struct.pack("<i", len(value)) + value
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, list):
        return b"](" + b"".join(map(_py2, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(_py2(k) + _py2(v) for k, v in value.items()) + b"u"
    start = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    shape = b"".join(map(_py2, value.shape)) + b"\x86"
    return start + b"(K\x01" + shape + dtype + b"\x89" + _py2(value.tobytes()) + b"tb"


def dumps(value, py2=True) -> bytes:
    """A pickle as Python 2 or as Python 3 writes it."""
    return b"\x80\x02" + _py2(value) + b"." if py2 else pickle.dumps(value, protocol=2)


def cifar(folder: Path, name="cifar10", binary=False, py2=True):
    """Returns the same as `svhn`. py2: the pickles are as in the official python version."""
    folder.mkdir(parents=True, exist_ok=True)
    fine = name == "cifar100"
    batches = ["train"] if fine else [f"data_batch_{i}" for i in range(1, 6)]
    count = 200 if fine else 10
    number = "100" if fine else "10"
    classes = CIFAR100_NAMES if fine else CIFAR10_NAMES
    members, images, labels = {}, [], []
    python_root, binary_root = (
        ("cifar-100-python", "cifar-100-binary") if fine else ("cifar-10-batches-py", "cifar-10-batches-bin")
    )
    root = binary_root if binary else python_root
    for i, batch in enumerate([*batches, "test" if fine else "test_batch"]):
        x, y = pixels(count, 7 * i + fine), np.random.default_rng(i).permutation(np.arange(count) % len(classes))
        images.append(x), labels.append(y)
        if binary:
            marks = np.stack([y // 5, y], 1) if fine else y[:, None]
            members[f"{root}/{batch}.bin"] = np.concatenate([marks.astype(np.uint8), rows(x)], 1).tobytes()
        else:
            content = {"data": rows(x), "fine_labels" if fine else "labels": y.tolist()}
            members[f"{root}/{batch}"] = dumps(content, py2)
    listed = "\n".join(classes).encode() + b"\n\n"
    if binary:
        members[f"{root}/{'fine_label_names' if fine else 'batches.meta'}.txt"] = listed
    else:
        meta = {"fine_label_names" if fine else "label_names": classes}
        members[f"{root}/{'meta' if fine else 'batches.meta'}"] = dumps(meta, py2)
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


def make_folder(root, size=8, channels=3, test="test", classes=("cat", "dog", "ant"), each=2):
    for split, seed in (("train", 0), (test, 1)):
        for label in classes:
            folder = root / split / label
            folder.mkdir(parents=True)
            for i, image in enumerate(pixels(each, seed, size, channels)):
                (folder / f"{i}.png").write_bytes(encoded(image))
    return root


def load(path, **options):
    return data.load("image_folder", path=str(path), **options)


def archive(root, file, prefix=""):
    mode = {"tar": "w", "gz": "w:gz", "tgz": "w:gz", "xz": "w:xz", "bz2": "w:bz2"}[file.name.rsplit(".", 1)[1]]
    with tarfile.open(file, mode) as tar:
        for split in sorted(os.listdir(root), reverse=True):
            tar.add(root / split, arcname=prefix + split)
    return file
