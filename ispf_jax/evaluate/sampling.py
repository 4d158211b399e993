"""Seeded choices of examples, the same for every model that is measured."""

import numpy as np

from ispf_jax.errors import UserError
from ispf_jax.evaluate import inputs


def draw(candidates: np.ndarray, count: int, seed) -> np.ndarray:
    """`count` of the candidate indices without replacement, ascending."""
    return np.sort(np.random.default_rng(seed).choice(candidates, count, replace=False))


def shots(labels, member, k: int, seed: int, classes=None) -> np.ndarray:
    """Mask [N] of `k` random members of every class, the k-shot training set.

    Args:
      labels: int [N]; member: bool [N], the examples that may be chosen; classes: which classes, all that occur among the
        members if None.
    Raises:
      UserError: k < 1, or a class has fewer than k members.
    """
    labels, member = inputs.labels("the labels", labels), np.asarray(member).astype(bool)
    inputs.same_length(labels=labels, member=member)
    if k < 1:
        raise UserError(f"{k} shots per class were asked for; the number must be 1 or more.")
    chosen = np.zeros(labels.size, bool)
    for c in np.unique(labels[member]) if classes is None else classes:
        candidates = np.flatnonzero(member & (labels == c))
        if candidates.size < k:
            raise UserError(
                f"{k} shots per class were asked for, but class {c} has {candidates.size} training images; use fewer."
            )
        chosen[draw(candidates, k, [seed, int(c)])] = True
    return chosen


def same_class_counts(first_labels, second_labels, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices into both lists with equally many examples of every class: as many as the smaller side has, drawn at random.

    UserError if the two have no class in common.
    """
    first, second = inputs.labels("the first labels", first_labels), inputs.labels("the second labels", second_labels)
    picks = ([], [])
    for c in np.intersect1d(first, second):
        sides = [np.flatnonzero(side == c) for side in (first, second)]
        count = min(len(side) for side in sides)
        for pick, side, number in zip(picks, sides, (0, 1)):
            pick.append(draw(side, count, [seed, int(c), number]))
    if not picks[0]:
        raise UserError("The two sets have no class in common, so no balanced test can be drawn from them.")
    return np.concatenate(picks[0]), np.concatenate(picks[1])
