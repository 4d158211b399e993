"""MIA-I: the share of forgotten training images that an attacker takes for images the model never saw.

The attacker is a support-vector machine on one number, the confidence in the true label. It is fitted to the model
under attack itself: members are retained training images, non-members test images (the protocol of Fan et al. 2024,
SalUn, and its descendants). It saturates: any model that gives the forgotten class no confidence gets 0 or 100, a
masked output included.
"""

from typing import NamedTuple

import numpy as np
from sklearn.svm import SVC

from ispf_jax.errors import UserError
from ispf_jax.evaluate.sampling import draw

BINS = 256


class Samples(NamedTuple):
    """Which images the attack uses: indices into the training images (members, targets) and the test images
    (non-members)."""

    members: np.ndarray
    nonmembers: np.ndarray
    targets: np.ndarray


def choose_samples(protocol, train_labels, test_labels, member, original_member, forget_mask, seed) -> Samples:
    """The images of MIA-I under one of the two protocols in use; the paper does not say which one is its own.

    "salun": equally many (n) members and non-members, n = min(retained test images, retained training images); members
    are drawn from the retained training images, non-members from the *retained* test images.
    "unsc": members are drawn from the retained training images, as many as there are test and validation images
    together (or all, if fewer); non-members are all test images, forgotten classes included.
    Both: the targets are all forgotten images of the original's training split.

    Args:
      train_labels: int [M]; member: bool [M], the training split of the model under attack: the original's for a
        student, its own for a retrained model; original_member: bool [M], the original's; test_labels: int [T];
        forget_mask: [C]; seed: int.

    Raises:
      UserError: no targets, no members or no non-members.
    """
    forgotten, test_forgotten = (np.asarray(forget_mask).astype(bool)[labels] for labels in (train_labels, test_labels))
    retained, targets = np.flatnonzero(member & ~forgotten), np.flatnonzero(original_member & forgotten)
    if protocol == "salun":
        nonmembers = np.flatnonzero(~test_forgotten)
        count = min(retained.size, nonmembers.size)
        nonmembers = draw(nonmembers, count, [seed, 1])
    else:
        nonmembers = np.arange(test_forgotten.size)
        count = min(retained.size, test_forgotten.size + int(np.sum(~original_member)))
    for what, size in (("retained", retained.size), ("test", nonmembers.size), ("forgotten", targets.size)):
        if size == 0:
            raise UserError(f"MIA-I has no {what} images; it needs the original's training split, and test images.")
    return Samples(draw(retained, count, [seed, 0]), nonmembers, targets)


def called_unseen(member, nonmember, target, *, exact_up_to: int = 2000) -> np.ndarray | None:
    """Bool per target, whether SVC(C=3, RBF, gamma="auto" = 1) on confidences takes it for a non-member; MIA-I is their
    share.

    The exact machine takes quadratic time and more. With more than `exact_up_to` training points the confidences are
    counted in 256 bins per side, and a machine with weighted points (bin centre, weight = count) is fitted: the same
    optimisation problem for confidences that are off by at most 1/512.

    Args:
      member, nonmember, target: confidences in the true label, [.] in 0..1.

    Returns:
      None if all members and non-members have the same confidence: the attacker has nothing to learn from.
    """
    if np.ptp(np.concatenate([member, nonmember])) < 1e-9:
        return None
    binned = member.size + nonmember.size > exact_up_to
    return ~_fit(member, nonmember, binned).predict(target[:, None]).astype(bool)


def _fit(member, nonmember, binned):
    machine = SVC(C=3, kernel="rbf", gamma="auto")
    if not binned:
        points = np.concatenate([member, nonmember])
        return machine.fit(points[:, None], np.repeat([1, 0], [member.size, nonmember.size]))
    counts = np.stack([np.histogram(np.minimum(side, 1), BINS, (0, 1))[0] for side in (member, nonmember)])
    side, place = np.nonzero(counts)
    return machine.fit((place[:, None] + 0.5) / BINS, 1 - side, sample_weight=counts[side, place])
