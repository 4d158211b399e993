"""MIA-I: the share of forgotten training images that an attacker takes for images the model never saw.

The attacker is a support-vector machine on one number, the confidence in the true label. It is fitted to the model under attack
itself: members are retained training images, non-members test images (the protocol of Fan et al. 2024, SalUn, and its descendants).
"""

from dataclasses import dataclass

import numpy as np
from sklearn.svm import SVC

from ispf_jax.errors import UserError
from ispf_jax.evaluate import inputs
from ispf_jax.evaluate.sampling import draw

SATURATION = (
    "MIA-I saturates: any model that gives the forgotten class no confidence gets 0 or 100, a model with a masked output included. "
    "It is reported for continuity with the literature and does not tell removal from hiding."
)
"""To be shown beside every MIA-I."""

PROTOCOLS = ("salun", "unsc")
BINS = 256


@dataclass(frozen=True)
class AttackSamples:
    """Which images the attack uses: indices into the training images (members, targets) and the test images (non-members)."""

    members: np.ndarray
    nonmembers: np.ndarray
    targets: np.ndarray


@dataclass(frozen=True)
class MembershipRate:
    """MIA-I in percent, 0..100, over all targets and per forgotten class; higher means better forgotten (but see `SATURATION`).

    None where it is undefined: all members and non-members have the same confidence (a constant prediction), so the attacker has
    nothing to learn from. `binned` tells which of the two solvers was used.
    """

    percent: float | None
    per_class: dict[int, float | None]
    members: int
    nonmembers: int
    targets: int
    binned: bool


def choose_samples(
    protocol, train_labels, member, test_labels, forget_mask, seed, original_member=None
) -> AttackSamples:
    """The images of MIA-I under one of the two protocols in use; the paper does not say which one is its own.

    "salun": equally many (n) members and non-members, n = min(retained test images, retained training images); members
    are drawn from the retained training images, non-members from the *retained* test images.
    "unsc": members are drawn from the retained training images, as many as there are test and validation images together (or all,
    if fewer); non-members are all test images, forgotten classes included.
    Both: the targets are all forgotten images of the original's training split. Images are to be passed without augmentation.

    Args:
      train_labels: int [M]; member: bool [M], the training split of the model under attack: the original's for a student, its own
        for a retrained model; test_labels: int [T]; forget_mask: [C]; seed: int.
      original_member: bool [M], the original's training split; `member` if None.
    Raises:
      UserError: unknown protocol, no targets, no members or no non-members.
    """
    if protocol not in PROTOCOLS:
        raise UserError(f"mia1.protocol={protocol!r}; it must be one of {', '.join(PROTOCOLS)}.")
    member = np.asarray(member).astype(bool)
    original_member = member if original_member is None else np.asarray(original_member).astype(bool)
    forgotten = inputs.forgotten_rows("training images", train_labels, forget_mask)
    inputs.same_length(train_labels=forgotten, member=member, original_member=original_member)
    mask = inputs.forget_mask(forget_mask)
    test_forgotten = mask[inputs.labels("the labels of the test images", test_labels, mask.size)]

    retained = np.flatnonzero(member & ~forgotten)
    targets = np.flatnonzero(original_member & forgotten)
    if protocol == "salun":
        nonmembers = np.flatnonzero(~test_forgotten)
        count = min(retained.size, nonmembers.size)
        nonmembers = draw(nonmembers, count, [seed, 1])
    else:
        nonmembers = np.arange(test_forgotten.size)
        count = min(retained.size, test_forgotten.size + np.count_nonzero(~original_member))
    needed = {
        "retained training images": retained,
        "test images to compare with": nonmembers,
        "forgotten training images": targets,
    }
    for what, found in needed.items():
        if found.size == 0:
            raise UserError(
                f"MIA-I has no {what}; it needs the original's training split with all classes, and test images."
            )
    return AttackSamples(draw(retained, count, [seed, 0]), nonmembers, targets)


def confidence_membership(member, nonmember, target, target_labels, exact_up_to: int = 2000) -> MembershipRate:
    """MIA-I = 100 (1 - mean predicted membership of the targets), SVC(C=3, RBF, gamma="auto" = 1) on confidences.

    The exact machine takes quadratic time and more. With more than `exact_up_to` training points the confidences are counted in
    256 bins per side, and a machine with weighted points (bin centre, weight = count) is fitted: the same optimisation problem
    for confidences that are off by at most 1/512.

    Args:
      member, nonmember, target: confidences in the true label, [.] in 0..1; target_labels: int, one per target.
    """
    sides = [
        inputs.finite(f"confidences of the {name}", values)
        for name, values in (("members", member), ("non-members", nonmember), ("targets", target))
    ]
    member, nonmember, target = sides
    if min(s.min() for s in sides) < 0 or max(s.max() for s in sides) > 1 + 1e-9:
        raise UserError("Confidences are probabilities and must lie in 0..1.")
    target_labels = inputs.labels("the labels of the targets", target_labels)
    inputs.same_length(targets=target, target_labels=target_labels)
    binned = member.size + nonmember.size > exact_up_to
    counts = (int(member.size), int(nonmember.size), int(target.size), binned)
    classes = [int(c) for c in np.unique(target_labels)]
    if np.ptp(np.concatenate([member, nonmember])) < 1e-9:
        return MembershipRate(None, dict.fromkeys(classes), *counts)

    outside = ~_fit(member, nonmember, binned).predict(target[:, None]).astype(bool)
    per_class = {c: float(100 * np.mean(outside[target_labels == c])) for c in classes}
    return MembershipRate(float(100 * np.mean(outside)), per_class, *counts)


def _fit(member, nonmember, binned):
    machine = SVC(C=3, kernel="rbf", gamma="auto")
    if not binned:
        points = np.concatenate([member, nonmember])
        return machine.fit(points[:, None], np.repeat([1, 0], [member.size, nonmember.size]))
    counts = np.stack([np.histogram(np.minimum(side, 1), BINS, (0, 1))[0] for side in (member, nonmember)])
    side, place = np.nonzero(counts)
    return machine.fit((place[:, None] + 0.5) / BINS, 1 - side, sample_weight=counts[side, place])
