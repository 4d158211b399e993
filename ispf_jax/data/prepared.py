"""Data that tensorflow-datasets prepared earlier, in either of its usual file formats, read without TensorFlow.

A prepared directory names Python modules, which the library imports. So only records are read here, as the examples
with one image and one label that they must be, from files whose names are known.
"""

import contextlib
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from ispf_jax.data.archives import Official
from ispf_jax.data.dataset import ImageData
from ispf_jax.data.pixels import Decoder
from ispf_jax.errors import UserError
from ispf_jax.runtime.guard import read_bounded, reading, regular_file

FORMATS = ("array_record", "tfrecord")
_RECORD = 64 << 10  # bytes of an example of 32x32 pixels, at most
_SLACK, _SHARDS = 1 << 20, 1000
_MEMORY = 2 << 30  # bytes for the library that reads array_record, besides twice the file's
_PROGRAM = Path(__file__).with_name("array_records.py")


def find(official: Official, root: Path) -> Path | None:
    """The directory of the newest version 3 under `root`; one in another file format is passed over."""
    folders = (root / official.builder).glob("3.*.*")
    known = [folder for folder in folders if re.fullmatch(r"3\.\d{1,9}\.\d{1,9}", folder.name, re.ASCII)]
    for folder in sorted(known, key=lambda folder: [*map(int, folder.name.split("."))], reverse=True):
        with contextlib.suppress(UserError):
            if _info(folder)["fileFormat"] in FORMATS:
                return folder
    return None


def read(official: Official, folder: Path) -> ImageData:
    """The splits "train" and "test" of a prepared data set, of at most the official numbers of images.

    Raises:
      UserError: files are missing or damaged; the message names the directory.
    """
    with reading(f"The prepared data set {folder}"):
        info, file = _info(folder), folder / "label.labels.txt"
        plans = [_shards(info, official, folder, i) for i in range(2)]
        known = file.exists()  # of SVHN there is none
        names = read_bounded(_inside(file), _SLACK).decode().split() if known else [*map(str, range(official.classes))]
        if len(names) != official.classes:
            raise ValueError(f"{file.name} holds {len(names)} names")
        train, test = (_split(shards, info["fileFormat"]) for shards in plans)
        return ImageData(train, test, names)


def _info(folder: Path) -> dict:
    file = folder / "dataset_info.json"
    with reading(file):
        info = dict(json.loads(read_bounded(_inside(file), 16 * _SLACK)))
        return info | {"fileFormat": info.get("fileFormat") or "tfrecord"}


def _inside(file: Path) -> Path:
    if file.resolve().parent != file.parent.resolve():
        raise ValueError(f"{file.name} leads out of the directory")
    return file


def _shards(info: dict, official: Official, folder: Path, number: int) -> list[tuple[Path, int]]:
    """(file, number of examples) of every shard of a split; all of them are checked before the first is opened."""
    split, most = ("train", "test")[number], official.counts[number]
    (found,) = [part for part in info["splits"] if part["name"] == split]
    lengths = [int(length) for length in found["shardLengths"]]
    if not 0 < len(lengths) <= _SHARDS or min(lengths) < 0 or not 0 < sum(lengths) <= most:
        raise ValueError(f"split {split} has {sum(lengths)} examples in {len(lengths)} shards")
    name = f"{official.builder}-{split}.{info['fileFormat']}"
    files = [folder / f"{name}-{i:05d}-of-{len(lengths):05d}" for i in range(len(lengths))]
    return [(regular_file(_inside(file), n * _RECORD + _SLACK), n) for file, n in zip(files, lengths)]


def _split(shards: list[tuple[Path, int]], file_format: str) -> tuple[np.ndarray, np.ndarray]:
    from tensorflow_datasets.proto import tf_example_pb2

    decoder, images, labels = Decoder(32, False, 3), [], []
    for file, length in shards:
        read_so_far = len(labels)
        for record in (_array_records if file_format == "array_record" else _tfrecords)(file):
            if len(labels) == read_so_far + length:
                raise ValueError(f"{file.name} holds more than {length} examples")
            features = tf_example_pb2.Example.FromString(record).features.feature
            (encoded,), (label,) = features["image"].bytes_list.value, features["label"].int64_list.value
            images.append(decoder(encoded, f"{len(labels) - read_so_far} of {file}"))
            labels.append(label)
        if len(labels) != read_so_far + length:
            raise EOFError(f"{file.name} holds {len(labels) - read_so_far} examples, {length} were expected")
    return np.stack(images), np.array(labels)


def _array_records(file: Path) -> Iterator[bytes]:
    """The records, from a process that the library may bring down."""
    if not importlib.util.find_spec("array_record"):
        raise UserError(f"{file} needs the package array_record, which is for Linux only; use TFRecord files.")
    command = [sys.executable, "-P", str(_PROGRAM), str(file), str(_MEMORY + 2 * file.stat().st_size)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            yield from _frames(file, process.stdout)
            if process.wait():
                raise ValueError(f"{file.name} is damaged or no array_record file")
        finally:
            process.kill()


def _tfrecords(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        yield from _frames(file, stream)


def _frames(file: Path, stream: IO[bytes] | None) -> Iterator[bytes]:
    """Framing of one record: length (uint64, little endian), its checksum (4 bytes), data, their checksum (4 bytes)."""
    while stream and (head := stream.read(12)):
        length = int.from_bytes(head[:8], "little")
        if length > _RECORD:
            raise ValueError(f"{file.name} is damaged or not a TFRecord file")
        data = stream.read(length + 4)
        if len(head) < 12 or len(data) < length + 4:
            raise EOFError(f"{file.name} ends inside a record")
        yield data[:length]
