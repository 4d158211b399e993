"""No images at all: what somebody has who holds a classifier and nothing else."""

import numpy as np

from ispf_jax.data.dataset import ArrayDataset, ImageData, Request
from ispf_jax.errors import UserError


def load(request: Request) -> ImageData:
    """Two empty splits of images of `image_size` and `channels`, which nothing else can tell; classes are named by their numbers.

    Raises UserError if size or channels are not given.
    """
    for key, value, example in (("image_size", request.image_size, 32), ("channels", request.channels, 3)):
        if value <= 0:
            raise UserError(
                f"data.{key} is {value}; without images set it to what the classifier was trained on, for example {example}."
            )
    size = request.image_size
    empty = ArrayDataset(np.zeros((0, size, size, request.channels), np.uint8), np.zeros(0, np.int32))
    return ImageData(
        "none", empty, empty, tuple(map(str, range(request.num_classes))), note="no images: nothing was measured on any"
    )
