"""Pillow in one place: encoded images to uint8 arrays, and arrays to another size or number of channels."""

import io

import numpy as np
from PIL import Image, ImageOps

from ispf_jax.errors import UserError
from ispf_jax.memory import require
from ispf_jax.runtime.guard import reading

FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "PPM")
SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".webp", ".ppm", ".pgm", ".pbm")
GREY_MODES = ("1", "L", "LA")
ENCODED_BYTES = 256 << 20  # the largest file that is read
_PIXELS = 1 << 26  # the largest image that is decoded
_DECODED_BYTES = 32 << 30
_ADVICE = "set resize=True and image_size to bring all images to one size"


class Decoder:
    """Turns one encoded image after the other into arrays of one common size.

    Grey values of 16 bits are scaled to 8. Photos are turned upright, as their EXIF data say.

    Args:
      size: side in pixels; 0: the first image decides.
      resize: bring other sizes to `size` (bilinear, aspect ratio not kept) instead of refusing them.
      channels: 1 or 3 to convert; 0: as every image is (grey gives 1, all else 3).
    """

    def __init__(self, size: int, resize: bool, channels: int):
        self.size, self.resize, self.channels = size, resize, channels
        self._left = _DECODED_BYTES

    def __call__(self, encoded: bytes, file: str) -> np.ndarray:
        """uint8 [size, size, 1 or 3]. `file` is for messages.

        Raises:
          UserError: the image is damaged, too large, does not fit or is partly transparent.
        """
        with reading(f"The image {file}"):
            image = Image.open(io.BytesIO(encoded), formats=FORMATS)
            self._check(image, file)
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            see_through = image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] < 255  # pyright: ignore
        if see_through:  # the colours below are arbitrary: a shape may be in the transparency alone
            raise UserError(
                f"The image {file} is partly transparent, so what it shows depends on the background; "
                "save such images without transparency, all on the same background."
            )
        if image.mode == "F":
            raise UserError(f"The image {file} holds floating-point numbers of unknown range; save it with 8 bits.")
        if image.mode.startswith("I"):  # by itself, Pillow would cut off what is above 255
            image = Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
        return _pixels(image, self.size, self.channels or (1 if image.mode in GREY_MODES else 3))

    def _check(self, image, file: str) -> None:
        """Looks at the head of the file only, which says how much memory decoding takes."""
        shape = f"{image.width}x{image.height} pixels"
        if image.width * image.height > _PIXELS:
            raise UserError(f"The image {file} has {shape}; at most {_PIXELS:,} pixels are decoded.")
        if not self.resize:
            if self.size and image.size != (self.size, self.size):
                raise UserError(f"The image {file} is {shape}, {self.size}x{self.size} was expected; {_ADVICE}.")
            if image.width != image.height:
                raise UserError(f"The image {file} is {shape}, but images must be square; {_ADVICE}.")
            self.size = image.width
        self._left -= self.size**2 * (self.channels or 3)
        if self._left < 0:
            raise UserError(f"The images up to {file} take more than {_DECODED_BYTES:,} bytes; {_ADVICE}.")


def conform(images: np.ndarray, size: int, channels: int) -> np.ndarray:
    """uint8 [N, H, W, C] brought to `size` pixels and `channels` (0: as they are); bilinear, grey as ITU-R 601 luma."""
    side, depth = size or images.shape[1], channels or images.shape[3]
    if images.shape[1:] == (side, side, depth):
        return images
    require("image_size", f"={side}: {len(images):,} images of this size", len(images) * side**2 * depth)
    out = np.empty((len(images), side, side, depth), np.uint8)
    for i, pixels in enumerate(images):
        out[i] = _pixels(Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels), side, depth)
    return out


def _pixels(image: Image.Image, size: int, channels: int) -> np.ndarray:
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(size, size, channels)
