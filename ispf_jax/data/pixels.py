"""Pillow in one place: encoded images to uint8 arrays, and arrays to another size or number of channels."""

import io
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ispf_jax.errors import UserError
from ispf_jax.memory import host_bytes, require
from ispf_jax.runtime.guard import reading

FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "PPM")
SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".webp", ".ppm", ".pgm", ".pbm", ".pnm")
GREY_MODES = ("1", "L", "LA")
ENCODED_BYTES = 256 << 20  # the largest file that is read
_SIDE, _PIXELS = 4096, 1 << 26  # of the largest image that is kept as it is, and of the largest that is decoded
_ALL_PIXELS, _RATIO = 1 << 30, 200  # of all images, and per byte of their files where that is more
_SCANS = 2  # of a JPEG that count as decoding it once; progressive ones have 10
_PLAIN_BYTES = 4 << 20  # of an image that is written as numbers in plain text, which takes a second per MB
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
        self._encoded = self._decoded = self._kept = 0
        self._most = host_bytes() // 4  # half of it is taken while images become one array

    def __call__(self, encoded: bytes, file: str) -> np.ndarray:
        """uint8 [size, size, 1 or 3]. `file` is for messages.

        Raises:
          UserError: the image is damaged, too large, does not fit or is partly transparent.
        """
        with reading(f"The image {file}"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about metadata that nobody reads here
            if encoded[:2] in (b"P1", b"P2", b"P3") and len(encoded) > _PLAIN_BYTES:
                raise ValueError("it is written in plain text, so large that it takes too long")
            try:
                image = Image.open(io.BytesIO(encoded), formats=FORMATS)
            except UnidentifiedImageError as error:
                raise ValueError(f"it is none of {', '.join(FORMATS)}") from error
            self._check(image, encoded, file)
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

    def _check(self, image, encoded: bytes, file: str) -> None:
        """Looks at the head of the file only, which says how much memory decoding takes."""
        shape = f"{image.width}x{image.height} pixels"
        if image.width * image.height > _PIXELS:
            raise UserError(f"The image {file} has {shape}; at most {_PIXELS:,} pixels are decoded.")
        if not self.resize:
            if self.size and image.size != (self.size, self.size):
                raise UserError(f"The image {file} is {shape}, {self.size}x{self.size} was expected; {_ADVICE}.")
            if image.width != image.height:
                raise UserError(f"The image {file} is {shape}, but images must be square; {_ADVICE}.")
            if image.width > _SIDE:
                raise UserError(f"The image {file} is {shape}, but at most {_SIDE} are kept; {_ADVICE}.")
            self.size = image.width
        scans = encoded.count(b"\xff\xda") if encoded.startswith(b"\xff\xd8") else 0
        self._encoded += len(encoded)
        self._decoded += image.width * image.height * max(1, scans // _SCANS)  # every scan passes over the whole image
        self._kept += self.size**2 * (self.channels or 3)
        if self._kept > self._most:
            advice = "set a smaller image_size with resize=True, or use fewer images"
            raise UserError(f"The images up to {file} take {self._kept:,} bytes, too much for this machine; {advice}.")
        if self._decoded > max(_ALL_PIXELS, _RATIO * self._encoded):
            pixels = f"{self._decoded:,} pixels in {self._encoded:,} bytes"
            raise UserError(f"The images up to {file} have {pixels}, too many to decode; scale them down before.")


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
