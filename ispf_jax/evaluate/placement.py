"""Where a value lies between the original model and retraining: the audit's common scale."""

from ispf_jax.runtime.metrics import metric


def place(name: str, value, original, retrained) -> float | None:
    """(value - retrained) / (original - retrained): 0 like the retrained model, 1 like the original, or beyond these.

    None if the metric of that name is not placed, one of the three is None, or the ends differ by no more than its
    `eps`.
    """
    eps = metric(name).eps
    if eps is None or None in (value, original, retrained) or abs(original - retrained) <= eps:
        return None
    return (value - retrained) / (original - retrained)
