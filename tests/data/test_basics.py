"""Arrays, splits, subsets, the embedded and the synthetic data."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ispf_jax import data
from ispf_jax.data.splits import balanced_subset
from ispf_jax.errors import UserError


def test_import_is_light():
    """Neither tensorflow nor tensorflow_datasets nor a file reader comes with the import."""
    heavy = "'tensorflow', 'tensorflow_datasets', 'array_record', 'sklearn', 'requests'"
    code = f"import sys, ispf_jax.data; found = [m for m in ({heavy}) if m in sys.modules]; assert not found, found"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_array_dataset_checks():
    images, labels = np.zeros((3, 4, 4, 1), np.uint8), np.arange(3, dtype=np.int32)
    split = data.ArrayDataset(images, labels)
    assert len(split) == 3 and split.take([2, 0]).labels.tolist() == [2, 0]
    assert split.take(labels > 0).labels.tolist() == [1, 2]
    for wrong in [
        (images.astype(float), labels),
        (images[0], labels),
        (images, labels[:2]),
        (images, labels - 1),
        (images, labels.astype(np.int64)),
    ]:
        with pytest.raises(ValueError):
            data.ArrayDataset(*wrong)
    with pytest.raises(ValueError, match="label 2"):
        data.ImageData("x", split, split, ("a", "b"))
    other = data.ArrayDataset(np.zeros((3, 5, 5, 1), np.uint8), labels)
    with pytest.raises(ValueError, match="test images"):
        data.ImageData("x", split, other, ("a", "b", "c"))
    whole = data.ImageData("x", split, split, ("a", "b", "c"))
    assert whole.num_classes == 3 and whole.image_shape == (4, 4, 1)


@pytest.mark.parametrize("n, sizes", [(50000, (40000, 10000)), (73257, (58605, 14652)), (1437, (1149, 288))])
def test_split_sizes_of_the_reference(n, sizes):
    train, val = data.train_val_split(n, 0.2, seed=0)
    assert (train.sum(), val.sum()) == sizes
    assert train.dtype == val.dtype == bool and (train ^ val).all()


def test_split_is_seeded():
    first, again, other = (data.train_val_split(100, 0.2, seed=s)[1] for s in (3, 3, 4))
    assert (first == again).all() and (first != other).any()


def test_split_of_members_ignores_the_others():
    members = np.random.default_rng(0).random(500) < 0.6
    train, val = data.train_val_split(members, 0.25, seed=1)
    assert not (train & val).any() and ((train | val) == members).all()
    dense_train, dense_val = data.train_val_split(int(members.sum()), 0.25, seed=1)
    assert (train[members] == dense_train).all() and (val[members] == dense_val).all()


def test_split_bad_input():
    assert data.train_val_split(10, 0.0)[1].sum() == 0
    for n, fraction in [(10, 1.0), (10, -0.1), (1, 0.2), (0, 0.2)]:
        with pytest.raises(UserError, match="fraction"):
            data.train_val_split(n, fraction)


def test_a_class_that_is_held_out_altogether_is_refused():
    labels, names = np.array([0, 0, 1, 2, 2], np.int32), ("cat", "dog", "cow")
    train = np.array([True, False, False, True, True])
    data.check_classes(labels, train, names, (1,), "retrain")  # left out on purpose
    with pytest.raises(
        UserError, match=r"original seed 0: class 1 \(dog\) .* of its 1 training image.*config.data.val_fraction"
    ):
        data.check_classes(labels, train, names, (), "original seed 0")


def test_balanced_subset():
    labels = np.repeat([0, 1, 2], [100, 3, 100])
    np.random.default_rng(0).shuffle(labels)
    chosen = balanced_subset(labels, 31, seed=0)
    assert len(set(chosen)) == 31 and (np.diff(chosen) > 0).all()
    assert np.bincount(labels[chosen]).tolist() == [14, 3, 14]
    assert (chosen == balanced_subset(labels, 31, seed=0)).all()
    assert (chosen != balanced_subset(labels, 31, seed=1)).any()
    spread = np.bincount(labels[balanced_subset(labels, 8, seed=0)])
    assert sorted(spread) == [2, 3, 3]
    assert len(balanced_subset(labels, 500)) == 203


def test_digits():
    digits = data.load("digits")
    assert digits.image_shape + (digits.num_classes,) == data.known_shape("digits") == (16, 16, 1, 10)
    assert (len(digits.train), len(digits.test)) == (1437, 360)
    assert digits.train.images.min() == 0 and digits.train.images.max() == 255
    share = np.bincount(digits.test.labels) / np.bincount(np.r_[digits.train.labels, digits.test.labels])
    assert (abs(share - 0.2) < 0.01).all()
    again = data.load("digits", seed=5)
    assert (again.test.images == digits.test.images).all()
    small = data.load("digits", image_size=32, channels=3, max_train=100, max_test=20)
    assert small.image_shape == (32, 32, 3) and (np.bincount(small.train.labels) == 10).all()
    assert (np.bincount(small.test.labels) == 2).all()


def test_synthetic_is_seeded_and_learnable():
    one, two, other = (data.load("synthetic", image_size=16, seed=s) for s in (0, 0, 1))
    assert (one.train.images == two.train.images).all() and (one.train.images != other.train.images).any()
    assert (len(one.train), len(one.test), one.image_shape, one.num_classes) == (512, 256, (16, 16, 3), 10)
    means = np.stack([one.train.images[one.train.labels == c].mean(0) for c in range(10)])
    distance = ((one.test.images[:, None] - means) ** 2).sum((2, 3, 4))
    assert (distance.argmin(1) == one.test.labels).all()
    tiny = data.load("synthetic", num_classes=4, channels=1, max_train=40, max_test=8)
    assert (tiny.num_classes, len(tiny.train), len(tiny.test), tiny.image_shape) == (4, 40, 8, (32, 32, 1))


@pytest.mark.parametrize(
    "name, options, words",
    [
        ("mnist", {}, "cifar10, cifar100, digits, image_folder, none, svhn, synthetic"),
        ("digits", {"image_size": 4}, "data.image_size is 4"),
        ("digits", {"image_size": -1}, "data.image_size is -1"),
        ("digits", {"channels": 2}, "data.channels is 2"),
        ("digits", {"max_train": 5}, "data.max_train is 5"),
        ("digits", {"max_test": -1}, "data.max_test is -1"),
        ("synthetic", {"num_classes": 1}, "data.num_classes is 1"),
        ("synthetic", {"max_test": 3}, "data.max_test is 3"),
        ("synthetic", {"channels": 5}, "data.channels is 5"),
    ],
)
def test_bad_options(name, options, words):
    with pytest.raises(UserError, match=words):
        data.load(name, **options)


def test_known_shape_of_others():
    assert data.known_shape("cifar100") == (32, 32, 3, 100)
    assert data.known_shape("image_folder") is None
