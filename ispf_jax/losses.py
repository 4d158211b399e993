"""Losses of the generator and the student: pure, per example, unreduced where a mean over the batch follows.

Symbols: t, s are teacher and student logits [N, C]; p^t, p^s their softmax; forget_mask [C] is 1 for forgotten classes.
Equation numbers are those of the paper (AAAI 2025, arXiv 2412.13790). Natural logarithms throughout.
"""

import jax
import jax.numpy as jnp
import optax


def kl_terms(teacher_logits, student_logits):
    """k_c = p^t_c (log p^t_c - log p^s_c), [N, C]; their sum over classes is KL(teacher || student)."""
    log_t = jax.nn.log_softmax(teacher_logits)
    return jnp.exp(log_t) * (log_t - jax.nn.log_softmax(student_logits))


def kl_divergence(teacher_logits, student_logits, temperature=1.0):
    """KL(teacher || student) per example, [N] (Eq. 1: the student minimises its mean).

    Args:
      temperature: T divides the logits of both, and T^2 multiplies the result, so that gradients keep their size
        (Hinton et al., 2015); static.
    """
    if temperature != 1:
        teacher_logits, student_logits = teacher_logits / temperature, student_logits / temperature
    return temperature**2 * jnp.sum(kl_terms(teacher_logits, student_logits), axis=-1)


def logit_distance(teacher_logits, student_logits):
    """Mean over classes of |t - s|, both centred on their mean, per example, [N]: a softmax ignores that mean.

    Unlike the KL divergence it does not fade where both are certain, so the student goes on learning the teacher's
    smaller logits (Fang et al., 2019, arXiv 1912.11006, take it instead). Logits that a target puts at -1e9 (PD) are
    left out.
    """
    finite = teacher_logits > -1e8
    count = jnp.sum(finite, axis=-1, keepdims=True)
    difference = jnp.where(finite, teacher_logits - student_logits, 0.0)
    centred = difference - jnp.sum(difference, axis=-1, keepdims=True) / count
    return jnp.sum(jnp.where(finite, jnp.abs(centred), 0.0), axis=-1) / count[..., 0]


def adversarial(teacher_logits, student_logits, forget_mask, inhibit):
    """The generator's adversarial term per example, [N].

    Without inhibition the negative KL divergence (Eq. 2): the generator looks for images on which student and teacher
    differ. With inhibited synthesis (Eq. 7) the forgotten classes enter with the opposite sign, -sum_r k_r + sum_f k_f,
    so images of forgotten classes, which the student never learns, stop paying.

    Args:
      inhibit: 1 with inhibited synthesis, 0 without; may be traced.
    """
    sign = 2.0 * forget_mask * inhibit - 1.0
    return jnp.sum(sign * kl_terms(teacher_logits, student_logits), axis=-1)


def one_hot(teacher_logits):
    """Cross entropy of the teacher with its own most likely class, per example, [N]: images should be typical of some
    class."""
    return -jnp.max(jax.nn.log_softmax(teacher_logits), axis=-1)


def class_balance(mean_probability):
    """Negative entropy sum_c p_c log p_c of the teacher's mean prediction [C] over the global batch: all classes should
    occur.

    A class whose probability is rounded to 0 adds nothing, and nothing to the gradient (where p log p itself has an
    infinite slope).
    """
    occurring = jnp.where(mean_probability > 0, mean_probability, 1.0)
    return jnp.sum(mean_probability * jnp.log(occurring))


def retained(mean_probability, forget_mask):
    """A distribution [C] without the forgotten classes, renormalised."""
    kept = mean_probability * (1 - forget_mask)
    return kept / jnp.maximum(jnp.sum(kept), 1e-12)


def activation(features):
    """Negative mean absolute feature per example, [N] (weight 0 by default, as in the authors' scripts)."""
    return -jnp.mean(jnp.abs(features), axis=-1)


def moment_matching(running, batch):
    """Batch-norm matching in DeepInversion's form: sum over layers of ||var - var'||_2 + ||mean - mean'||_2, not
    squared.

    Args:
      running, batch: pytrees alike, with dicts {"mean": [F], "var": [F]} per batch norm: the teacher's running
        statistics and the moments of the generated batch (biased variance).
    """
    distances = jax.tree.map(
        lambda r, b: optax.safe_norm(r - b, 0.0), running, batch
    )  # gradient 0 at distance 0, as in PyTorch
    return jax.tree.reduce(jnp.add, distances, jnp.float32(0))


def forget_probability(logits, forget_mask):
    """Mean over the forgotten classes of the predicted probability, per example, [N]."""
    return jax.nn.softmax(logits) @ forget_mask / jnp.sum(forget_mask)


def retained_entropy(logits, forget_mask):
    """Entropy of the prediction restricted to the retained classes and renormalised, per example in nats, [N] (Eq.
    11's summand)."""
    log_p = jax.nn.log_softmax(jnp.where(forget_mask > 0, -jnp.inf, logits))
    return -jnp.sum(jnp.where(forget_mask > 0, 0.0, jnp.exp(log_p) * log_p), axis=-1)
