"""A trained generator of images, which needs nothing but a seed."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from ispf_jax.models import Generator
from ispf_jax.state import random_stream


class ImageGenerator:
    """A trained generator: called with a number of images and a seed it returns them, uint8 [N, H, W, C]."""

    def __init__(self, module: Generator, variables: dict, latent_dim: int):
        self.module, self.variables, self.latent_dim = module, variables, latent_dim

    def __call__(self, count: int = 64, seed: int = 0) -> np.ndarray:
        noise = jax.random.normal(random_stream(seed, "samples"), (count, self.latent_dim))
        return np.asarray(_images(self.module, self.variables, noise))


@partial(jax.jit, static_argnums=0)
def _images(module, variables, noise):
    return jnp.round(255 * module.apply(variables, noise)).astype(jnp.uint8)
