"""Membership attacks that need no training: a threshold on one number per image, or whether the prediction is right.

They ask what MIA-I asks of a support-vector machine (is the forgotten image taken for one that was never seen?), with
the metrics of Song & Mittal (2021, "Systematic Evaluation of Privacy Risks of Machine Learning Models", Section 4) in
place of the confidence.
"""

import numpy as np


def threshold_attack(member, nonmember, target) -> float | None:
    """Percentage of the targets that the best threshold calls unseen; smaller values (entropies) mean seen.

    The threshold lies half-way between two neighbouring values of members and non-members, where (true positives + true
    negatives) / 2 is largest (the smallest such place). One threshold serves all classes: a separate one for the
    forgotten class, as Song & Mittal have for every class, would need images of it that the model is known to have seen
    or not, and whether it still knows them is the question.

    Args:
      member, nonmember, target: one value per image, [.].

    Returns:
      None if no threshold does better than guessing, as with a constant.
    """
    values = np.unique(np.concatenate([member, nonmember]))
    places = (values[:-1] + values[1:]) / 2
    seen = np.searchsorted(np.sort(member), places, side="right") / member.size
    unseen = 1 - np.searchsorted(np.sort(nonmember), places, side="right") / nonmember.size
    accuracy = 50 * (seen + unseen)
    if not places.size or accuracy.max() <= 50 + 1e-9:
        return None
    return float(100 * np.mean(target > places[np.argmax(accuracy)]))


def correctness_attack(logits, labels) -> float:
    """Percentage of wrongly classified targets: the attack that calls right predictions seen (Yeom et al. 2018).

    It is 100 less the accuracy on the forgotten training images, and like MIA-I says 100 of a masked head.

    Args:
      logits: [N, C]; labels: int [N].
    """
    return float(100 * np.mean(logits.argmax(axis=1) != labels))
