"""Choosing examples: the validation split and class-balanced subsets. Seeded, on the host, indices only."""

import numpy as np

from ispf_jax.data.dataset import ArrayDataset
from ispf_jax.errors import UserError


def train_val_split(n_or_member_mask, val_fraction: float = 0.2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Divides the examples at random into training and validation.

    n_or_member_mask: the number of examples, or a bool mask [N] of those that take part, for instance the examples of
    the retained classes: the retrained model gets a permutation of its own over its members only, as if the other
    examples had never existed (their number and place have no influence).
    The sizes are those of the authors' `random_split`: int(0.8 n) for training, the rest for validation; 50,000 give
    40,000 and 10,000, the 73,257 of SVHN give 58,605 and 14,652.

    Returns (train, val), bool [N], disjoint, together the members. Depends on `seed` and the members' order only.
    Raises UserError if `val_fraction` is not in [0, 1) or leaves nothing to train on or nothing to validate on.
    """
    if not 0 <= val_fraction < 1:
        raise UserError(
            f"The validation fraction is {val_fraction}; it must be at least 0 and less than 1, for instance 0.2."
        )
    if np.ndim(n_or_member_mask):
        mask = np.asarray(n_or_member_mask)
        if mask.dtype != bool or mask.ndim != 1:
            raise ValueError(f"members must be a bool mask [N], found {mask.dtype} {mask.shape}")
    else:
        mask = np.ones(int(n_or_member_mask), bool)
    members = np.flatnonzero(mask)
    count = int(len(members) * (1 - val_fraction) + 1e-9)
    if count == 0 or (val_fraction > 0 and count == len(members)):
        raise UserError(
            f"{len(members)} training examples cannot be divided with a validation fraction of {val_fraction}: "
            "use more examples or another fraction."
        )
    order = np.random.default_rng(seed).permutation(members)
    train, val = np.zeros(len(mask), bool), np.zeros(len(mask), bool)
    train[order[:count]] = True
    val[order[count:]] = True
    return train, val


def check_classes(
    labels: np.ndarray, train: np.ndarray, class_names: tuple[str, ...], without: tuple[int, ...], title: str
) -> None:
    """Raises UserError if a class has no training image left after the split: the network would never see it.

    labels: int [N]. train: bool [N], as `train_val_split` gives it. without: classes that are left out on purpose.
    """
    found, left = (np.bincount(some, minlength=len(class_names)) for some in (labels, labels[train]))
    for c in np.flatnonzero(left == 0):
        if c not in without:
            raise UserError(
                f"{title}: class {c} ({class_names[c]}) would not be learned: of its {found[c]} training image(s) the validation split "
                "leaves none; add images of it, or try a smaller config.data.val_fraction or other config.seeds."
            )


def balanced_subset(labels: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """`count` examples with as equal numbers of every class as the data allow.

    Every class gives the same number; a class that has fewer gives all it has, and the others fill up. What cannot be
    divided goes to classes drawn by the seed. labels: int [N].
    Returns sorted indices [min(count, N)].
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
    """`split`, or a class-balanced subset if `count` > 0. `key` ("data.max_train") is for the message.

    Raises UserError if `count` is negative or smaller than the number of classes: a class without examples would make
    its accuracy meaningless.
    """
    classes = len(np.unique(split.labels))
    if count < 0 or 0 < count < classes:
        raise UserError(
            f"{key} is {count}; it must be 0 (all examples) or at least {classes}, one example of every class."
        )
    return split.take(balanced_subset(split.labels, count, seed)) if 0 < count < len(split) else split
