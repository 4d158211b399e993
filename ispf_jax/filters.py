"""What the student sees and learns: PreFilter and BlockF choose samples, PostFilter and PD change the teacher's
prediction.

Rules are pure functions of the teacher's logits, one sample at a time. The two tables may be added to:
docs/extending.md.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

KeepRule = Callable[[jax.Array, jax.Array, Any], jax.Array]
"""(teacher logits [N, C], forget mask [C], PreFilter's threshold) -> booleans [N]."""

TargetRule = Callable[[jax.Array, jax.Array, Any], jax.Array]
"""(teacher logits [N, C], forget mask [C], PostFilter's threshold, -1 if it has none) -> logits [N, C]."""


def keep_all(teacher_logits, forget_mask, threshold):
    """True [N]."""
    return jnp.ones(teacher_logits.shape[0], bool)


def block_keep(teacher_logits, forget_mask, threshold=1.0):
    """BlockF: True [N] where the teacher's most likely class is a retained one."""
    return forget_mask[jnp.argmax(teacher_logits, axis=-1)] == 0


def prefilter_keep(teacher_logits, forget_mask, threshold):
    """PreFilter (Eq. 3): True [N] where every forgotten class has a probability strictly below the threshold."""
    return jnp.max(jax.nn.softmax(teacher_logits) * forget_mask, axis=-1) < threshold


def teacher_itself(teacher_logits, forget_mask, threshold=-1.0):
    """The teacher's logits [N, C]."""
    return teacher_logits


def post_filter(teacher_logits, forget_mask, threshold=-1.0):
    """PostFilter (Eq. 8-9): target logits [N, C] with the forgotten classes at the minimum and their excess spread.

    Every forgotten logit is moved down to the smallest logit of its example; what was taken away is shared equally
    among the retained classes. All retained logits thus shift by one constant: the target, restricted to retained
    classes and renormalised, is the teacher's.

    Args:
      threshold: only forgotten classes with a probability above it are moved. The paper has none (-1: all are moved);
        the authors' program uses PreFilter's threshold.
    """
    moved = forget_mask * (jax.nn.softmax(teacher_logits) > threshold)
    lowest = jnp.min(teacher_logits, axis=-1, keepdims=True)
    excess = jnp.sum(moved * (teacher_logits - lowest), axis=-1, keepdims=True)
    raised = teacher_logits + (1 - forget_mask) * excess / jnp.sum(1 - forget_mask)
    return jnp.where(moved > 0, lowest, raised)


def project(teacher_logits, forget_mask, threshold=-1.0):
    """PD (Appendix I): log probabilities [N, C] with forgotten classes at zero probability, the rest renormalised.

    Zero probability is written as the logit -1e9, which a softmax turns into an exact 0 and keeps KL terms finite.
    """
    return jnp.where(forget_mask > 0, -1e9, teacher_logits)


KEEP: dict[str, KeepRule] = {"all": keep_all, "block": block_keep, "prefilter": prefilter_keep}
"""Which samples the student learns from, by name."""

TARGETS: dict[str, TargetRule] = {"teacher": teacher_itself, "postfilter": post_filter, "project": project}
"""What the student learns, by name."""
