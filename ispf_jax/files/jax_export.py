"""A classifier as one file for `jax.export.deserialize`, which needs neither this package nor Flax."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from ispf_jax.classifier import Classifier
from ispf_jax.runtime.guard import read_bounded, reading

SUFFIXES = (".jax",)
PLATFORMS = ("cpu", "cuda")


def write(classifier: Classifier) -> bytes:
    """uint8 images [N, H, W, C] of any N -> logits [N, classes], float32, with the weights as constants."""
    network, variables = classifier.network, jax.tree.map(jnp.asarray, classifier.variables)
    (count,) = export.symbolic_shape("N")
    images = jax.ShapeDtypeStruct((count, *network.image_shape), jnp.uint8)

    @jax.jit
    def logits(images):
        return network.module.apply(variables, network.normalise(images))[0]

    return bytes(export.export(logits, platforms=PLATFORMS)(images).serialize())


def agrees(path: Path, classifier: Classifier) -> bool:
    """Whether a file computes what the classifier computes, on two images of noise.

    Raises:
      UserError: it cannot be read.
    """
    images = np.random.default_rng(0).integers(0, 256, (2, *classifier.image_shape), np.uint8)
    with reading(path):
        found = export.deserialize(bytearray(read_bounded(path, 2 << 30))).call(images)
    return bool(np.allclose(found, classifier(images), rtol=1e-4, atol=1e-4))
