"""Augmentation and normalisation against numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ispf_jax.augment import crop_flip
from ispf_jax.data import augment, normalise
from ispf_jax.errors import UserError
from tests.data.makers import pixels


def test_normalise_is_numpys():
    images, mean, std = pixels(3, 0), (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    got = jax.jit(normalise)(images, np.array(mean), np.array(std))
    want = (images / 255.0 - np.array(mean)) / np.array(std)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(normalise(images, mean, std), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size, channels", [(32, 3), (16, 1)])
def test_crop_flip_is_the_slow_numpy_one(size, channels):
    rng = np.random.default_rng(0)
    images = pixels(40, 1, size, channels)
    offsets, flips = rng.integers(0, 9, (40, 2)), rng.random(40) < 0.5
    got = np.asarray(crop_flip(images, offsets, flips))
    for image, (row, column), flip, result in zip(images, offsets, flips, got):
        padded = np.zeros((size + 8, size + 8, channels), np.uint8)
        padded[4:-4, 4:-4] = image
        window = padded[row : row + size, column : column + size]
        assert (result == (window[:, ::-1] if flip else window)).all()


def test_every_result_is_a_window_and_all_occur():
    image = pixels(1, 2, size=8)[0]
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
    windows = {}
    for row in range(9):
        for column in range(9):
            window = padded[row : row + 8, column : column + 8]
            windows.setdefault(window.tobytes(), (row, column, False))
            windows.setdefault(window[:, ::-1].tobytes(), (row, column, True))
    batch = np.broadcast_to(image, (4000, *image.shape))
    got = np.asarray(jax.jit(augment, static_argnums=0)("crop_flip", jax.random.key(0), batch))
    assert got.dtype == np.uint8
    seen = [windows[result.tobytes()] for result in got]
    assert len({(row, column) for row, column, _ in seen}) == 81
    assert abs(np.mean([flip for _, _, flip in seen]) - 0.5) < 0.04


def test_keys():
    images = pixels(6, 3)
    key = jax.random.key(7)
    whole = augment("crop_flip", key, images)
    keys = jax.random.split(key, 6)
    halves = [augment("crop_flip", keys[:3], images[:3]), augment("crop_flip", keys[3:], images[3:])]
    assert (whole == jnp.concatenate(halves)).all()
    assert (whole == augment("crop_flip", jax.random.key_data(key), images)).all()
    assert (whole != augment("crop_flip", jax.random.key(8), images)).any()


def test_kinds():
    images = pixels(2, 4)
    assert augment("none", jax.random.key(0), images) is images
    with pytest.raises(UserError, match="augment='mixup' must be one of none, crop_flip"):
        augment("mixup", jax.random.key(0), images)
