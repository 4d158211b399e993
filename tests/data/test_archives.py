"""The official archives of SVHN and CIFAR, read from a manual directory; small ones made on the spot."""

import os
import pickle
import tarfile

import numpy as np
import pytest
from scipy.io import savemat

from ispf_jax import data
from ispf_jax.data import cache
from ispf_jax.errors import UserError
from tests.data import makers


def load(name, folder, **options):
    return data.load(name, manual_dir=str(folder), download=False, **options)


def test_svhn(tmp_path):
    train_x, train_y, test_x, test_y = makers.svhn(tmp_path / "m")
    found = load("svhn", tmp_path / "m")
    assert makers.same_examples(found.train, train_x, train_y) and makers.same_examples(found.test, test_x, test_y)
    assert found.class_names == tuple("0123456789") and found.image_shape == (32, 32, 3)
    assert found.note == "24 + 12 images, not the complete SVHN (73257 + 26032)"


@pytest.mark.parametrize("name, classes", [("cifar10", makers.CIFAR10_NAMES), ("cifar100", makers.CIFAR100_NAMES)])
@pytest.mark.parametrize("binary", [False, True])
def test_cifar(tmp_path, name, classes, binary):
    train_x, train_y, test_x, test_y = makers.cifar(tmp_path / "m", name, binary)
    found = load(name, tmp_path / "m")
    assert makers.same_examples(found.train, train_x, train_y) and makers.same_examples(found.test, test_x, test_y)
    assert found.class_names == tuple(classes)


def test_versions_agree_to_the_byte(tmp_path):
    """Python and binary version hold the same examples, so the arrays, and with them every seeded split, are equal."""
    makers.cifar(tmp_path / "p", py2=False)
    makers.cifar(tmp_path / "b", binary=True)
    one, two = load("cifar10", tmp_path / "p"), load("cifar10", tmp_path / "b")
    assert (one.train.images == two.train.images).all() and (one.train.labels == two.train.labels).all()
    assert (one.test.images == two.test.images).all()


def test_size_channels_subset(tmp_path):
    makers.svhn(tmp_path / "m")
    assert load("svhn", tmp_path / "m", image_size=16, resize=True, channels=1).image_shape == (16, 16, 1)
    assert np.bincount(load("svhn", tmp_path / "m", max_train=10).train.labels).tolist() == [1] * 10
    with pytest.raises(UserError, match="data.image_size is 16, but SVHN has 32x32"):
        load("svhn", tmp_path / "m", image_size=16)


def test_cache_serves_until_the_archive_changes(tmp_path, monkeypatch):
    makers.svhn(tmp_path / "m")
    reads, genuine = [], cache._write
    monkeypatch.setattr(cache, "_write", lambda *args: (reads.append(1), genuine(*args)))
    first, again = load("svhn", tmp_path / "m"), load("svhn", tmp_path / "m")
    assert len(reads) == 1 and (first.train.images == again.train.images).all() and first.note == again.note
    makers.svhn(tmp_path / "m", train=30)
    assert len(load("svhn", tmp_path / "m").train) == 30


def test_manual_dir_must_exist(tmp_path):
    with pytest.raises(
        UserError, match="data.manual_dir .*none is not a directory.*cifar-10-python.tar.gz or cifar-10-binary"
    ):
        load("cifar10", tmp_path / "none")


def test_incomplete_manual_dir(tmp_path):
    makers.svhn(tmp_path / "m")
    (tmp_path / "m" / "test_32x32.mat").unlink()
    with pytest.raises(UserError, match="data.download is off: put train_32x32.mat and test_32x32.mat"):
        load("svhn", tmp_path / "m")


@pytest.mark.parametrize("keep", [0.0, 0.02, 0.5, 0.95])
def test_truncated_mat(tmp_path, keep):
    makers.svhn(tmp_path / "m")
    file = tmp_path / "m" / "test_32x32.mat"
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * keep)])
    with pytest.raises(UserError, match="test_32x32.mat is damaged or not the official file"):
        load("svhn", tmp_path / "m")


