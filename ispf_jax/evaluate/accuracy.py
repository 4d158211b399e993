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
    # As many rows for every subset of about that size: subsets share one program.
    rows = np.full(_padded(len(chosen), len(labels), batch_size), -1, np.int32)
    rows[: len(chosen)] = chosen
    hidden = jnp.zeros(network.num_classes) if hidden is None else hidden
    kind, key = augmented
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


def _padded(chosen, available, batch):
    """Rows for `chosen` of `available` images: rounded up to a multiple of the batch and of an eighth of all images."""
    grain = max(batch, -(-available // 8 // batch) * batch)
    return -(-chosen // grain) * grain


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
