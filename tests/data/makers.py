"""Small files in the official formats, and small image folders, made on the spot."""

import dataclasses
import hashlib
import io
import json
import os
import struct
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image
from scipy.io import savemat

from ispf_jax import data
from ispf_jax.data import archives

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


def tar_of(file: Path, members: dict[str, bytes], mode="w:gz"):
    with tarfile.open(file, mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file


def cifar(folder: Path, name="cifar10"):
    """Returns the same as `svhn`."""
    folder.mkdir(parents=True, exist_ok=True)
    fine = name == "cifar100"
    batches = ["train"] if fine else [f"data_batch_{i}" for i in range(1, 6)]
    count, classes = (200, CIFAR100_NAMES) if fine else (10, CIFAR10_NAMES)
    members, images, labels = {}, [], []
    for i, batch in enumerate([*batches, "test" if fine else "test_batch"]):
        x, y = pixels(count, 7 * i + fine), np.random.default_rng(i).permutation(np.arange(count) % len(classes))
        images.append(x), labels.append(y)
        marks = np.stack([y // 5, y], 1) if fine else y[:, None]
        rows = x.transpose(0, 3, 1, 2).reshape(count, -1)
        members[f"{name}/{batch}.bin"] = np.concatenate([marks.astype(np.uint8), rows], 1).tobytes()
    members[f"{name}/{'fine_label_names' if fine else 'batches.meta'}.txt"] = "\n".join(classes).encode() + b"\n\n"
    tar_of(folder / archives.OFFICIAL[name].files[0], members)
    return np.concatenate(images[:-1]), np.concatenate(labels[:-1]), images[-1], labels[-1]


def make(name, folder: Path):
    """The small official archives of any of the three."""
    return svhn(folder) if name == "svhn" else cifar(folder, name)


def register(monkeypatch, name, folder: Path, base: str):
    """Makes the files of `folder` the official ones, at the address `base`."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.checksums import UrlInfo

    at = dataclasses.replace(archives.OFFICIAL[name], site=base)
    monkeypatch.setitem(archives.OFFICIAL, name, at)
    contents = {base + file: (folder / file).read_bytes() for file in at.files}
    infos = {
        url: UrlInfo(len(content), hashlib.sha256(content).hexdigest(), url.rsplit("/")[-1])
        for url, content in contents.items()
    }
    monkeypatch.setattr(tfds, "builder_cls", lambda builder: SimpleNamespace(url_infos=infos))


def prepared(root, name="svhn", version="3.1.0", file_format="tfrecord", shards=(13, 11), **info):
    """A directory as tensorflow-datasets leaves it; returns images and labels by split.

    `info` is entered into dataset_info.json.
    """
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.proto import tf_example_pb2

    builder, classes = archives.OFFICIAL[name].builder, 100 if name == "cifar100" else 10
    names = {"svhn": None, "cifar10": CIFAR10_NAMES, "cifar100": CIFAR100_NAMES}[name]
    folder = root / builder / version
    folder.mkdir(parents=True)
    label = tfds.features.ClassLabel(names=names, num_classes=None if names else classes)
    features = tfds.features.FeaturesDict({"image": tfds.features.Image(shape=(32, 32, 3)), "label": label})
    features.save_config(folder), features.save_metadata(folder)
    splits, content = [], {}
    for split, lengths in (("train", shards), ("test", (7,))):
        images, labels = content[split] = pixels(sum(lengths), len(split)), np.arange(sum(lengths)) % classes
        records = []
        for image, label in zip(images, labels):
            example = tf_example_pb2.Example()
            example.features.feature["image"].bytes_list.value.append(encoded(image))
            example.features.feature["label"].int64_list.value.append(int(label))
            records.append(example.SerializeToString())
        for shard, length in enumerate(lengths):
            file = folder / f"{builder}-{split}.{file_format}-{shard:05d}-of-{len(lengths):05d}"
            some, records = records[:length], records[length:]
            if file_format == "tfrecord":  # its checksums, which nothing here reads, are left at zero
                file.write_bytes(b"".join(struct.pack("<QI", len(r), 0) + r + bytes(4) for r in some))
                continue
            writer = ArrayRecordWriter(str(file), "group_size:1")
            for record in some:
                writer.write(record)
            writer.close()
        splits.append({"name": split, "shardLengths": [str(n) for n in lengths]})
    info = {"name": builder, "version": version, "splits": splits, "fileFormat": file_format} | info
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return content


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
