"""Pillow at one place: encoded images to uint8 arrays, and arrays to another size or number of channels."""

import io

import numpy as np
from PIL import Image, ImageOps

from ispf_jax.errors import UserError

FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
GREY_MODES = ("1", "L", "LA")


class Decoder:
    """Turns one encoded image after the other into arrays of one common size.

    size: side in pixels, 0: the first image decides. resize: bring other sizes to `size` (bilinear, aspect ratio not
    kept) instead of refusing them. channels: 1 or 3 to convert, 0: as every image is (grey gives 1, all else 3).
    Grey values of 16 bits are scaled to 8. Photos are turned upright, as their EXIF data say.

    Raises UserError if `resize` is asked for without a size, or the numbers make no sense.
    """

    def __init__(self, size: int, resize: bool, channels: int):
        check_shape(size, channels)
        if resize and not size:
            raise UserError("data.resize is on, but data.image_size is 0; set data.image_size to the side in pixels.")
        self.size, self.resize, self.channels = size, resize, channels

    def __call__(self, encoded: bytes, file: str) -> np.ndarray:
        """uint8 [size, size, 1 or 3]. `file` is for messages.

        Raises UserError if the image is damaged, does not fit or is partly transparent.
        """
        image = _opened(encoded, file)
        self.size = self.size or self._square(image, file)
        channels = self.channels or (1 if image.mode in GREY_MODES else 3)
        image = image.convert("L" if channels == 1 else "RGB")
        if image.size != (self.size, self.size):
            if not self.resize:
                raise UserError(
                    f"The image {file} is {image.width}x{image.height} pixels, {self.size}x{self.size} was expected; "
                    "set data.resize=True and data.image_size to bring all images to one size."
                )
            image = image.resize((self.size, self.size), Image.Resampling.BILINEAR)
        return np.asarray(image).reshape(self.size, self.size, channels)

    @staticmethod
    def _square(image, file: str) -> int:
        if image.width != image.height:
            raise UserError(
                f"The image {file} is {image.width}x{image.height} pixels, but images must be square; "
                "set data.resize=True and data.image_size to bring all images to one size."
            )
        return image.width


def _opened(encoded: bytes, file: str) -> Image.Image:
    """The image in a mode of 8 bits, upright and without transparency."""
    try:
        image = Image.open(io.BytesIO(encoded), formats=FORMATS)
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        see_through = image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] < 255
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise UserError(f"The image {file} cannot be decoded ({error}); replace or remove it.") from error
    if see_through:  # the colours below are arbitrary: a shape may be in the transparency alone
        raise UserError(
            f"The image {file} is partly transparent, so what it shows depends on the background; "
            "save such images without transparency, all on the same background."
        )
    if image.mode.startswith("I"):  # Pillow would cut off what is above 255
        return Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
    return image


def check_shape(size: int, channels: int) -> None:
    """Raises UserError if `size` is negative or `channels` not 0, 1 or 3."""
    if size < 0:
        raise UserError(f"data.image_size is {size}; it must be 0 (the size of the images) or a number of pixels.")
    if channels not in (0, 1, 3):
        raise UserError(f"data.channels is {channels}; it must be 0 (as in the images), 1 (grey) or 3 (colour).")


def conform(images: np.ndarray, size: int, channels: int) -> np.ndarray:
    """uint8 [N, H, W, C] brought to `size` pixels and `channels` (0: as they are); bilinear, grey as ITU-R 601 luma."""
    side, depth = size or images.shape[1], channels or images.shape[3]
    if images.shape[1:] == (side, side, depth):
        return images
    out = np.empty((len(images), side, side, depth), np.uint8)
    for i, pixels in enumerate(images):
        image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        image = image.convert("L" if depth == 1 else "RGB").resize((side, side), Image.Resampling.BILINEAR)
        out[i] = np.asarray(image).reshape(side, side, depth)
    return out


def encode_png(pixels: np.ndarray) -> bytes:
    """uint8 [H, W, 3] as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
