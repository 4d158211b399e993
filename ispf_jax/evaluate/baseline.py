"""Cheap ways of hiding a class that every audit is compared with: they change the head alone and leave the features as
they are."""

from functools import partial, reduce
from operator import getitem

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import lax

from ispf_jax.evaluate import inputs
from ispf_jax.losses import kl_divergence

HEAD = ("classifier",)


def masked_head(variables, forget_mask, place=HEAD) -> dict:
    """The original with its forgotten logits cut off: each becomes the mean of the retained logits, by the rows of the
    head alone.

    A mean is never above the maximum, so forgotten classes are no longer predicted (but for exact ties), retained ones
    exactly as before. Unlike a bias of minus infinity it is an ordinary head, which can be relearned.
    """
    mask, head = forget_mask, head_of(variables, place)
    new = {name: np.array(value) for name, value in head.items()}
    for value in new.values():
        value[..., mask] = value[..., ~mask].mean(axis=-1, keepdims=True)
    return with_head(variables, new, place)


def retrained_head(variables, features, target_logits, steps: int = 200, place=HEAD) -> dict:
    """The original with a new linear head on its frozen features of synthetic images, trained on the method's target
    distribution.

    Minimises the mean KL(softmax(target) || softmax(W x + b)) over all images at once with L-BFGS from W = 0, b = 0, in
    one compiled program. The problem is convex, so where it starts decides nothing; features are standardised for the
    optimiser and the scaling is folded into the head.

    Args:
      variables: of the original model.
      features: its penultimate features of synthetic images, [N, F]; target_logits: [N, C], for instance the teacher's
        logits after `methods.post_filter`.
    """
    shift, scale = features.mean(axis=0), features.std(axis=0)
    scale = np.where(scale > 1e-6 * max(scale.max(), 1e-30), scale, np.inf)  # constant features get no weight
    scaled = jnp.asarray((features - shift) / scale, jnp.float32)
    weights = jax.device_get(_fit_head(steps, scaled, jnp.asarray(target_logits, jnp.float32)))
    kernel = inputs.finite("weights of the retrained head", weights["kernel"].astype(np.float64) / scale[:, None])
    bias = weights["bias"] - shift @ kernel
    return with_head(variables, {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}, place)


@partial(jax.jit, static_argnums=0)
def _fit_head(steps, features, targets):
    optimizer = optax.lbfgs()
    params = {"kernel": jnp.zeros((features.shape[1], targets.shape[1])), "bias": jnp.zeros(targets.shape[1])}

    def loss(params):
        return jnp.mean(kl_divergence(targets, features @ params["kernel"] + params["bias"]))

    value_and_grad = optax.value_and_grad_from_state(loss)

    def step(carry, _):
        params, state = carry
        value, gradient = value_and_grad(params, state=state)
        updates, state = optimizer.update(gradient, state, params, value=value, grad=gradient, value_fn=loss)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = lax.scan(step, (params, optimizer.init(params)), length=steps)
    return params


def head_of(variables, place=HEAD) -> dict:
    """{"kernel", "bias"} of the head, which lies at `place` among the parameters (`Network.head`)."""
    return reduce(getitem, place, variables["params"])


def with_head(variables, head, place=HEAD) -> dict:
    """The same variables with another head."""
    flat = flatten_dict(dict(variables["params"]))
    flat |= {(*place, name): value for name, value in head.items()}
    return {**variables, "params": unflatten_dict(flat)}
