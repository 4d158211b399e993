"""How close a model is to retraining, and how far from the original: predictions on forgotten images, and weights."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np
from scipy.special import softmax

from ispf_jax.errors import UserError
from ispf_jax.evaluate import inputs

EPS = 1e-12


@dataclass(frozen=True)
class PredictiveDivergence:
    """Distance of a model's predictions from the retrained model's on the same images. KL in nats, 0 or more; TV in 0..1.

    `*_of_means` compare the mean softmax over the images (the paper's figure 6a), `mean_*` average the distance per image.
    """

    kl_of_means: float
    tv_of_means: float
    mean_kl: float
    mean_tv: float
    n: int


@dataclass(frozen=True)
class ParameterDistance:
    """L2 distance over all trainable parameters (batch statistics excluded), and relative to the reference's norm."""

    l2: float
    relative: float | None


@dataclass(frozen=True)
class Interpolation:
    """Losses on the straight line between two models, and the barrier: the largest excess over the line between the end losses.

    0 or more, in the unit of the loss; 0: linearly connected, as a network is with its fine-tuned copies.
    """

    alphas: tuple[float, ...]
    losses: tuple[float, ...]
    barrier: float


def kl(p, q) -> np.ndarray:
    """KL(p || q) = sum_c p_c log((p_c + eps) / (q_c + eps)) over the last axis, nats, eps = 1e-12 (so at most about 27.6)."""
    return np.maximum(np.sum(p * np.log((p + EPS) / (q + EPS)), axis=-1), 0.0)


def total_variation(p, q) -> np.ndarray:
    """TV(p, q) = sum_c |p_c - q_c| / 2 over the last axis, 0..1."""
    return np.sum(np.abs(p - q), axis=-1) / 2


def predictive_divergence(retrained_logits, model_logits) -> PredictiveDivergence:
    """KL(retrained || model) and total variation on the forgotten test images, from logits [N, C] of both models.

    The paper's figure 6a does not say which way its KL goes; this way, a model is punished for missing what retraining predicts.
    """
    first = inputs.logits("the retrained model's logits", retrained_logits)
    second = inputs.logits("the model's logits", model_logits)
    inputs.same_length(retrained_logits=first, model_logits=second)
    inputs.same_length(classes_of_retrained=first.T, classes_of_model=second.T)
    p, q = softmax(first, axis=-1), softmax(second, axis=-1)
    means = p.mean(axis=0), q.mean(axis=0)
    values = kl(*means), total_variation(*means), np.mean(kl(p, q)), np.mean(total_variation(p, q))
    return PredictiveDivergence(*map(float, values), len(p))


def parameter_distance(model_params, reference_params) -> ParameterDistance:
    """||w - w_ref||_2 over all parameters, and divided by ||w_ref||_2 (None if that is 0).

    No permutation of hidden units is undone: a network trained from scratch is far away for that reason alone.
    """
    _check_alike(model_params, reference_params)
    first, second = _flat(model_params), _flat(reference_params)
    distance, norm = float(np.linalg.norm(first - second)), float(np.linalg.norm(second))
    return ParameterDistance(distance, distance / norm if norm > 0 else None)


def interpolation(evaluate_loss: Callable, start, end, points: int = 11) -> Interpolation:
    """Linear-interpolation barrier max_a [L((1 - a) w_0 + a w_1) - (1 - a) L(w_0) - a L(w_1)] on `points` equidistant a in 0..1.

    Batch-norm statistics are interpolated like the weights, not re-estimated: that needs no data, and can make barriers higher
    than after a re-estimation.

    Args:
      evaluate_loss: variables -> loss (a float), for instance the mean cross entropy on test images.
      start, end: variables of the two models, alike in structure and shapes.
    Raises:
      UserError: fewer than 3 points, models that differ in shape, a loss that is not finite.
    """
    if points < 3:
        raise UserError(f"An interpolation with {points} points has none between the ends; use 3 or more.")
    _check_alike(start, end)
    alphas = np.linspace(0, 1, points)
    mixes = (jax.tree.map(lambda a, b, t=float(t): (1 - t) * a + t * b, start, end) for t in alphas)
    losses = inputs.finite("losses between the two models", [float(evaluate_loss(mix)) for mix in mixes])
    excess = losses - (1 - alphas) * losses[0] - alphas * losses[-1]
    return Interpolation(tuple(map(float, alphas)), tuple(map(float, losses)), float(max(np.max(excess), 0.0)))


def _check_alike(first, second):
    shapes = [jax.tree.map(np.shape, tree) for tree in (first, second)]
    if shapes[0] != shapes[1]:
        raise UserError(
            "The two models differ in architecture, width or number of classes; their weights cannot be compared."
        )


def _flat(tree):
    return inputs.finite(
        "parameters", np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(tree)])
    )