@pytest.mark.parametrize(
    "content",
    [
        {"X": np.zeros((32, 32, 3, 2), np.uint8)},
        {"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.array([[11], [1]])},
        {"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.array([[1], [1], [1]])},
        {"X": np.zeros((32, 32, 3, 2)), "y": np.array([[1], [2]])},
        {"X": np.zeros((32, 2), np.uint8), "y": np.array([[1], [2]])},
        {"X": np.zeros((16, 16, 3, 2), np.uint8), "y": np.array([[1], [2]])},
    ],
)
def test_foreign_mat(tmp_path, content):
    makers.svhn(tmp_path / "m")
    savemat(tmp_path / "m" / "train_32x32.mat", content)
    with pytest.raises(UserError, match="damaged or not the official file"):
        load("svhn", tmp_path / "m")


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("keep", [0.0, 0.1, 0.7, 0.99])
def test_truncated_cifar(tmp_path, binary, keep):
    makers.cifar(tmp_path / "m", binary=binary)
    (file,) = (tmp_path / "m").iterdir()
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * keep)])
    with pytest.raises(UserError, match=f"{file.name} is damaged or not the official file"):
        load("cifar10", tmp_path / "m")


@pytest.mark.parametrize("binary", [False, True])
def test_no_flipped_byte_of_cifar_passes_for_other_images(tmp_path, binary):
    makers.cifar(tmp_path / "m", binary=binary)
    (file,) = (tmp_path / "m").iterdir()
    content, refused = file.read_bytes(), 0
    positions = range(30, len(content), len(content) // 100)
    for position in positions:
        file.write_bytes(content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :])
        try:
            load("cifar10", tmp_path / "m")
        except UserError as error:
            assert f"{file.name} is damaged or not the official file" in str(error)
            refused += 1
    assert refused == len(positions)


class Malicious:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def spoil(folder, member, content):
    """Replaces one member of the CIFAR-10 python archive, or removes it (None)."""
    file = folder / "cifar-10-python.tar.gz"
    with tarfile.open(file) as tar:
        members = {m.name: tar.extractfile(m).read() for m in tar}
    members[f"cifar-10-batches-py/{member}"] = content
    makers.tar_of(file, {name: value for name, value in members.items() if value is not None})


def test_pickles_cannot_run_code(tmp_path):
    """Nor choose a codec: Python 3's way to write bytes is allowed for latin1 only."""
    makers.cifar(tmp_path / "m")
    marker = tmp_path / "executed"
    spoil(tmp_path / "m", "test_batch", pickle.dumps({"data": Malicious(str(marker)), "labels": [1]}, 2))
    with pytest.raises(UserError, match="posix.mkdir, which is not allowed"):
        load("cifar10", tmp_path / "m")
    assert not marker.exists()
    spoil(tmp_path / "m", "test_batch", b"c_codecs\nencode\n(Vhello\nVbz2\ntR.")
    with pytest.raises(UserError, match="encoding bz2, which is not allowed"):
        load("cifar10", tmp_path / "m")


@pytest.mark.parametrize(
    "member, content",
    [
        ("data_batch_3", None),
        ("batches.meta", pickle.dumps({b"label_names": [b"cat"]}, 2)),
        ("batches.meta", pickle.dumps([1, 2], 2)),
        ("test_batch", b"hello"),
        ("test_batch", pickle.dumps({b"data": [1, 2], b"labels": [1]}, 2)),
        ("test_batch", pickle.dumps({b"labels": [1]}, 2)),
        ("test_batch", pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}, 2)),
        ("test_batch", pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 10]}, 2)),
        ("test_batch", pickle.dumps({b"data": np.zeros((2, 100), np.uint8), b"labels": [1, 2]}, 2)),
    ],
)
def test_foreign_cifar(tmp_path, member, content):
    makers.cifar(tmp_path / "m")
    spoil(tmp_path / "m", member, content)
    with pytest.raises(UserError, match="cifar-10-python.tar.gz is damaged or not the official file"):
        load("cifar10", tmp_path / "m")
