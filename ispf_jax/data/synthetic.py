"""Images that exist only to try the program out: learnable within a few steps, no file needed."""

import numpy as np

from ispf_jax.data.dataset import ArrayDataset, ImageData, Request
from ispf_jax.data.pixels import check_shape
from ispf_jax.errors import UserError

TRAIN, TEST = 512, 256
NOISE = 24.0  # standard deviation in grey levels


def load(request: Request) -> ImageData:
    """Every class is a smooth colour pattern of its own; its images are that pattern with noise.

    A pattern is a sum of three low-frequency waves with random directions and phases per channel, between the grey
    levels 48 and 208. Size `image_size` (default 32), `channels` (default 3), `num_classes` classes, `max_train` and
    `max_test` images (default 512 and 256), labels in turn. Everything follows from `seed`.
    Raises UserError if there are fewer than two classes or fewer images than classes.
    """
    check_shape(request.image_size, request.channels)
    size, channels, classes = request.image_size or 32, request.channels or 3, request.num_classes
    if classes < 2:
        raise UserError(f"data.num_classes is {classes}; synthetic data need at least 2 classes.")
    rng = np.random.default_rng([request.seed, 1])
    patterns = np.stack([_pattern(rng, size, channels) for _ in range(classes)])

    def split(key, count):
        if count < classes:
            raise UserError(f"{key} is {count}; synthetic data need at least {classes}, one image of every class.")
        labels = np.arange(count, dtype=np.int32) % classes
        noisy = patterns[labels] + rng.normal(0, NOISE, (count, size, size, channels))
        return ArrayDataset(np.clip(np.rint(noisy), 0, 255).astype(np.uint8), labels)

    train = split("data.max_train", request.max_train or TRAIN)
    test = split("data.max_test", request.max_test or TEST)
    names = tuple(f"class{i}" for i in range(classes))
    return ImageData("synthetic", train, test, names, note="synthetic patterns, not real images")


def _pattern(rng, size: int, channels: int) -> np.ndarray:
    """One smooth pattern, float [size, size, channels], values 48..208."""
    steps = np.arange(size) * (2 * np.pi / size)
    y, x = steps[:, None, None, None], steps[None, :, None, None]
    frequency = rng.uniform(-2, 2, (2, channels, 3))
    phase = rng.uniform(0, 2 * np.pi, (channels, 3))
    waves = np.sin(y * frequency[0] + x * frequency[1] + phase).mean(-1)
    low, high = waves.min((0, 1)), waves.max((0, 1))
    return 48 + 160 * (waves - low) / (high - low + 1e-9)
