"""scikit-learn's 1,797 handwritten digits: real images that come with an installed package, 8x8 pixels."""

import numpy as np

from ispf_jax.data.dataset import ArrayDataset, ImageData, Request
from ispf_jax.data.pixels import check_shape, conform
from ispf_jax.errors import UserError

SIZE = 16
SPLIT_SEED = 20240  # the split belongs to the data set: every run has the same test images


def load(request: Request) -> ImageData:
    """The digits at `image_size` (default 16) pixels, `channels` 1 (default) or 3; 80 % train, 20 % test, stratified.

    The grey values 0..16 become 0..255 and the images are enlarged with Pillow's bilinear filter.
    The split is fixed and does not depend on the run's seed. Source: E. Alpaydin, C. Kaynak, "Optical recognition of
    handwritten digits", UCI repository 1998; scikit-learn holds its test part.
    Raises UserError if the size is smaller than 8 or the channels are neither 1 nor 3.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    check_shape(request.image_size, request.channels)
    size = request.image_size or SIZE
    if size < 8:
        raise UserError(f"data.image_size is {size}; the digits need at least 8 pixels.")
    digits = load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    images, labels = conform(grey, size, request.channels or 1), digits.target.astype(np.int32)
    train, test = train_test_split(np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=SPLIT_SEED)
    train, test = np.sort(train), np.sort(test)
    return ImageData(
        "digits",
        ArrayDataset(images[train], labels[train]),
        ArrayDataset(images[test], labels[test]),
        tuple("0123456789"),
    )
