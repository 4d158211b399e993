"""Images and labels from wherever they are: `load(name, ...)` is the only door.

The rest of the package sees uint8 arrays on the host (`ImageData`). Nothing here imports tensorflow_datasets or a
reader of its files before they are needed, and TensorFlow is never needed.
"""

import dataclasses
import os

from ispf_jax.augment import augment, normalise
from ispf_jax.data import builtin, image_folder, official
from ispf_jax.data.dataset import ArrayDataset, DataRequest, ImageData
from ispf_jax.data.splits import check_classes, limit, train_val_split

__all__ = [
    "SOURCES",
    "ArrayDataset",
    "DataRequest",
    "ImageData",
    "augment",
    "check_classes",
    "load",
    "normalise",
    "train_val_split",
]

SOURCES = {
    "digits": builtin.digits,
    "image_folder": image_folder.load,
    "svhn": official.load,
    "cifar10": official.load,
    "cifar100": official.load,
    "synthetic": builtin.synthetic,
    "none": builtin.none,
}
"""Functions from a `DataRequest` to `ImageData`, by name."""


def load(name: str | DataRequest = "digits", **keys) -> ImageData:
    """Loads a data set, for instance `load("digits", image_size=16, channels=1)`.

    Args:
      name: a key of `SOURCES`, or a whole request.
      **keys: the settings of `DataRequest`.

    Raises:
      ArgumentError: an unknown name, or a setting that does not fit the images.
      UserError: a file is missing, damaged or does not hold what it should.
    """
    keys = {key: os.fspath(value) if isinstance(value, os.PathLike) else value for key, value in keys.items()}
    request = dataclasses.replace(name, **keys) if isinstance(name, DataRequest) else DataRequest(name, **keys)
    data = SOURCES[request.name](request)
    train = limit(data.train, request.max_train, request.seed, "max_train")
    test = limit(data.test, request.max_test, request.seed, "max_test")
    return dataclasses.replace(data, train=train, test=test)
