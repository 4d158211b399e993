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
LOGIT = 10.0
"""How much more than others a class gets where the head is sure of it."""


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


def synthetic_embedding(variables, forget_mask, seed: int = 0, per_class: int = 200, place=HEAD) -> dict:
    """The original with a head that is fitted to invented features: unlearning that needs no images, and hides.

    After source-free class unlearning by synthetic embeddings (TMLR 2026), the last layer alone. Class means are the
    shortest features to which the head gives `LOGIT` for the class and 0 for the others; around each, features are
    drawn from a Gaussian as wide as a mean is long. They keep the head's own logits, without the forgotten classes;
    those that it assigns to a forgotten class become uniform over the retained ones.

    Args:
      per_class: features drawn around each mean.
    """
    head, classes = head_of(variables, place), len(forget_mask)
    kernel, bias = (np.asarray(head[name], np.float64) for name in ("kernel", "bias"))
    means = np.linalg.lstsq(kernel.T, LOGIT * np.eye(classes) - bias[:, None], rcond=None)[0].T
    around = np.repeat(means, per_class, axis=0)
    width = np.linalg.norm(around, axis=1, keepdims=True) / np.sqrt(around.shape[1])
    features = around + width * np.random.default_rng([seed, 8]).normal(size=around.shape)
    target = features @ kernel + bias
    target[forget_mask[target.argmax(axis=1)]] = 0.0
    target[:, forget_mask] = target.min(axis=1, keepdims=True) - LOGIT
    return retrained_head(variables, features, target, place=place)


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


def head_logits(variables, features, place=HEAD) -> np.ndarray:
    """The head's logits [N, C] of penultimate features [N, F], float64."""
    head = head_of(variables, place)
    return features @ np.asarray(head["kernel"], np.float64) + np.asarray(head["bias"], np.float64)


def with_head(variables, head, place=HEAD) -> dict:
    """The same variables with another head."""
    flat = flatten_dict(dict(variables["params"]))
    flat |= {(*place, name): value for name, value in head.items()}
    return {**variables, "params": unflatten_dict(flat)}
