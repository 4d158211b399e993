"""Images next to each other in one PNG."""

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image

from ispf_jax.errors import UserError
from ispf_jax.runtime.atomic import atomic_write_bytes, ensure_writable
from ispf_jax.runtime.guard import read_bounded, reading
from ispf_jax.runtime.schema import set_aside


def read_picture(path: Path) -> bytes | None:
    """The content of a PNG that was written here; None if it was damaged and has been set aside."""
    try:
        content = read_bounded(path, 64 << 20)
        with reading(path), Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            image.verify()
        return content
    except UserError as error:
        set_aside(path, error)
        return None


def image_grid(
    images_uint8: np.ndarray, path: str | os.PathLike, columns: int | None = None, scale: int | None = None
) -> Path:
    """Write images, uint8 [N, H, W, C] with C of 1 or 3, as one PNG: row by row, a white pixel between neighbours.

    `columns` defaults to a square grid, `scale` (whole number, nearest neighbour) to images 48 pixels high.
    """
    images = np.asarray(images_uint8)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3) or not len(images):
        raise ValueError(f"image_grid wants uint8 [N, H, W, 1 or 3] with N > 0, not {images.dtype} {images.shape}")
    n, height, width, channels = images.shape
    across = min(n, columns or int(np.ceil(np.sqrt(n))))
    lines = -(-n // across)
    scale = scale or max(1, 48 // height)
    images = images.repeat(scale, axis=1).repeat(scale, axis=2)
    step_y, step_x = height * scale + 1, width * scale + 1
    canvas = np.full((lines * step_y - 1, across * step_x - 1, channels), 255, np.uint8)
    for i, image in enumerate(images):
        y, x = i // across * step_y, i % across * step_x
        canvas[y : y + step_y - 1, x : x + step_x - 1] = image
    buffer = io.BytesIO()
    Image.fromarray(canvas[..., 0] if channels == 1 else canvas).save(buffer, "PNG")
    ensure_writable(Path(path).parent)
    return atomic_write_bytes(path, buffer.getvalue())
