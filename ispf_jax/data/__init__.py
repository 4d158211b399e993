"""Images and labels from wherever they are: `load(name, ...)` is the only door.

The rest of the package sees uint8 arrays on the host (`ImageData`). Nothing here imports tensorflow_datasets or a
reader of its files before they are needed, and TensorFlow is never needed.
"""

import dataclasses

from ispf_jax.data import digits, image_folder, named, no_images, synthetic
from ispf_jax.data.augment import augment, normalise
from ispf_jax.data.dataset import ArrayDataset, ImageData, Request
from ispf_jax.data.splits import check_classes, limit, train_val_split
from ispf_jax.errors import UserError

__all__ = [
    "SOURCES",
    "ArrayDataset",
    "ImageData",
    "augment",
    "check_classes",
    "known_shape",
    "load",
    "normalise",
    "train_val_split",
]

SOURCES = {
    "digits": digits.load,
    "image_folder": image_folder.load,
    "svhn": named.load,
    "cifar10": named.load,
    "cifar100": named.load,
    "synthetic": synthetic.load,
    "none": no_images.load,
}

_SHAPES = {"digits": (16, 16, 1, 10), "svhn": (32, 32, 3, 10), "cifar10": (32, 32, 3, 10), "cifar100": (32, 32, 3, 100)}


def load(
    name: str,
    *,
    path: str = "",
    data_dir: str = "",
    manual_dir: str = "",
    download: bool = True,
    image_size: int = 0,
    resize: bool = False,
    channels: int = 0,
    max_train: int = 0,
    max_test: int = 0,
    cache_dir: str = "",
    seed: int = 0,
    num_classes: int = 10,
) -> ImageData:
    """Loads a data set.

    name: a key of `SOURCES`.
    path: directory or tar archive of `image_folder`.
    data_dir: where tensorflow-datasets keeps prepared data; "": $TFDS_DATA_DIR, else ~/tensorflow_datasets.
    manual_dir: where official archives of SVHN or CIFAR lie; "": nowhere.
    download: whether the network may be used at all.
    image_size, channels: pixels and 1 or 3; 0: as the images are (`digits`: 16, `synthetic`: 32; `none` has no images to tell).
    resize: scale images of another size instead of refusing them.
    max_train, max_test: a class-balanced subset of that many examples; 0: all.
    cache_dir: where decoded images are kept; "": ~/.cache/ispf_jax; "off": nowhere.
    seed: of the subsets and the synthetic images; the official splits and that of the digits do not depend on it.
    num_classes: of `synthetic` and `none` only.

    Raises UserError for an unknown name and for everything that is missing, damaged or does not fit.
    """
    if name not in SOURCES:
        raise UserError(f"data.name is {name!r}; it must be one of {', '.join(sorted(SOURCES))}.")
    request = Request(
        name,
        path,
        data_dir,
        manual_dir,
        download,
        image_size,
        resize,
        channels,
        max_train,
        max_test,
        cache_dir,
        seed,
        num_classes,
    )
    data = SOURCES[name](request)
    return dataclasses.replace(
        data,
        train=limit(data.train, max_train, seed, "data.max_train"),
        test=limit(data.test, max_test, seed, "data.max_test"),
    )


def known_shape(name: str) -> tuple[int, int, int, int] | None:
    """(height, width, channels, classes) of a data set of fixed shape, at its default size, without loading it."""
    return _SHAPES.get(name)
