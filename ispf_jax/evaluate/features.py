"""What a network's layers hold: features of all depths in one compiled pass, and how alike two representations are
(CKA)."""

from functools import cache, partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from ispf_jax.classifier import Network
from ispf_jax.evaluate import inputs
from ispf_jax.models.layers import MaskedBatchNorm

PENULTIMATE = "penultimate"
"""Name of the features that the classifier head reads."""


class Extracted(NamedTuple):
    """Logits [N, C] and features by layer [N, F], float64."""

    logits: np.ndarray
    layers: dict[str, np.ndarray]


@cache
def layer_names(network: Network) -> tuple[str, ...]:
    """The layers that features can be taken from: batch norms in the order of their calls, then `PENULTIMATE`.

    Names are paths such as "bn1" or "stage2_block1/bn_shortcut".
    """
    names = []

    def noted(module, method):
        names.extend(["/".join(module.path)] * _is_norm(module, method))
        return False

    apply = partial(network.module.apply, capture_intermediates=noted, mutable=["intermediates"])
    jax.eval_shape(apply, network.shapes(), jnp.zeros((1, *network.image_shape)))
    return (*names, PENULTIMATE)


def extract(network: Network, variables, images, layers=None, batch_size: int = 500, name="the model") -> Extracted:
    """Logits and features of uint8 images [N, H, W, C] in eval mode, in batches of a fixed shape: compiles once per
    network.

    A layer's feature is its batch norm's output, rectified as the network goes on with it, averaged over positions. In
    the AllCNN the last one thus is the penultimate feature; inside a residual block it is the branch before the
    addition.

    Args:
      layers: names from `layer_names`; None: all.
      name: what errors call the model.

    Raises:
      UserError: there are no images, or logits or features are NaN or infinite.
    """
    layers = layer_names(network) if layers is None else tuple(layers)
    padded = np.pad(images, ((0, -len(images) % batch_size), (0, 0), (0, 0), (0, 0)))
    batches = np.split(padded, range(batch_size, len(padded), batch_size))
    parts = [_pass(network, layers, variables, batch) for batch in batches]
    columns = (np.concatenate(column)[: len(images)] for column in zip(*parts))
    logits, *features = (inputs.finite(f"logits or features of {name}", column) for column in columns)
    return Extracted(logits, dict(zip(layers, features)))


def linear_cka(first, second) -> float | None:
    """Linear centred kernel alignment of features [N, F] and [N, G] of the same images, 0..1 (Kornblith et al. 2019,
    Eq. 7).

    ||Y^T X||_F^2 / (||X^T X||_F ||Y^T Y||_F) with columns centred; 1 for representations that are equal up to rotation,
    scale and shift. With few images it is biased upwards (unrelated features give about sqrt(F G) / N): compare values
    at the same N only. None, undefined, if one representation is constant.
    """
    x, y = (a - a.mean(axis=0) for a in (first, second))
    # Constant up to rounding: centred values that vanish compared with the values themselves.
    if any(np.linalg.norm(c) <= 1e-7 * max(np.linalg.norm(a), 1e-30) for c, a in ((x, first), (y, second))):
        return None
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    return float(np.sum(np.square(y.T @ x)) / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)))


def _is_norm(module, method):
    return isinstance(module, MaskedBatchNorm | nn.BatchNorm) and method == "__call__"


@partial(jax.jit, static_argnums=(0, 1))
def _pass(network, layers, variables, images):
    apply = partial(network.module.apply, capture_intermediates=_is_norm, mutable=["intermediates"])
    (logits, penultimate), state = apply(variables, network.normalise(images))
    outputs = flatten_dict(state.get("intermediates", {}), sep="/")  # none without batch norms

    def pooled(name):
        if name == PENULTIMATE:
            return penultimate
        (output,) = outputs[f"{name}/__call__"]  # pyright: ignore
        return jnp.mean(jax.nn.relu(output.astype(jnp.float32)), axis=tuple(range(1, output.ndim - 1)))

    return (logits, *map(pooled, layers))
