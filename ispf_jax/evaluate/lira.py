"""Per-example likelihood-ratio attacks: LiRA (Carlini et al. 2022) and its form for unlearning, U-LiRA (Hayes et al. 2024).

Population attacks ask whether members look different on average; these ask, for every single image, whether the model under attack
behaves like models that have seen *this* image or like models that have not. Statistic: `signals.scaled_confidence`. In all scores
a higher value means "more like a model that has seen it".
"""

from dataclasses import dataclass

import numpy as np

from ispf_jax.errors import UserError
from ispf_jax.evaluate import inputs

SMALLEST_STD = 1e-3
"""Floor of every fitted standard deviation, in logits: with few shadows a fit can collapse onto equal values."""

FEWEST = 2
"""Shadow models on either side of an image that a Gaussian can be fitted to."""

FITS = ("per_example", "pooled")


@dataclass(frozen=True)
class AttackCurve:
    """Receiver operating characteristic of an attack: `fpr` and `tpr` ascending from 0 to 1, and what is read off it.

    `auc` in 0..1, 0.5 is guessing; `tpr_at_1` and `tpr_at_01` in percent: true-positive rate with at most 1 % and 0.1 % false
    positives. With fewer than 100 or 1000 negatives these rates mean "without a single false positive"; `negatives` tells.
    """

    fpr: tuple[float, ...]
    tpr: tuple[float, ...]
    auc: float
    tpr_at_1: float
    tpr_at_01: float
    positives: int
    negatives: int


def lira_members(num_images: int, shadows: int, seed: int) -> np.ndarray:
    """Images that LiRA's shadow models are given: bool [shadows, num_images], every image to exactly half of the models.

    Models come in pairs that share the images out between them, so what a model is given does not depend on how many there are.
    UserError unless the number of shadows is even and 4 or more: a Gaussian is fitted to each half.
    """
    if shadows < 4 or shadows % 2:
        raise UserError(f"LiRA with {shadows} shadow models: use an even number, 4 or more.")
    halves = [
        np.random.default_rng([seed, pair]).permutation(num_images) < num_images // 2 for pair in range(shadows // 2)
    ]
    return np.stack([side for half in halves for side in (half, ~half)])


def fittable(member) -> np.ndarray:
    """Bool [N], images with shadow models enough, of member bool [K, N], on both sides.

    A model trains on a part of what it is given and validates on the rest, so by chance an image may have been trained on by too few.
    """
    seen = np.sum(member, axis=0)
    return np.minimum(seen, len(member) - seen) >= FEWEST


def online_scores(target, shadows, member, fit: str = "per_example") -> np.ndarray:
    """log N(t; in) - log N(t; out) per example in nats, [N]: the online attack, with shadows that saw the image and that did not.

    Args:
      target: statistic of the model under attack, [N]; shadows: [K, N]; member: bool [K, N], which shadows were trained on the image.
      fit: "per_example" standard deviations, or one "pooled" over all examples (each around its own mean), which is better
        below about 64 shadows.
    """
    target, shadows, member = _checked(target, shadows, member)
    return _log_density(target, shadows, member, fit) - _log_density(target, shadows, ~member, fit)


def offline_scores(target, shadows, member, fit: str = "per_example") -> np.ndarray:
    """(t - mean_out) / std_out per example, [N]: the offline attack, which only fits shadows that did not see the image.

    Carlini et al. score by 1 - Pr[N(out) > t] = Phi of this value; the value itself ranks alike and does not saturate at 1.
    """
    target, shadows, member = _checked(target, shadows, member)
    mean, std = _gaussian(shadows, ~member, fit)
    return (target - mean) / std


def unlearning_scores(target, unlearned, retrained, fit: str = "per_example") -> np.ndarray:
    """U-LiRA: log N(t; unlearned) - log N(t; retrained) per forgotten image in nats, [N].

    Args:
      target: statistic of the model under attack, [N].
      unlearned: [K, N], of models that saw the images and then unlearned them ("in").
      retrained: [L, N], of models that were trained without them ("out").
    """
    unlearned = inputs.matrix("the unlearned shadows", unlearned)
    retrained = inputs.matrix("the retrained shadows", retrained)
    inputs.same_length(images_of_unlearned=unlearned.T, images_of_retrained=retrained.T, targets=np.asarray(target))
    member = np.zeros((len(unlearned) + len(retrained), unlearned.shape[1]), bool)
    member[: len(unlearned)] = True
    return online_scores(target, np.concatenate([unlearned, retrained]), member, fit)


def attack_curve(scores, truth) -> AttackCurve:
    """ROC, area (trapezoids) and true-positive rates at low false-positive rates of scores [N] against truth [N].

    Examples of equal score are answered alike, so a constant score gives the diagonal: area 0.5, rates 0. For U-LiRA, truth is 1
    for the forgotten images under an unlearned model and 0 for the same images under a retrained one.
    """
    scores, truth = inputs.finite("attack scores", scores), inputs.two_sides("attacked examples", truth)
    inputs.same_length(attack_scores=scores, truth=truth)
    order = np.argsort(-scores, kind="stable")
    last_of_ties = np.append(np.diff(scores[order]) != 0, True)
    hits, alarms = (np.append(0, np.cumsum(side[order])[last_of_ties]) for side in (truth, ~truth))
    tpr, fpr = hits / hits[-1], alarms / alarms[-1]
    at = [float(100 * tpr[np.searchsorted(fpr, limit + 1e-12, side="right") - 1]) for limit in (0.01, 0.001)]
    auc = float(np.sum(np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2))
    return AttackCurve(tuple(map(float, fpr)), tuple(map(float, tpr)), auc, *at, int(hits[-1]), int(alarms[-1]))


def _checked(target, shadows, member):
    target = inputs.finite("statistics of the attacked model", target)
    shadows, member = inputs.matrix("the shadow statistics", shadows), np.asarray(member).astype(bool)
    if target.shape != shadows.shape[1:] or member.shape != shadows.shape:
        found = f"Attacked {target.shape}, shadows {shadows.shape}, members {member.shape}"
        raise UserError(f"{found}: [N], [K, N] and [K, N] are expected.")
    return target, shadows, member


def _gaussian(shadows, chosen, fit):
    """Mean and sample standard deviation per example over the chosen shadows."""
    if fit not in FITS:
        raise UserError(f"lira.fit={fit!r}; it must be one of {', '.join(FITS)}.")
    count = np.sum(chosen, axis=0)
    if count.min() < FEWEST:
        raise UserError(f"An image has {count.min()} shadow models on one side; a Gaussian needs at least two on each.")
    mean = np.sum(shadows * chosen, axis=0) / count
    squares = np.sum(np.square(shadows - mean) * chosen, axis=0)
    variance = (
        squares / (count - 1) if fit == "per_example" else np.full(mean.shape, np.sum(squares) / np.sum(count - 1))
    )
    return mean, np.maximum(np.sqrt(variance), SMALLEST_STD)


def _log_density(target, shadows, chosen, fit):
    mean, std = _gaussian(shadows, chosen, fit)
    return -np.square((target - mean) / std) / 2 - np.log(std) - np.log(2 * np.pi) / 2
