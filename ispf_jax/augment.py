"""Augmentation and normalisation, inside the compiled program.

Images stay on the device as uint8, a quarter of the memory of float32, and are normalised batch by batch.
"""

import jax
import jax.numpy as jnp

from ispf_jax.errors import ArgumentError

PAD = 4  # pixels on every side, as in the authors' RandomCrop(32, padding=4)
KINDS = ("none", "crop_flip")
"""Every augmentation."""


def normalise(images, mean, std) -> jax.Array:
    """(images / 255 - mean) / std as float32.

    Args:
      images: uint8 [..., C].
      mean, std: of length C (or 1), for pixels in [0, 1].
    """
    mean, std = jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32)
    return (images.astype(jnp.float32) / 255 - mean) / std


def augment(kind: str, key, images) -> jax.Array:
    """Images changed at random, each independently; still uint8 [N, H, W, C].

    Args:
      kind: one of `KINDS`; static. "crop_flip" is a random window of the original size out of the image with 4 black
        pixels around it, then a horizontal flip with probability 1/2.
      key: one key for the batch, or one key per example ([N]); with the latter a batch divided over devices gives the
        same images as the whole batch on one.

    Raises:
      ArgumentError: `kind` is unknown.
    """
    if kind not in KINDS:
        raise ArgumentError("augment", f"={kind!r} must be one of {', '.join(KINDS)}.")
    if kind == "none":
        return images
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    keys = jax.random.split(key, len(images)) if key.ndim == (0 if typed else 1) else key
    offsets, flips = jax.vmap(_draw)(keys)
    return crop_flip(images, offsets, flips)


def _draw(key):
    place, mirror = jax.random.split(key)
    return jax.random.randint(place, (2,), 0, 2 * PAD + 1), jax.random.bernoulli(mirror)


def crop_flip(images, offsets, flips) -> jax.Array:
    """The window of every padded image that starts at `offsets`, flipped where `flips` is true.

    Args:
      images: uint8 [N, H, W, C].
      offsets: int [N, 2], row and column, 0..8.
      flips: bool [N].
    """
    size = images.shape[1:]
    padded = jnp.pad(images, ((0, 0), (PAD, PAD), (PAD, PAD), (0, 0)))
    crops = jax.vmap(lambda x, at: jax.lax.dynamic_slice(x, (at[0], at[1], 0), size))(padded, offsets)
    return jnp.where(flips[:, None, None, None], crops[:, :, ::-1], crops)
