"""The grid of images: where every pixel goes, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from ispf_jax.runtime.pictures import image_grid


@pytest.mark.parametrize("channels", [1, 3])
def test_image_grid_places_every_pixel(tmp_path, channels):
    images = np.random.default_rng(0).integers(0, 255, (5, 4, 6, channels), dtype=np.uint8)
    path = image_grid(images, tmp_path / "figures" / "grid.png", columns=3, scale=2)
    with Image.open(path) as file:
        grid = np.asarray(file).reshape(2 * 9 - 1, 3 * 13 - 1, channels)
    for i, image in enumerate(images):
        y, x = (i // 3) * 9, (i % 3) * 13
        np.testing.assert_array_equal(grid[y : y + 8 : 2, x : x + 12 : 2], image)
        np.testing.assert_array_equal(grid[y + 1 : y + 8 : 2, x + 1 : x + 12 : 2], image)
    assert (grid[8] == 255).all() and (grid[:, 12] == 255).all() and (grid[9:, 26:] == 255).all()


def test_image_grid_is_square_and_enlarged_by_default(tmp_path):
    path = image_grid(np.zeros((10, 16, 16, 3), np.uint8), tmp_path / "grid.png")
    with Image.open(path) as image:  # 4 columns, 3 lines, each image three times as large
        assert image.size == (4 * 49 - 1, 3 * 49 - 1)


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((2, 4, 4, 3)),
        np.zeros((2, 4, 4), np.uint8),
        np.zeros((0, 4, 4, 3), np.uint8),
        np.zeros((1, 4, 4, 2), np.uint8),
    ],
)
def test_image_grid_refuses_other_arrays(tmp_path, bad):
    with pytest.raises(ValueError, match="uint8"):
        image_grid(bad, tmp_path / "grid.png")
    assert not (tmp_path / "grid.png").exists()
