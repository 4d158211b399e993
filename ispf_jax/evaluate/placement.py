"""Where a residual metric lies between the original model and retraining: the audit's common scale."""

from dataclasses import dataclass

from ispf_jax.errors import UserError
from ispf_jax.evaluate import inputs


@dataclass(frozen=True)
class Placement:
    """A value with both ends of its scale.

    `place` is 0 where the model is like the retrained one and 1 where it is like the original; outside 0..1 it lies beyond
    one of them. None: the ends do not differ by more than `eps`, so the metric cannot tell them apart and no place exists.
    """

    value: float
    original: float
    retrained: float
    place: float | None
    eps: float


def placement(value: float, original: float, retrained: float, eps: float) -> Placement:
    """(value - retrained) / (original - retrained), dimensionless.

    Args:
      eps: in the metric's own unit: a difference of original and retrained that is not larger counts as none.
    """
    if not eps >= 0:
        raise UserError(f"placement: eps={eps}; it must be 0 or more, in the unit of the metric.")
    value, original, retrained = (float(v) for v in inputs.finite("values to place", [value, original, retrained]))
    distance = original - retrained
    place = (value - retrained) / distance if abs(distance) > eps else None
    return Placement(value, original, retrained, place, float(eps))
