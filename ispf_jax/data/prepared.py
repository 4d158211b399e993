"""Data that tensorflow-datasets prepared earlier, in either of its usual file formats, read without TensorFlow."""

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ispf_jax.data.catalogue import CATALOGUE
from ispf_jax.data.dataset import ArrayDataset, ImageData
from ispf_jax.data.pixels import Decoder
from ispf_jax.errors import UserError

FORMATS = ("array_record", "tfrecord")


def directory(data_dir: str) -> Path:
    """Where tensorflow-datasets keeps its data: `data_dir`, else $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    return Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def find(name: str, root: Path) -> Path | None:
    """The directory of the newest understood version of `name` under `root`, the standard builder's before our own.

    Looks at names and at `dataset_info.json` only; a directory in another file format is passed over.
    """
    for builder, major in CATALOGUE[name].prepared:
        versions = sorted((root / builder).glob(f"{major}.*.*"), key=_version, reverse=True)
        for folder in versions:
            if _file_format(folder) in FORMATS:
                return folder
    return None


def read(name: str, folder: Path) -> ImageData:
    """The splits "train" and "test" of a prepared data set.

    array_record goes through `as_data_source`. TFRecord, which tensorflow-datasets itself reads with TensorFlow only,
    is taken apart by `tfrecords`, and its examples by the data set's own features.
    Raises UserError naming the directory if files are missing or damaged.
    """
    try:
        import tensorflow_datasets as tfds

        builder = tfds.builder_from_directory(folder)
        decoder = Decoder(0, False, 3)
        file_format = _file_format(folder)
        train, test = [_split(builder, split, file_format, decoder, folder) for split in ("train", "test")]
        label = builder.info.features["label"]
        return ImageData(name, train, test, tuple(label.names))
    except UserError:
        raise
    except Exception as error:  # the readers raise RuntimeError, protobuf's errors, KeyError and others
        message = " ".join(str(error).split())[:300]
        raise UserError(
            f"The prepared data set {folder} cannot be read ({type(error).__name__}: {message}); "
            "remove this directory, or prepare it again."
        ) from error


def _split(builder, split: str, file_format: str, decoder: Decoder, folder: Path) -> ArrayDataset:
    from tensorflow_datasets.core import decode

    encoded = {"image": decode.SkipDecoding()}  # Pillow decodes: faster, and checks the sums inside the PNG
    if file_format == "array_record":
        source = builder.as_data_source(split, decoders=encoded)
        examples = (source[i] for i in range(len(source)))
    else:
        parse = builder.info.features.deserialize_example_np
        files = builder.info.splits[split].filepaths
        examples = (parse(record, decoders=encoded) for file in files for record in tfrecords(Path(file)))
    images, labels = [], []
    for example in examples:
        images.append(decoder(_bytes(example["image"]), f"{len(images)} of {folder}, split {split}"))
        labels.append(int(example["label"]))
    expected = builder.info.splits[split].num_examples
    if len(labels) != expected:
        raise EOFError(f"{len(labels)} examples in split {split}, {expected} expected")
    return ArrayDataset(np.stack(images), np.array(labels, np.int32))


def tfrecords(file: Path) -> Iterator[bytes]:
    """The records of a TFRecord file.

    Framing of one record: length (uint64, little endian), masked CRC-32C of the length (uint32), data, masked CRC-32C
    of the data (uint32). The sum of the length is checked, so a shifted or foreign file is noticed; that of the data is
    not (pure Python would take minutes): PNG images carry sums of their own.
    Raises EOFError if the file ends inside a record, ValueError if a length does not match its sum.
    """
    with file.open("rb") as stream:
        while head := stream.read(12):
            if len(head) < 12:
                raise EOFError(f"{file.name} ends inside a record")
            length, check = struct.unpack("<QI", head)
            if masked_crc32c(head[:8]) != check:
                raise ValueError(f"{file.name} is not a TFRecord file or damaged")
            data = stream.read(length + 4)
            if len(data) < length + 4:
                raise EOFError(f"{file.name} ends inside a record")
            yield data[:length]


def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _crc_table()


def masked_crc32c(data: bytes) -> int:
    """The CRC-32C (Castagnoli) of `data`, rotated and shifted as TFRecord stores it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _bytes(value) -> bytes:
    return value if isinstance(value, bytes) else value.item() if isinstance(value, np.ndarray) else bytes(value)


def _version(folder: Path) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else -1 for part in folder.name.split("."))


def _file_format(folder: Path) -> str | None:
    """ "array_record", "tfrecord" (also where nothing is said), another name, or None if there is no readable info."""
    try:
        info = json.loads((folder / "dataset_info.json").read_text())
        return info.get("fileFormat") or "tfrecord"
    except (OSError, ValueError, AttributeError):
        return None
