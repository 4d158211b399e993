"""How close a model is to retraining, and how far from the original: predictions on forgotten images, and weights."""

from collections.abc import Callable

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from scipy.special import softmax

from ispf_jax.errors import ArgumentError
from ispf_jax.evaluate import inputs

EPS = 1e-12


def predictive_divergence(retrained_logits, model_logits) -> tuple[float, float]:
    """(KL(retrained || model) in nats, total variation in 0..1) of the mean predictions on the same images (figure 6a).

    KL = sum_c p_c log((p_c + eps) / (q_c + eps)) with eps = 1e-12, so it is at most about 27.6. The paper does not say
    which way its KL goes; this way, a model is punished for missing what retraining predicts.

    Args:
      retrained_logits, model_logits: [N, C].
    """
    p, q = (softmax(logits, axis=-1).mean(axis=0) for logits in (retrained_logits, model_logits))
    kl = max(float(np.sum(p * np.log((p + EPS) / (q + EPS)))), 0.0)
    return kl, float(np.sum(np.abs(p - q)) / 2)


def relative_distance(params, reference_params) -> float | None:
    """||w - w_ref||_2 / ||w_ref||_2 over all trainable parameters; None if the reference is 0.

    No permutation of hidden units is undone: a network trained from scratch is far away for that reason alone.
    """
    flat = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (params, reference_params))
    first, second = (inputs.finite("parameters", values) for values in flat)
    norm = float(np.linalg.norm(second))
    return float(np.linalg.norm(first - second)) / norm if norm > 0 else None


def layer_distances(params, reference_params) -> dict[str, float | None]:
    """`relative_distance` of every layer's kernel, by the layer's path such as "stage2_block1/conv1"."""
    ours, theirs = (flatten_dict(dict(tree), sep="/") for tree in (params, reference_params))
    kernels = [name for name in theirs if name.endswith("/kernel")]
    return {name.removesuffix("/kernel"): relative_distance(ours[name], theirs[name]) for name in kernels}


def losses_between(loss: Callable, start, end, points: int = 11) -> np.ndarray:
    """Losses [points, N] of networks on the straight line between two, the ends included.

    Batch-norm statistics are interpolated like the weights, not re-estimated: that needs no data, and can make barriers
    higher.

    Args:
      loss: variables -> losses of N images, for instance the cross entropy on test images.
      start, end: variables of two models with the same network.
    """
    if points < 3:
        raise ArgumentError("barrier_points", f"={points} leaves none between the ends; use 3 or more.")
    mixes = (jax.tree.map(lambda a, b, t=float(t): (1 - t) * a + t * b, start, end) for t in np.linspace(0, 1, points))
    return inputs.finite("losses between the two models", [np.asarray(loss(mix), np.float64) for mix in mixes])


def barrier(losses) -> float:
    """Linear-interpolation barrier max_a [L((1 - a) w_0 + a w_1) - (1 - a) L(w_0) - a L(w_1)], a equidistant in 0..1.

    0 or more, in the unit of the loss; 0: linearly connected, as a network is with its fine-tuned copies.

    Args:
      losses: `losses_between`, [points, N]; L is their mean over N.
    """
    mean, alphas = np.mean(losses, axis=1), np.linspace(0, 1, len(losses))
    return float(max(np.max(mean - (1 - alphas) * mean[0] - alphas * mean[-1]), 0.0))
