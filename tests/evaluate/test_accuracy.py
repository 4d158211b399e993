"""Confusion counts against scikit-learn's, accuracies by hand."""

import math
from functools import partial

import flax.linen as nn
import jax
import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from ispf_jax.augment import augment
from ispf_jax.classifier import Network
from ispf_jax.evaluate import accuracy
from ispf_jax.evaluate.accuracy import Accuracies, accuracies, confusion

CLASSES, IMAGES, SIZE = 5, 43, 4
MEAN, STD = (0.5,), (0.25,)
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (IMAGES, SIZE, SIZE, 1), np.uint8)
LABELS = RNG.integers(0, CLASSES, IMAGES).astype(np.int32)
KERNEL = RNG.standard_normal((SIZE * SIZE, CLASSES)).astype(np.float32)


class Linear(nn.Module):
    """A classifier that numpy can compute, with the calling convention of the real ones."""

    num_classes: int = CLASSES

    @nn.compact
    def __call__(self, x, train=False, mask=None, axis=None):
        flat = x.reshape(len(x), -1)
        return nn.Dense(self.num_classes, use_bias=False, name="head")(flat), flat


VARIABLES = {"params": {"head": {"kernel": KERNEL}}}


def predicted(images=PIXELS, hidden=()):
    scores = ((np.asarray(images) / 255.0 - MEAN[0]) / STD[0]).reshape(len(images), -1) @ KERNEL.astype(np.float64)
    scores[:, list(hidden)] = -np.inf
    return scores.argmax(1)


NETWORK = Network(Linear(), (SIZE, SIZE, 1), MEAN, STD)


def count(batch_size=8, **options):
    return confusion(NETWORK, VARIABLES, PIXELS, LABELS, batch_size=batch_size, **options)


def counted(true, guessed):
    return confusion_matrix(true, guessed, labels=range(CLASSES))


@pytest.mark.parametrize("batch_size", [1, 8, 43, 64])
def test_all_images_whatever_the_batch(batch_size):
    """43 images fill no batch but those of 1 and 43: rows of padding count nowhere."""
    got = count(batch_size)
    np.testing.assert_array_equal(got, counted(LABELS, predicted()))
    assert got.sum() == IMAGES and got.dtype == np.int64


@pytest.mark.parametrize("size", [0, 1, 9, 42])
def test_members_only(size):
    member = np.zeros(IMAGES, bool)
    member[np.random.default_rng(size).choice(IMAGES, size, replace=False)] = True
    got = count(member=member)
    np.testing.assert_array_equal(
        got, counted(LABELS[member], predicted()[member]) if size else np.zeros((CLASSES, CLASSES))
    )


@pytest.mark.parametrize("hidden", [(3,), (0, 4)])
def test_hidden_classes_are_never_predicted(hidden):
    mask = np.isin(np.arange(CLASSES), hidden).astype(np.float32)
    member = LABELS != 1
    got = count(member=member, hidden=mask)
    np.testing.assert_array_equal(got, counted(LABELS[member], predicted(hidden=hidden)[member]))
    assert (got[:, list(hidden)] == 0).all() and got[list(hidden)].sum() > 0
    assert predicted()[member].tolist() != predicted(hidden=hidden)[member].tolist()


def test_augmentation_draws_from_the_key():
    """One batch of all images: its crops can be drawn here as well."""
    key = jax.random.key(4)
    crops = jax.jit(partial(augment, "crop_flip"))(jax.random.split(key, 1)[0], PIXELS)
    got = count(IMAGES, augmented=("crop_flip", key))
    np.testing.assert_array_equal(got, counted(LABELS, predicted(crops)))
    assert (got != count()).any()
    np.testing.assert_array_equal(got, count(IMAGES, augmented=("crop_flip", key)))


def test_subsets_of_about_a_size_share_a_program():
    before = accuracy._confusion._cache_size()
    for size in (17, 20, 24):
        assert count(member=np.arange(IMAGES) < size).sum() == size
    assert accuracy._confusion._cache_size() <= before + 1


def test_accuracies_by_hand():
    """Classes 0 and 2 are forgotten: of their 10 images 3 are hit; of the 20 others 16."""
    confusion = np.array([[2, 1, 1, 0], [0, 9, 1, 0], [4, 0, 1, 1], [3, 0, 0, 7]])
    got = accuracies(confusion, (0, 2))
    assert got == Accuracies(forget=pytest.approx(30), retain=pytest.approx(80), overall=pytest.approx(1900 / 30))
    assert accuracies(confusion, (3,)) == Accuracies(70.0, 60.0, pytest.approx(1900 / 30))


def test_accuracies_without_images_are_not_a_number():
    confusion = np.array([[0, 0], [1, 3]])
    got = accuracies(confusion, (0,))
    assert math.isnan(got.forget) and (got.retain, got.overall) == (75, 75)
    got = accuracies(confusion, (0, 1))
    assert math.isnan(got.retain) and got.forget == 75
    assert math.isnan(accuracies(np.zeros((2, 2), int), (0,)).overall)
