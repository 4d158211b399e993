"""Membership attacks that need no training: a threshold on one number per image, or whether the prediction is right.

They ask what MIA-I asks of a support-vector machine (is the forgotten image taken for one that was never seen?), with the metrics
of Song & Mittal (2021, "Systematic Evaluation of Privacy Risks of Machine Learning Models", Section 4) in place of the confidence.
"""

from dataclasses import dataclass

import numpy as np

from ispf_jax.evaluate import inputs


@dataclass(frozen=True)
class ThresholdAttack:
    """Outcome of a threshold attack.

    Attributes:
      percent: share of the targets called unseen, 0..100; None if no threshold does better than guessing, as with a constant.
      threshold: values up to it count as seen.
      advantage: balanced accuracy of that threshold on members and non-members, percent, above 50: how much the attack knows.
      targets: how many there are.
    """

    percent: float | None
    threshold: float | None
    advantage: float | None
    targets: int


def threshold_membership(member, nonmember, target) -> ThresholdAttack:
    """Share of the targets that the best threshold calls unseen; smaller values (entropies) mean seen.

    The threshold lies half-way between two neighbouring values of members and non-members, where (true positives + true
    negatives) / 2 is largest (the smallest such place). It is one for all classes: a threshold of its own for the forgotten class, as
    Song & Mittal have for every class, would need images of it that the model is known to have seen or not, and whether it still
    knows them is the question.

    Args:
      member, nonmember, target: one value per image, [.].
    """
    member, nonmember, target = (
        inputs.finite(f"values of the {name}", values)
        for name, values in (("members", member), ("non-members", nonmember), ("targets", target))
    )
    values = np.unique(np.concatenate([member, nonmember]))
    places = (values[:-1] + values[1:]) / 2
    seen = np.searchsorted(np.sort(member), places, side="right") / member.size
    unseen = 1 - np.searchsorted(np.sort(nonmember), places, side="right") / nonmember.size
    advantage = 50 * (seen + unseen)
    if not places.size or advantage.max() <= 50 + 1e-9:
        return ThresholdAttack(None, None, None, target.size)
    best = int(np.argmax(advantage))
    return ThresholdAttack(
        float(100 * np.mean(target > places[best])), float(places[best]), float(advantage[best]), target.size
    )


def correctness_membership(logits, labels) -> float:
    """Share of wrongly classified targets in percent: the attack that calls right predictions seen (Yeom et al. 2018).

    It is 100 less the accuracy on the forgotten training images, and like MIA-I says 100 of a masked head.

    Args:
      logits: [N, C]; labels: int [N].
    """
    logits = inputs.logits("the logits", logits)
    labels = inputs.labels("the labels", labels, logits.shape[1])
    inputs.same_length(logits=logits, labels=labels)
    return float(100 * np.mean(logits.argmax(axis=1) != labels))
