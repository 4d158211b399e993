"""A start looks at test images before anything else: classes in another order, and a normalisation that fits better."""

import logging

import flax.linen as nn
import numpy as np
import pytest

from ispf_jax.classifier import Classifier
from ispf_jax.data import ImageData
from ispf_jax.errors import UserError
from ispf_jax.sweep.given import check_order

COLOURS = np.array([(230, 0, 0), (0, 230, 0), (0, 0, 230), (9, 9, 9)], np.uint8)
NAMES = ("red", "green", "blue", "dark")


class Colour(nn.Module):
    """Tells the four colours apart in images from 0 to 1."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(4, name="dense")(x.mean(axis=(1, 2)))


def classifier(scale=10.0, dark=3.0, **normalisation):
    kernel = np.concatenate([scale * np.eye(3), np.zeros((3, 1))], axis=1).astype(np.float32)
    params = {"dense": {"kernel": kernel, "bias": np.float32([0, 0, 0, dark])}}
    return Classifier(Colour(), {"params": params}, image_shape=(4, 4, 3), **({"mean": 0, "std": 1} | normalisation))


def images(order=(0, 1, 2, 3), names=NAMES, each=10):
    labels = np.repeat(np.arange(4), each)
    pixels = np.broadcast_to(COLOURS[list(order)][labels][:, None, None], (len(labels), 4, 4, 3))
    return ImageData((pixels[:0], labels[:0]), (pixels, labels), names)


ORDERS = {"two exchanged": (0, 2, 1, 3), "round": (1, 2, 3, 0)}


@pytest.mark.parametrize("order", ORDERS)
def test_another_order_is_refused_with_the_likely_one(order, caplog):
    """Classes are numbered by sorted names; the likely order names what each output of the classifier stands for."""
    folders = [NAMES[c] for c in ORDERS[order]]  # label i holds images of this colour
    with pytest.raises(UserError, match=r"another order.*likely order of its outputs is: red, green, blue, dark;"):
        check_order(classifier(), images(ORDERS[order], folders))


@pytest.mark.parametrize(
    "given, said",
    [
        (classifier(), ""),
        (classifier(mean=0.9, std=0.1), "but 100.0 % with mean and std 0.5 and 0.5"),
        (classifier(scale=0, dark=9), "25.0 % of the test images are recognised, by chance 25.0 %"),
    ],
)
def test_other_mistakes_are_said(given, said, caplog):
    with caplog.at_level(logging.WARNING, "ispf_jax"):
        check_order(given, images())
    assert (said in caplog.text) if said else not caplog.text


def test_few_images_and_weak_classes_prove_nothing():
    """Two images of each class, or classes that are taken for each other as often as not."""
    check_order(classifier(), images(ORDERS["two exchanged"], each=2))
    check_order(classifier(scale=0, dark=9), images(ORDERS["round"]))
