"""What every source of images takes and delivers: a request, and plain arrays on the host that are checked once."""

import html
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ispf_jax.errors import ArgumentError

_LARGEST_SIDE = 4096
_WHOLE_NUMBERS = ("image_size", "channels", "classes", "max_train", "max_test", "seed")
_LABELS = range(2**31 - 1)


@dataclass(frozen=True)
class DataRequest:
    """What is asked of a source: a key of `ispf_jax.data.SOURCES` and its settings.

    Attributes:
      name: the source.
      path: directory or tar archive of `image_folder`.
      data_dir: where tensorflow-datasets keeps data; "": $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      manual_dir: where the official archives of SVHN or CIFAR lie; "": nowhere.
      download: whether the network may be used.
      cache_dir: where decoded images are kept; "": ~/.cache/ispf_jax; "off": nowhere.
      image_size: pixels per side; 0: as the images are (`digits`: 16, `synthetic`: 32).
      resize: scale images of another size instead of refusing them.
      channels: 1 or 3; 0: as the images are.
      classes: number of classes of `synthetic` and `none`.
      max_train, max_test: a class-balanced subset of that many examples; 0: all.
      seed: of the subsets and the synthetic images; the splits do not depend on it.

    Raises:
      ArgumentError: a value is out of range.
    """

    name: str
    path: str = ""
    data_dir: str = ""
    manual_dir: str = ""
    download: bool = True
    cache_dir: str = ""
    image_size: int = 0
    resize: bool = False
    channels: int = 0
    classes: int = 10
    max_train: int = 0
    max_test: int = 0
    seed: int = 0

    def __post_init__(self):
        for key in ("path", "data_dir", "manual_dir", "cache_dir"):
            object.__setattr__(self, key, os.fspath(getattr(self, key)))
        for key in _WHOLE_NUMBERS:
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
                raise ArgumentError(key, f"={value!r} must be a whole number, 0 or more.")
        if self.image_size > _LARGEST_SIDE:
            raise ArgumentError("image_size", f"={self.image_size} must be from 0 to {_LARGEST_SIDE} pixels.")
        if self.channels not in (0, 1, 3):
            raise ArgumentError("channels", f"={self.channels} must be 0 (as in the images), 1 (grey) or 3 (colour).")
        if self.classes < 1:
            raise ArgumentError("classes", f"={self.classes} must be greater than 0.")


@dataclass(frozen=True, eq=False, repr=False)
class ArrayDataset:
    """Images and labels of one split.

    Attributes:
      images: uint8 [N, H, W, C], or [N, H, W] for grey images, which become [N, H, W, 1].
      labels: class numbers from 0, whole numbers [N]; kept as int32.

    Raises:
      ArgumentError: the arrays do not have these types and shapes.
    """

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self):
        images = _array("images", self.images)
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or 0 in images.shape[1:]:
            text = f" are {images.dtype} {list(images.shape)}, but must be uint8 [N, H, W, C] or [N, H, W]."
            raise ArgumentError("images", text)
        images = images[..., None] if images.ndim == 3 else images
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "labels", _labels(self.labels, len(images)))

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"ArrayDataset({len(self)} images {'x'.join(map(str, self.images.shape[1:]))})"

    def take(self, indices) -> "ArrayDataset":
        """The examples at `indices` (integers, or a bool mask [N]), in that order."""
        return ArrayDataset(self.images[indices], self.labels[indices])


@dataclass(frozen=True, eq=False, repr=False)
class ImageData:
    """A data set: training and test split, and the names of its classes in the order of the labels.

    Attributes:
      train, test: `ArrayDataset`, or (images, labels) to make one from.
      class_names: different names, one per class.
      name: of the data set, for reports.
      note: where the arrays came from when that matters for reading a result.

    Raises:
      ArgumentError: the splits do not fit each other or the names.
    """

    train: ArrayDataset
    test: ArrayDataset
    class_names: tuple[str, ...]
    name: str = "images"
    note: str = ""

    def __post_init__(self):
        object.__setattr__(self, "class_names", _names(self.class_names))
        for key in ("train", "test"):
            split = _split(key, getattr(self, key))
            object.__setattr__(self, key, split)
            if len(split) and (label := split.labels.max()) >= self.num_classes:
                raise ArgumentError(key, f" has the label {label}, but there are {self.num_classes} class_names.")
        shapes = [list(split.images.shape[1:]) for split in (self.train, self.test)]
        if shapes[0] != shapes[1]:
            raise ArgumentError("test", f" has images {shapes[1]}, but those of train are {shapes[0]}.")

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every image."""
        return self.train.images.shape[1:]

    def _facts(self) -> dict[str, str]:
        names = ", ".join(self.class_names[:12]) + (", ..." if self.num_classes > 12 else "")
        counts = {key: f"{len(getattr(self, key)):,} images" for key in ("train", "test")}
        shape = "x".join(map(str, self.image_shape))
        return counts | {"shape": shape, "classes": f"{self.num_classes} ({names})"}

    def __repr__(self) -> str:
        return f"ImageData({self.name!r}, {', '.join(f'{key}: {value}' for key, value in self._facts().items())})"

    def _repr_html_(self) -> str:
        facts = self._facts() | ({"note": self.note} if self.note else {})
        rows = "".join(f"<tr><th>{key}</th><td>{html.escape(value)}</td></tr>" for key, value in facts.items())
        return f"<div><b>{html.escape(self.name)}</b><table>{rows}</table></div>"


def _array(argument: str, values) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError as error:
        raise ArgumentError(argument, f" are no array: {error}.") from error


def _labels(values, count: int) -> np.ndarray:
    """int32 [count]; by itself, numpy would take 1.7, True and "3" for labels and wrap large numbers."""
    labels = _array("labels", values) if hasattr(values, "dtype") else np.array(values, object)
    if labels.dtype == object:
        odd = [
            v for v in labels.flat if isinstance(v, bool) or not isinstance(v, (int, np.integer)) or v not in _LABELS
        ]
    elif labels.dtype.kind in "iu":
        odd = labels[(labels < 0) | (labels >= len(_LABELS))].tolist()
    else:
        odd = labels.ravel()[:1].tolist()
    if odd:
        raise ArgumentError("labels", f" hold {odd[0]!r}, but must be whole numbers from 0.")
    if labels.shape != (count,):
        raise ArgumentError("labels", f" have the shape {list(labels.shape)}, but there are {count} images.")
    return labels.astype(np.int32, copy=False)


def _split(key: str, split) -> ArrayDataset:
    if isinstance(split, ArrayDataset):
        return split
    if not isinstance(split, (tuple, list)) or len(split) != 2:
        raise ArgumentError(key, " must be an ArrayDataset or a pair (images, labels).")
    try:
        return ArrayDataset(*split)
    except ArgumentError as error:
        raise ArgumentError(key, f": {error}") from error


def _names(names: Sequence[str]) -> tuple[str, ...]:
    if isinstance(names, str) or not hasattr(names, "__iter__"):
        raise ArgumentError("class_names", f"={names!r} must be a sequence of names.")
    names, seen = tuple(names), set()
    for i, name in enumerate(names):
        if not isinstance(name, str) or not name.strip() or any(unicodedata.category(c) in ("Cc", "Cs") for c in name):
            text = f"[{i}]={name!r} must be text in UTF-8, not empty and without control characters."
            raise ArgumentError("class_names", text)
        if name in seen:
            raise ArgumentError("class_names", f"[{i}]={name!r} is the name of two classes; names must differ.")
        seen.add(name)
    return tuple(map(str, names))
