"""Seeded choices of examples, the same for every model that is measured."""

import numpy as np

from ispf_jax.errors import UserError


def draw(candidates: np.ndarray, count: int, seed) -> np.ndarray:
    """`count` of the candidate indices without replacement, ascending."""
    return np.sort(np.random.default_rng(seed).choice(candidates, count, replace=False))


def some(available: int, count: int, seed) -> np.ndarray:
    """Indices of `count` of so many examples, or of all if there are fewer, ascending."""
    return draw(np.arange(available), min(count, available), seed)


def shots(labels, member, k: int, seed: int) -> np.ndarray:
    """Mask [N] of `k` random members of every class that occurs among them, the k-shot training set.

    Args:
      labels: int [N]; member: bool [N], the examples that may be chosen.

    Raises:
      UserError: a class has fewer than k members, or k < 1.
    """
    chosen = np.zeros(len(labels), bool)
    for c in np.unique(labels[member]):
        candidates = np.flatnonzero(member & (labels == c))
        if not 1 <= k <= candidates.size:
            raise UserError(f"{k} images of class {c} were asked for; it has 1 to {candidates.size} training images.")
        chosen[draw(candidates, k, [seed, int(c)])] = True
    return chosen


def same_class_counts(first, second, seed: int) -> tuple[np.ndarray, ...]:
    """Indices into two lists of labels with equally many examples of every class: as many as the smaller side has, at
    random.
    """
    picks = []
    for c in np.intersect1d(first, second):
        sides = [np.flatnonzero(side == c) for side in (first, second)]
        picks.append([draw(side, min(map(len, sides)), [seed, int(c), i]) for i, side in enumerate(sides)])
    return tuple(map(np.concatenate, zip(*picks)))
