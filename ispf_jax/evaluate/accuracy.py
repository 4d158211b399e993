"""Accuracies on forgotten, retained and all images, from one confusion matrix."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ispf_jax.augment import augment
from ispf_jax.classifier import Network


def confusion(
    network: Network, variables, images, labels, *, batch_size=500, member=None, hidden=None, augmented=("none", None)
) -> np.ndarray:
    """Counts [C, C] of (true class, predicted class), in eval mode; compiled once per shape of the data.

    Args:
      images: uint8 [M, H, W, C'], best on the device; labels: int32 [M].
      batch_size: images per forward pass.
      member: bool [M], images to count; None: all.
      hidden: [C], classes whose logits are cut off before the prediction is taken (a masked head); None: none.
      augmented: (kind of augmentation, random key), for the authors' augmented validation split.
    """
    chosen = np.arange(len(labels)) if member is None else np.flatnonzero(member)
    if not len(chosen):
        return np.zeros((network.num_classes, network.num_classes), np.int64)
    batch_size = min(batch_size, len(labels))
    # As many rows for every subset of about that size, a multiple of an eighth of all: subsets share one program.
    grain = max(batch_size, -(-len(labels) // 8 // batch_size) * batch_size)
    rows = np.pad(chosen.astype(np.int32), (0, -len(chosen) % grain), constant_values=-1)
    hidden, (kind, key) = jnp.zeros(network.num_classes) if hidden is None else hidden, augmented
    key = jax.random.key(0) if key is None else key
    counts = _confusion(network, kind, variables, images, labels, rows.reshape(-1, batch_size), hidden, key)
    return np.asarray(counts).astype(np.int64)


@partial(jax.jit, static_argnums=(0, 1))
def _confusion(network, augmentation, variables, images, labels, rows, hidden, key):
    classes = network.num_classes

    def body(total, batch):
        rows, key = batch
        logits, _ = network.module.apply(variables, network.normalise(augment(augmentation, key, images[rows])))
        predicted = jnp.argmax(jnp.where(hidden > 0, -jnp.inf, logits), axis=-1)
        counts = jnp.zeros((classes, classes), jnp.int32).at[labels[rows], predicted].add((rows >= 0).astype(jnp.int32))
        return total + counts, None

    total, _ = lax.scan(body, jnp.zeros((classes, classes), jnp.int32), (rows, jax.random.split(key, len(rows))))
    return total


@dataclass(frozen=True)
class Accuracies:
    """Top-1 accuracies in percent, predicted over all classes: on images of forgotten classes, of retained ones, of
    all."""

    forget: float
    retain: float
    overall: float


def accuracies(confusion: np.ndarray, forget: tuple[int, ...]) -> Accuracies:
    """Accuracies from counts [C, C]; NaN where there is no image to count."""
    hits, totals = np.diag(confusion), confusion.sum(axis=1)
    of_forget = np.isin(np.arange(len(totals)), forget)

    def percent(classes):
        n = totals[classes].sum()
        return float(100 * hits[classes].sum() / n) if n else float("nan")

    return Accuracies(percent(of_forget), percent(~of_forget), percent(slice(None)))
