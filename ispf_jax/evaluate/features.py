"""What a network's layers hold: features of all depths in one compiled pass, and how alike two representations are (CKA)."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from ispf_jax.data.augment import normalise
from ispf_jax.errors import UserError
from ispf_jax.evaluate import inputs
from ispf_jax.models.layers import MaskedBatchNorm

PENULTIMATE = "penultimate"
"""Name of the features that the classifier head reads."""


@dataclass(frozen=True)
class Extracted:
    """Logits [N, C] and features by layer [N, F], float32: batch norms in network order, then `PENULTIMATE`."""

    logits: np.ndarray
    layers: dict[str, np.ndarray]


def layer_names(classifier, variables, image_shape) -> tuple[str, ...]:
    """The layers that features can be taken from, first to last: batch norms in the order of their calls, then `PENULTIMATE`.

    image_shape: (H, W, C). Names are paths such as "bn1" or "stage2_block1/bn_shortcut".
    """
    names = []

    def apply(variables):
        classifier.apply(
            variables,
            jnp.zeros((1, *image_shape)),
            capture_intermediates=partial(_record, names),
            mutable=["intermediates"],
        )

    jax.eval_shape(apply, variables)
    return (*names, PENULTIMATE)


def extract(classifier, variables, images, mean, std, layers=None, batch_size: int = 256) -> Extracted:
    """Logits and features of uint8 images [N, H, W, C] in eval mode, in batches of a fixed shape: compiles once per network.

    A layer's feature is its batch norm's output, rectified as the network goes on with it, averaged over positions. In the
    AllCNN the last one thus is the penultimate feature; inside a residual block it is the branch before the addition.

    Args:
      layers: names from `layer_names`, all if None.
    """
    if len(images) == 0:
        raise UserError("There are no images to take features of.")
    known = layer_names(classifier, variables, images.shape[1:])
    layers = known if layers is None else tuple(layers)
    unknown = [name for name in layers if name not in known]
    if unknown:
        raise UserError(
            f"There is no layer {', '.join(unknown)} to take features from; use some of {', '.join(known)}."
        )
    parts = []
    for start in range(0, len(images), batch_size):
        batch = np.asarray(images[start : start + batch_size])
        padded = np.pad(batch, ((0, batch_size - len(batch)), (0, 0), (0, 0), (0, 0)))
        out = _pass(classifier, layers, variables, padded, tuple(mean), tuple(std))
        parts.append([np.asarray(a)[: len(batch)] for a in out])
    logits, *features = (np.concatenate(column) for column in zip(*parts))
    return Extracted(logits, dict(zip(layers, features)))


def linear_cka(first, second) -> float | None:
    """Linear centred kernel alignment of features [N, F] and [N, G] of the same images, 0..1 (Kornblith et al. 2019, Eq. 7).

    ||Y^T X||_F^2 / (||X^T X||_F ||Y^T Y||_F) with columns centred; 1 for representations that are equal up to rotation, scale
    and shift. With few images it is biased upwards (unrelated features give about sqrt(F G) / N): compare values at the same N
    only. None, undefined, if one representation is constant.
    """
    first = inputs.matrix("the features of the first model", first)
    second = inputs.matrix("the features of the second model", second)
    inputs.same_length(first_features=first, second_features=second)
    x, y = (a - a.mean(axis=0) for a in (first, second))
    # Constant to rounding: centred values that are nothing beside the values themselves.
    if any(np.linalg.norm(c) <= 1e-7 * max(np.linalg.norm(a), 1e-30) for c, a in ((x, first), (y, second))):
        return None
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    # Of the two equal forms the one with the smaller matrices.
    if len(x) < min(x.shape[1], y.shape[1]):
        k, l = x @ x.T, y @ y.T
        return float(np.sum(k * l) / (np.linalg.norm(k) * np.linalg.norm(l)))
    return float(np.sum(np.square(y.T @ x)) / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)))


def _record(names, module, method):
    wanted = isinstance(module, MaskedBatchNorm) and method == "__call__"
    if wanted:
        names.append("/".join(module.path))
    return wanted


@partial(jax.jit, static_argnums=(0, 1))
def _pass(classifier, layers, variables, images, mean, std):
    (logits, penultimate), state = classifier.apply(
        variables, normalise(images, mean, std), capture_intermediates=partial(_record, []), mutable=["intermediates"]
    )

    def pooled(name):
        if name == PENULTIMATE:
            return penultimate
        node = state["intermediates"]
        for part in name.split("/"):
            node = node[part]
        (output,) = node["__call__"]
        return jnp.mean(jax.nn.relu(output.astype(jnp.float32)), axis=tuple(range(1, output.ndim - 1)))

    return (logits, *map(pooled, layers))
