"""The computation of a classifier as one file for `jax.export.deserialize`, which needs neither this package nor Flax."""

import jax
import jax.numpy as jnp
from jax import export

from ispf_jax.classifier import Classifier

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
