"""Replay of synthetic images: the student sees earlier images of the generator again, moved and mirrored.

The generator turns to whatever the student cannot do yet, and the student forgets what it saw before. A ring of images
in 8 bits on the device, part of the run's state, keeps them at hand.
"""

import flax.struct
import jax
import jax.numpy as jnp
from jax import lax

from ispf_jax.augment import augment
from ispf_jax.collectives import local_slice


@flax.struct.dataclass
class Memory:
    """A ring of images.

    Attributes:
      images: uint8 [M, H, W, C]; every device holds all of them.
      stored: how many images were ever put in.
    """

    images: jax.Array
    stored: jax.Array


def empty(images: int, at_once: int, image_shape: tuple[int, int, int]) -> Memory:
    """A ring for about `images` images that are put in `at_once` at a time: a whole number of times."""
    size = max(images // at_once, 1) * at_once
    return Memory(jnp.zeros((size, *image_shape), jnp.uint8), jnp.int32(0))


def put(memory: Memory, images, axis=None) -> Memory:
    """The ring with the oldest images replaced.

    Args:
      images: float in [0, 1], [n, H, W, C], this device's share; those of all devices are stored, in their order.
    """
    images = jnp.round(255 * images).astype(jnp.uint8)
    if axis is not None:
        whole = jnp.zeros((len(images) * lax.axis_size(axis), *images.shape[1:]), jnp.uint8)
        share = lax.dynamic_update_slice_in_dim(whole, images, lax.axis_index(axis) * len(images), 0)
        images = lax.psum(share, axis)
    start = memory.stored % len(memory.images)
    return Memory(lax.dynamic_update_slice_in_dim(memory.images, images, start, 0), memory.stored + len(images))


def draw(memory: Memory, key, count: int, axis=None):
    """This device's share of `count` stored images, each moved by up to 4 pixels and mirrored or not, uint8."""
    which_key, change_key = jax.random.split(key)
    filled = jnp.minimum(memory.stored, len(memory.images))
    which = local_slice(jax.random.randint(which_key, (count,), 0, filled), axis)
    changes = local_slice(jax.random.split(change_key, count), axis)
    return augment("crop_flip", changes, memory.images[which])


def mix(key, images, others, count: int, share: float, axis=None):
    """This device's images, each with probability `share` replaced by a x image + (1 - a) x other, a uniform in [0, 1].

    Args:
      images, others: float [n, H, W, C], this device's share of `count`.
    """
    whether, how = jax.random.split(key)
    of_others = jax.random.uniform(how, (count,)) * (jax.random.uniform(whether, (count,)) < share)
    a = 1 - local_slice(of_others, axis)[:, None, None, None]
    return a * images + (1 - a) * others
