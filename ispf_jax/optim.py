"""Optimisers and learning-rate schedules with PyTorch's semantics.

The learning rate is an input of the compiled step (schedules are evaluated once per epoch), so optimisers here come
without one: `apply` scales the direction. The same arguments give the same object, so that setups which hold one are
equal if their numbers are.
"""

from functools import cache

import jax
import jax.numpy as jnp
import optax


@cache
def sgd(momentum: float = 0.9, weight_decay: float = 1e-4):
    """PyTorch's SGD: v <- momentum v + (gradient + weight_decay w); w <- w - lr v. Decay covers all parameters, as
    there."""
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.trace(momentum))


@cache
def adam(b1: float, b2: float):
    """PyTorch's Adam (eps 1e-8 outside the root)."""
    return optax.scale_by_adam(b1, b2)


def apply(optimizer, learning_rate, gradient, opt_state, params):
    """One update; returns (params, opt_state)."""
    direction, opt_state = optimizer.update(gradient, opt_state, params)
    return jax.tree.map(lambda p, d: p - learning_rate * d, params, direction), opt_state


def cosine(step, initial, final, steps):
    """PyTorch's CosineAnnealingLR: from `initial` at step 0 to `final` at `steps`; the argument may be traced."""
    return final + (initial - final) * (1 + jnp.cos(jnp.pi * step / steps)) / 2


def multi_step(step: int, initial: float, milestones, gamma: float) -> float:
    """PyTorch's MultiStepLR: multiplied by gamma at every milestone that `step` has reached."""
    return initial * gamma ** sum(step >= m for m in milestones)
