"""Data that need no file: scikit-learn's digits, synthetic patterns, and no images at all."""

import numpy as np

from ispf_jax.data.dataset import DataRequest, ImageData
from ispf_jax.data.pixels import conform
from ispf_jax.errors import ArgumentError
from ispf_jax.memory import require

DIGITS_SEED = 20240  # the split belongs to the data set: every run has the same test images
TRAIN, TEST = 512, 256
NOISE = 24.0  # standard deviation in grey levels


def digits(request: DataRequest) -> ImageData:
    """1,797 handwritten digits at `image_size` (default 16) pixels and `channels` (default 1); 80 % train, stratified.

    The 8x8 images with grey values 0..16 become 0..255 and are enlarged with Pillow's bilinear filter. Source:
    E. Alpaydin, C. Kaynak, "Optical recognition of handwritten digits", UCI repository 1998, of which scikit-learn
    holds the test part.

    Raises:
      ArgumentError: the size is less than 8.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    size = request.image_size or 16
    if size < 8:
        raise ArgumentError("image_size", f"={size} must be at least 8 for the digits.")
    found = load_digits()
    grey = np.rint(found.images * (255 / 16)).astype(np.uint8)[..., None]
    images, labels = conform(grey, size, request.channels or 1), found.target.astype(np.int32)
    parts = train_test_split(np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=DIGITS_SEED)
    train, test = ((images[part], labels[part]) for part in map(np.sort, parts))
    return ImageData(train, test, tuple("0123456789"), "digits")


def synthetic(request: DataRequest) -> ImageData:
    """Every class is a smooth colour pattern; its images are that pattern with noise. Learnable within a few steps.

    Size `image_size` (default 32), `channels` (default 3), `classes` classes, `max_train` and `max_test` images
    (default 512 and 256), labels in turn. Everything follows from `seed`.

    Raises:
      ArgumentError: there are fewer than two classes or fewer images than classes.
    """
    size, channels, classes = request.image_size or 32, request.channels or 3, request.classes
    if classes < 2:
        raise ArgumentError("classes", f"={classes} must be at least 2 for synthetic data.")
    rng = np.random.default_rng([request.seed, 1])
    most = max("max_train", "max_test", key=lambda key: getattr(request, key))
    count = max(getattr(request, most) or TRAIN, classes)
    require(most, f": {count:,} images of {size}x{size}x{channels}", 17 * count * size**2 * channels)  # and the noise
    patterns = np.stack([_pattern(rng, size, channels) for _ in range(classes)])

    def split(key, default):
        count = getattr(request, key) or default
        if count < classes:
            raise ArgumentError(key, f"={count} must be at least {classes}, one image per class.")
        labels = np.arange(count, dtype=np.int32) % classes
        noisy = patterns[labels] + rng.normal(0, NOISE, (count, size, size, channels))
        return np.clip(np.rint(noisy), 0, 255).astype(np.uint8), labels

    train, test = split("max_train", TRAIN), split("max_test", TEST)
    names = tuple(f"class{i}" for i in range(classes))
    return ImageData(train, test, names, "synthetic", "synthetic patterns, not real images")


def _pattern(rng, size: int, channels: int) -> np.ndarray:
    """Three low-frequency waves of random direction and phase per channel, float [size, size, channels], 48..208."""
    steps = np.arange(size) * (2 * np.pi / size)
    y, x = steps[:, None, None, None], steps[None, :, None, None]
    frequency = rng.uniform(-2, 2, (2, channels, 3))
    phase = rng.uniform(0, 2 * np.pi, (channels, 3))
    waves = np.sin(y * frequency[0] + x * frequency[1] + phase).mean(-1)
    low, high = waves.min((0, 1)), waves.max((0, 1))
    return 48 + 160 * (waves - low) / (high - low + 1e-9)


def none(request: DataRequest) -> ImageData:
    """Two empty splits of images of `image_size` and `channels`, for a classifier without any data.

    Raises:
      ArgumentError: size or channels are not given.
    """
    for key, example in (("image_size", 32), ("channels", 3)):
        if not getattr(request, key):
            raise ArgumentError(key, f"=0 must be what the classifier was trained on, for example {example}.")
    images = np.zeros((0, request.image_size, request.image_size, request.channels), np.uint8)
    empty = images, np.zeros(0, np.int32)
    names = request.class_names or tuple(map(str, range(request.classes)))
    return ImageData(empty, empty, names, "none", "no images: nothing was measured on any")
