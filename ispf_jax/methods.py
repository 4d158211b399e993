"""The paper's methods as rows of one table: how the generator is trained, which samples are kept, which target is distilled.

A method enters the compiled step as data (`Method.codes`), like the forget set and the thresholds, so one program serves all
methods, forget sets and thresholds. What the choices cost that are not taken is a few operations on [batch, classes] arrays.
The three tables at the end may be added to: docs/extending.md.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class Method:
    """One way to unlearn.

    Attributes:
      inhibit: train the generator with inhibited synthesis (IS, Eq. 7).
      keep: which synthetic samples the student sees, a key of `KEEP`. "all"; "block": drop those the teacher assigns to a
        forgotten class (BlockF); "prefilter": drop those with any forgotten class at or above the threshold (PreFilter, Eq. 3).
      target: what the student learns, a key of `TARGETS`. "teacher": the teacher's prediction; "postfilter": with the forgotten
        logits redistributed (PF, Eq. 8-9); "project": with forgotten probabilities set to zero and the rest renormalised (PD, App. I).
    """

    inhibit: bool
    keep: str
    target: str

    def codes(self):
        """The method as arrays, for the compiled step."""
        return {
            "inhibit": jnp.float32(self.inhibit),
            "keep": jnp.int32(list(KEEP).index(self.keep)),
            "target": jnp.int32(list(TARGETS).index(self.target)),
        }


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

    Every forgotten logit is moved down to the smallest logit of its example; what was taken away is shared equally among the
    retained classes. All retained logits thus shift by one constant: the target, restricted to retained classes and
    renormalised, is the teacher's.

    Args:
      threshold: only forgotten classes with a probability above it are moved. The paper has none (-1: all are moved); the
        authors' program uses PreFilter's threshold.
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


def kept_samples(codes, teacher_logits, forget_mask, threshold):
    """Mask [N] of 0/1 of the samples the student learns from, by the method's codes."""
    choices = [keep(teacher_logits, forget_mask, threshold) for keep in KEEP.values()]
    return jnp.stack(choices)[codes["keep"]].astype(jnp.float32)


def target_logits(codes, teacher_logits, forget_mask, post_threshold):
    """Logits [N, C] of the distribution the student learns, by the method's codes."""
    choices = [target(teacher_logits, forget_mask, post_threshold) for target in TARGETS.values()]
    return jnp.stack(choices)[codes["target"]]


KEEP = {"all": keep_all, "block": block_keep, "prefilter": prefilter_keep}
"""Which samples to keep: (teacher logits [N, C], forget mask [C], PreFilter's threshold) -> booleans [N]."""

TARGETS = {"teacher": teacher_itself, "postfilter": post_filter, "project": project}
"""What to learn: (teacher logits [N, C], forget mask [C], PostFilter's threshold, -1 if it has none) -> logits [N, C]."""

METHODS = {
    "dfkd": Method(inhibit=False, keep="all", target="teacher"),
    "blockf": Method(inhibit=False, keep="block", target="teacher"),
    "gkt": Method(inhibit=False, keep="prefilter", target="teacher"),
    "is": Method(inhibit=True, keep="prefilter", target="teacher"),
    "pf": Method(inhibit=False, keep="all", target="postfilter"),
    "ispf": Method(inhibit=True, keep="all", target="postfilter"),
    "pd": Method(inhibit=False, keep="all", target="project"),
    "pd_is": Method(inhibit=True, keep="all", target="project"),
}
