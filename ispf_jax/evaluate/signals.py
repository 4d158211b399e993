"""What a membership attack looks at: functions of a model's logits, one value (or vector) per example. NumPy,
float64.

Logits are [N, C] float64, labels int [N].
"""

import numpy as np
from scipy.special import log_softmax, logsumexp, softmax, xlogy

_SMALLEST = np.finfo(np.float64).tiny


def confidence(logits, labels) -> np.ndarray:
    """p(x)[y], the softmax probability of the true label, [N] in 0..1: the feature of MIA-I."""
    return np.exp(-cross_entropy(logits, labels))


def cross_entropy(logits, labels) -> np.ndarray:
    """-log p(x)[y] in nats, [N]."""
    return -_of_label(log_softmax(logits, axis=-1), labels)


def entropy(logits, labels=None) -> np.ndarray:
    """-sum_c p_c log p_c per example in nats, [N] in 0..log C; labels are not used."""
    p = softmax(logits, axis=-1)
    return -np.sum(xlogy(p, p), axis=-1)


def modified_entropy(logits, labels) -> np.ndarray:
    """M(p, y) = -(1 - p_y) log p_y - sum_{i != y} p_i log(1 - p_i), nats, [N], 0 or more (Song & Mittal 2021, Eq. 8).

    0 for a certain and right prediction, large for a certain and wrong one. The code that circulates in unlearning
    repositories sums over all classes or swaps the two probabilities; this one is the definition. Probabilities are
    bounded below by the smallest normal float64 before the logarithm, so a certain wrong answer gives about 1400 at
    most.
    """
    p = softmax(logits, axis=-1)
    rows = np.arange(len(labels))
    # 1 - p_i as the sum of the others: exact where p_i is within rounding of 1.
    rest = np.maximum(_sum_of_others(p), _SMALLEST)
    others = p * np.log(rest)
    others[rows, labels] = 0.0
    return -rest[rows, labels] * np.log(np.maximum(_of_label(p, labels), _SMALLEST)) - np.sum(others, axis=-1)


def sorted_softmax(logits) -> np.ndarray:
    """Softmax probabilities in descending order, [N, C]: the signal of MIA-II; no label is used."""
    return -np.sort(-softmax(logits, axis=-1), axis=-1)


def scaled_confidence(logits, labels, bound: float = 50.0) -> np.ndarray:
    """log(p_y / (1 - p_y)) = z_y - logsumexp_{i != y} z_i, [N]: LiRA's statistic, nearly normal (Carlini et al. 2022,
    Eq. 7).

    Clipped to +-`bound`, so that a logit that was masked with a huge negative number does not swamp a Gaussian fit.
    """
    others = logits.copy()
    others[np.arange(len(labels)), labels] = -np.inf
    return np.clip(_of_label(logits, labels) - logsumexp(others, axis=-1), -bound, bound)


def _of_label(values, labels):
    return np.take_along_axis(values, labels[:, None], axis=1)[:, 0]


def _sum_of_others(p):
    """For every class the sum of the other classes' probabilities, [N, C], without subtracting from 1."""
    zero = np.zeros((len(p), 1))
    before = np.concatenate([zero, np.cumsum(p, axis=1)[:, :-1]], axis=1)
    after = np.concatenate([np.cumsum(p[:, ::-1], axis=1)[:, ::-1][:, 1:], zero], axis=1)
    return before + after
