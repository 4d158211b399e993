"""What every source of images takes and delivers: a request, and plain arrays on the host that are checked once."""

import html
from dataclasses import dataclass

import numpy as np

from ispf_jax.errors import ArgumentError
from ispf_jax.forget import checked_names
from ispf_jax.settings import Settings, key


def _sources():
    from ispf_jax.data import SOURCES

    return SOURCES


@dataclass(frozen=True)
class DataRequest(Settings):
    """Which images, and how.

    Attributes:
      name: digits, image_folder, svhn, cifar10, cifar100, synthetic, or none (a classifier and no images).
      path: image_folder: directory or tar archive with <split>/<class>/<file>; the split train may be left out where
        nothing is trained on it.
      data_dir: where tensorflow-datasets keeps its data; empty: $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      manual_dir: where official archives of SVHN or CIFAR lie that were fetched by hand.
      download: whether the network may be used.
      cache_dir: where decoded images are kept; empty: ~/.cache/ispf_jax; "off": nowhere.
      image_size: pixels per side; 0: as the images are.
      resize: scale images of another size instead of refusing them.
      channels: 1 or 3; 0: as the images are (3 if any of them is in colour).
      classes: number of classes; of synthetic and none only.
      class_names: of image_folder and none: all classes in the order of the classifier's outputs; empty: as the folders
        are called, sorted, or numbers.
      max_train: use a class-balanced subset of that many training images; 0: all.
      max_test: the same for test images.
      seed: of these subsets and of the synthetic images.
    """

    name: str = key("digits", among=_sources)
    path: str = key("", path=True, free=True)
    data_dir: str = key("", path=True, free=True)
    manual_dir: str = key("", path=True, free=True)
    download: bool = key(True, free=True)
    cache_dir: str = key("", path=True, free=True)
    image_size: int = key(0, least=0, below=4097)
    resize: bool = key(False)
    channels: int = key(0, among=(0, 1, 3))
    classes: int = key(10, above=0, below=10**5)
    class_names: tuple[str, ...] = key("")
    max_train: int = key(0, least=0)
    max_test: int = key(0, least=0)
    seed: int = 0

    def check(self):
        if self.class_names and self.name not in ("image_folder", "none"):
            text = f"={','.join(self.class_names)} would not be used: name is {self.name!r}; leave it out."
            raise ArgumentError("class_names", text)
        checked_names(self.class_names)
        if self.resize and not self.image_size and self.name == "image_folder":
            raise ArgumentError("resize", "=True needs image_size; set image_size to the side in pixels.")
        if self.path and self.name in ("digits", "svhn", "cifar10", "cifar100", "synthetic", "none"):
            text = f"={self.path!r} would not be read: name is {self.name!r}; leave it out, or use image_folder."
            raise ArgumentError("path", text)
        if not self.path and self.name == "image_folder":
            raise ArgumentError("path", " is empty; name a directory or tar archive with <split>/<class>/<file>.")


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
        try:
            images = np.asarray(self.images)
        except ValueError as error:
            raise ArgumentError("images", f" are no array: {error}.") from error
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or 0 in images.shape[1:]:
            text = f" are {images.dtype} {list(images.shape)}, but must be uint8 [N, H, W, C] or [N, H, W]."
            raise ArgumentError("images", text)
        object.__setattr__(self, "images", images[..., None] if images.ndim == 3 else images)
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
        object.__setattr__(self, "class_names", checked_names(self.class_names))
        for name in ("train", "test"):
            split = getattr(self, name)
            try:
                split = split if isinstance(split, ArrayDataset) else ArrayDataset(*split)
            except (ArgumentError, TypeError) as error:
                raise ArgumentError(name, f" must be an ArrayDataset or a pair (images, labels): {error}") from error
            object.__setattr__(self, name, split)
            if len(split) and (label := split.labels.max()) >= self.num_classes:
                raise ArgumentError(name, f" has the label {label}, but there are {self.num_classes} class_names.")
        train, test = (split.images.shape[1:] for split in (self.train, self.test))
        if train != test:
            raise ArgumentError("test", f" has images {list(test)}, but those of train are {list(train)}.")

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every image."""
        return self.train.images.shape[1:]

    def __repr__(self) -> str:
        names = ", ".join(self.class_names[:12]) + (", ..." if self.num_classes > 12 else "")
        shape = "x".join(map(str, self.image_shape))
        counts = f"{len(self.train):,} training and {len(self.test):,} test images {shape}"
        return f"ImageData({self.name}: {counts}, {self.num_classes} classes: {names})"

    def _repr_html_(self) -> str:
        return f"<div><b>{html.escape(repr(self))}</b><p>{html.escape(self.note)}</p></div>"


def _labels(values, count: int) -> np.ndarray:
    """int32 [count]; by itself, numpy would take 1.7, True and "3" for labels and wrap large numbers."""
    labels = np.asarray(values, None if hasattr(values, "dtype") else object)
    known = labels.dtype.kind in "iuO"  # times would become numbers
    for label in labels.ravel().tolist():
        if (
            not known
            or not isinstance(label, (int, np.integer))
            or isinstance(label, bool)
            or not 0 <= label < 2**31 - 1
        ):
            raise ArgumentError("labels", f" hold {label!r}, but must be whole numbers from 0.")
    if labels.shape != (count,):
        raise ArgumentError("labels", f" have the shape {list(labels.shape)}, but there are {count} images.")
    return labels.astype(np.int32, copy=False)
