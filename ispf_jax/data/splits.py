"""Choosing examples: the validation split and class-balanced subsets. Seeded, on the host, indices only."""

import numpy as np

from ispf_jax.data.dataset import ArrayDataset
from ispf_jax.errors import ArgumentError, UserError


def train_val_split(n_or_member_mask, val_fraction: float = 0.2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Divides the examples at random into training and validation.

    The sizes are those of the authors' `random_split`: int(0.8 n) for training, the rest for validation; 50,000 give
    40,000 and 10,000, the 73,257 of SVHN give 58,605 and 14,652.

    Args:
      n_or_member_mask: the number of examples, or a bool mask [N] of those that take part, for instance the examples
        of the retained classes: the permutation is over the members only, as if the others had never existed.

    Returns:
      (train, val), bool [N], disjoint, together the members. They depend on `seed` and the members' order only.

    Raises:
      ArgumentError: `val_fraction` is not in [0, 1), or leaves nothing to train on or nothing to validate on.
    """
    if not 0 <= val_fraction < 1:
        raise ArgumentError("val_fraction", f"={val_fraction} must be at least 0 and less than 1, for instance 0.2.")
    if np.ndim(n_or_member_mask):
        mask = np.asarray(n_or_member_mask)
        if mask.dtype != bool or mask.ndim != 1:
            raise ValueError(f"members must be a bool mask [N], found {mask.dtype} {mask.shape}")
    else:
        mask = np.ones(int(n_or_member_mask), bool)
    members = np.flatnonzero(mask)
    count = int(len(members) * (1 - val_fraction) + 1e-9)
    if count == 0 or (val_fraction > 0 and count == len(members)):
        text = f"={val_fraction} cannot divide {len(members)} training examples; use more examples or another fraction."
        raise ArgumentError("val_fraction", text)
    order = np.random.default_rng(seed).permutation(members)
    train, val = np.zeros(len(mask), bool), np.zeros(len(mask), bool)
    train[order[:count]] = True
    val[order[count:]] = True
    return train, val


def check_classes(labels: np.ndarray, train: np.ndarray, class_names, without: tuple[int, ...], title: str) -> None:
    """Refuses a split that leaves a class without any training image: the network would never see it.

    Args:
      labels: int [N].
      train: bool [N], as `train_val_split` gives it.
      without: classes that are left out on purpose.
      title: of what would be trained, for the message.

    Raises:
      UserError: see above.
    """
    found, left = (np.bincount(some, minlength=len(class_names)) for some in (labels, labels[train]))
    for c in np.flatnonzero(left == 0):
        if c not in without:
            raise UserError(
                f"{title}: class {c} ({class_names[c]}) would not be learned: of its {found[c]} training image(s) the "
                "validation split leaves none; add images of it, or try a smaller val_fraction or another seed."
            )


def balanced_subset(labels: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """`count` examples with as equal numbers of every class as the data allow.

    Every class gives the same number; a class that has fewer gives all it has, and the others fill up. What cannot be
    divided goes to classes drawn by the seed.

    Args:
      labels: int [N].

    Returns:
      Sorted indices [min(count, N)].
    """
    classes, sizes = np.unique(labels, return_counts=True)
    if count >= len(labels):
        return np.arange(len(labels))
    rng = np.random.default_rng(seed)
    turn = rng.permutation(len(classes))
    quota = np.zeros(len(classes), int)
    while (left := count - quota.sum()) > 0:
        open_classes = turn[quota[turn] < sizes[turn]]
        share = max(left // len(open_classes), 1)
        open_classes = open_classes[:left]
        quota[open_classes] = np.minimum(quota[open_classes] + share, sizes[open_classes])
    chosen = [rng.permutation(np.flatnonzero(labels == c))[:q] for c, q in zip(classes, quota)]
    return np.sort(np.concatenate(chosen))


def limit(split: ArrayDataset, count: int, seed: int, key: str) -> ArrayDataset:
    """`split`, or a class-balanced subset if `count` > 0; `key` is the name of `count` in errors.

    Raises:
      ArgumentError: `count` is less than the number of classes; one without examples would have no accuracy.
    """
    classes = len(np.unique(split.labels))
    if 0 < count < classes:
        raise ArgumentError(key, f"={count} must be 0 (all examples) or at least {classes}, one example per class.")
    return split.take(balanced_subset(split.labels, count, seed)) if 0 < count < len(split) else split
