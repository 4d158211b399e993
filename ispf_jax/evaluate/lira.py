"""LiRA, the per-example likelihood-ratio attack (Carlini et al. 2022).

Population attacks ask whether members look different on average; this one asks, for every single image, whether the
model under attack behaves like models that have seen *this* image or like models that have not. Statistic:
`signals.scaled_confidence`.
"""

import numpy as np
from scipy.stats import norm
from sklearn.metrics import auc, roc_curve

SMALLEST_STD = 1e-3
"""Floor of every fitted standard deviation, in logits: with few shadows a fit can collapse onto equal values."""

FEWEST = 2
"""Shadow models on either side of an image that a Gaussian can be fitted to."""


def halves(num_images: int, shadows: int, seed: int) -> np.ndarray:
    """Images that LiRA's shadow models are given: bool [shadows, num_images], every image to exactly half of the
    models.

    Models come in pairs that share the images out between them, so what a model is given does not depend on how many
    there are.
    """
    orders = [np.random.default_rng([seed, pair]).permutation(num_images) for pair in range(shadows // 2)]
    drawn = [order < num_images // 2 for order in orders]
    return np.stack([side for half in drawn for side in (half, ~half)])


def fittable(member) -> np.ndarray:
    """Bool [N], images with shadow models enough, of member bool [K, N], on both sides.

    A model trains on a part of what it is given and validates on the rest, so by chance an image may have been trained
    on by too few.
    """
    seen = np.sum(member, axis=0)
    return np.minimum(seen, len(member) - seen) >= FEWEST


def online_scores(target, shadows, member, pooled: bool = False) -> np.ndarray:
    """log N(t; in) - log N(t; out) per example in nats, [N]: higher means more like a model that has seen it.

    Args:
      target: statistic of the model under attack, [N]; shadows: [K, N]; member: bool [K, N], which shadows were trained
        on the image; all images are `fittable`.
      pooled: one standard deviation over all examples (each around its own mean) instead of one per example: better
        below about 64 shadows.
    """
    return _log_density(target, shadows, member, pooled) - _log_density(target, shadows, ~member, pooled)


def roc_summary(scores, truth) -> tuple[float, float, float]:
    """(area under the ROC curve in 0..1, true-positive rates in percent at 1 % and at 0.1 % false positives).

    Examples of equal score are answered alike, so a constant score gives 0.5, 0 and 0. With fewer than 100 or 1000
    negatives the rates mean "without a single false positive".

    Args:
      scores: [N]; truth: bool [N], of both kinds.
    """
    fpr, tpr, _ = roc_curve(truth, scores, drop_intermediate=False)
    at_1, at_01 = (float(100 * tpr[fpr <= limit + 1e-12].max()) for limit in (0.01, 0.001))
    return float(auc(fpr, tpr)), at_1, at_01


def _log_density(target, shadows, chosen, pooled):
    """Log density of the target under a Gaussian per example, fitted to the chosen shadows."""
    count = np.sum(chosen, axis=0)
    mean = np.sum(shadows * chosen, axis=0) / count
    squares = np.sum(np.square(shadows - mean) * chosen, axis=0)
    variance = np.sum(squares) / np.sum(count - 1) if pooled else squares / (count - 1)
    return norm.logpdf(target, mean, np.maximum(np.sqrt(variance), SMALLEST_STD))
