"""What every source of images delivers: plain arrays on the host, checked once."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ArrayDataset:
    """Images and labels of one split.

    images: uint8 [N, H, W, C], channels last, values 0..255.
    labels: int32 [N], class numbers from 0.

    Raises ValueError when the arrays do not have these types and shapes: sources turn what a user can cause into a
    `UserError` before they come here.
    """

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self):
        images, labels = self.images, self.labels
        if images.dtype != np.uint8 or images.ndim != 4:
            raise ValueError(f"images must be uint8 [N, H, W, C], found {images.dtype} {images.shape}")
        if labels.dtype != np.int32 or labels.shape != images.shape[:1]:
            raise ValueError(f"labels must be int32 [{len(images)}], found {labels.dtype} {labels.shape}")
        if len(labels) and labels.min() < 0:
            raise ValueError(f"labels must be 0 or more, found {labels.min()}")

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices) -> "ArrayDataset":
        """The examples at `indices` (integers, or a bool mask [N]), in that order."""
        return ArrayDataset(self.images[indices], self.labels[indices])


@dataclass(frozen=True)
class ImageData:
    """A data set: training and test split, and the names of its classes in the order of the labels.

    note: where the arrays came from when that matters for reading a result, else "".
    Raises ValueError when the splits differ in image shape or hold a label without a name.
    """

    name: str
    train: ArrayDataset
    test: ArrayDataset
    class_names: tuple[str, ...]
    note: str = ""

    def __post_init__(self):
        if self.train.images.shape[1:] != self.test.images.shape[1:]:
            shapes = self.train.images.shape[1:], self.test.images.shape[1:]
            raise ValueError(f"training images are {shapes[0]}, test images {shapes[1]}")
        for split in (self.train, self.test):
            if len(split) and split.labels.max() >= self.num_classes:
                raise ValueError(f"label {split.labels.max()} in a data set of {self.num_classes} classes")

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every image."""
        return self.train.images.shape[1:]


@dataclass(frozen=True)
class Request:
    """What the user asked for: the `data.*` keys that a source may need. Meanings: see `ispf_jax.data.load`."""

    name: str
    path: str = ""
    data_dir: str = ""
    manual_dir: str = ""
    download: bool = True
    image_size: int = 0
    resize: bool = False
    channels: int = 0
    max_train: int = 0
    max_test: int = 0
    cache_dir: str = ""
    seed: int = 0
    num_classes: int = 10
