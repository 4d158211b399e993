"""Arrays, splits, subsets, the embedded and the synthetic data."""

import numpy as np
import pytest

from ispf_jax import data
from ispf_jax.data.splits import balanced_subset
from ispf_jax.errors import ArgumentError, UserError

IMAGES, NAMES = np.zeros((3, 4, 4, 1), np.uint8), ("a", "b", "c")
GOOD = IMAGES, [0, 1, 2]


def test_data_from_arrays():
    split = data.ArrayDataset(*GOOD)
    assert len(split) == 3 and split.take([2, 0]).labels.tolist() == [2, 0] and split.labels.dtype == np.int32
    assert split.take(split.labels > 0).labels.tolist() == [1, 2]
    whole = data.ImageData((IMAGES[..., 0], np.array([0, 2, 2], np.uint64)), split, list(NAMES), "<letters>")
    assert whole.num_classes == 3 and whole.image_shape == (4, 4, 1) and whole.class_names == NAMES
    assert repr(whole) == "ImageData(<letters>: 3 training and 3 test images 4x4x1, 3 classes: a, b, c)"
    assert "&lt;letters&gt;: 3 training and 3 test images" in whole._repr_html_()


@pytest.mark.parametrize(
    "labels", [[0, 1.7, 2], ["0", "3", "1"], [0, True, 2], [0, 2**32 + 1, 2], [0, -1, 2], [None] * 3]
)
@pytest.mark.parametrize("make", [list, np.array])
def test_labels_that_are_none(labels, make):
    if labels == [0, True, 2] and make is np.array:
        labels = [False, True, False]
    with pytest.raises(ArgumentError, match=r"^labels hold .*must be whole numbers from 0") as caught:
        data.ArrayDataset(IMAGES, make(labels))
    assert caught.value.argument == "labels"


@pytest.mark.parametrize(
    "arguments, words",
    [
        (((IMAGES.astype(float), [0, 1, 2]), GOOD, NAMES), ": images are float64 .3, 4, 4, 1.*uint8"),
        (((IMAGES[0, 0], [0]), GOOD, NAMES), ": images are uint8 .4, 1., but must be"),
        ((([[1], [1, 2]], [0]), GOOD, NAMES), ": images are no array"),
        ((GOOD, (IMAGES, [0, 1]), NAMES), ": labels have the shape .2., but there are 3 images"),
        ((GOOD, (IMAGES, [[0], [1], [2]]), NAMES), ": labels have the shape .3, 1."),
        (((IMAGES, [0, 1, 3]), GOOD, NAMES), "^train has the label 3, but there are 3 class_names"),
        ((GOOD, (IMAGES[:, :3], [0, 1, 2]), NAMES), "^test has images .3, 4, 1., but those of train"),
        ((IMAGES, GOOD, NAMES), "^train must be an ArrayDataset or a pair"),
        ((GOOD, GOOD, ("a", "b", "a")), r"^class_names\[2\]='a' must be .* different from"),
        ((GOOD, GOOD, ("a", " ", "c")), r"^class_names\[1\]=' ' must be text"),
        ((GOOD, GOOD, (0, 1, 2)), r"^class_names\[0\]=0 must be text"),
        ((GOOD, GOOD, "abc"), "^class_names='abc' must be a sequence of names"),
    ],
)
def test_arrays_that_do_not_fit(arguments, words):
    with pytest.raises(ArgumentError, match=words):
        data.ImageData(*arguments)


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
        with pytest.raises(UserError, match=r"^val_fraction="):
            data.train_val_split(n, fraction)


def test_a_class_that_is_held_out_altogether_is_refused():
    labels, names = np.array([0, 0, 1, 2, 2], np.int32), ("cat", "dog", "cow")
    train = np.array([True, False, False, True, True])
    data.check_classes(labels, train, names, (1,), "retrain")  # left out on purpose
    with pytest.raises(
        UserError, match=r"original seed 0: class 1 \(dog\) .* of its 1 training image.*smaller val_fraction"
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
    assert (digits.image_shape, digits.num_classes) == ((16, 16, 1), 10)
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
    tiny = data.load("synthetic", classes=4, channels=1, max_train=40, max_test=8)
    assert (tiny.num_classes, len(tiny.train), len(tiny.test), tiny.image_shape) == (4, 40, 8, (32, 32, 1))


def test_no_images():
    found = data.load("none", image_size=8, channels=3, classes=4)
    assert len(found.train) == len(found.test) == 0 and found.image_shape == (8, 8, 3)
    assert found.class_names == ("0", "1", "2", "3")


def test_a_request_and_a_source(monkeypatch):
    asked = []
    monkeypatch.setitem(data.SOURCES, "mine", lambda request: (asked.append(request), data.load("digits"))[1])
    request = data.DataRequest("mine", path="there", max_train=20)
    assert len(data.load(request).train) == 20 and len(data.load(request, max_train=30).train) == 30
    assert asked == [data.DataRequest("mine", path="there", max_train=n) for n in (20, 30)]


@pytest.mark.parametrize(
    "name, options, words",
    [
        ("mnist", {}, "name='mnist' is unknown; allowed are digits"),
        ("digits", {"image_size": 4}, "image_size=4 must be at least 8"),
        ("digits", {"image_size": -1}, "image_size=-1"),
        ("digits", {"image_size": "16"}, "image_size='16' must be a whole number"),
        ("digits", {"channels": 2}, "channels=2"),
        ("digits", {"max_train": 5}, "max_train=5 must be 0 .all examples. or at least 10"),
        ("digits", {"max_test": -1}, "max_test=-1"),
        ("digits", {"path": "here"}, "path='here' would not be read"),
        ("synthetic", {"classes": 1}, "classes=1 must be at least 2"),
        ("synthetic", {"max_test": 3}, "max_test=3"),
        ("none", {"channels": 3}, "image_size=0 must be what the classifier"),
    ],
)
def test_bad_options(name, options, words):
    with pytest.raises(ArgumentError, match=f"^{words}"):
        data.load(name, **options)
