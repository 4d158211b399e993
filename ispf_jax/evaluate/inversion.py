"""Images that a network itself says are of a class, by gradient ascent on the input: what can be asked without any
image."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from ispf_jax.classifier import Network

SMOOTH = 1.0
"""Weight of the total variation."""

LEARNING_RATE = 0.1


def invert(network: Network, variables, targets, steps: int, seed: int) -> np.ndarray:
    """Images uint8 [N, H, W, C] of the classes `targets`, int [N], made from the weights alone.

    Minimises -log p(target) + `SMOOTH` times the mean absolute difference of neighbouring pixels (total variation,
    Mahendran & Vedaldi 2015) by Adam, on x = sigmoid(z) from z ~ N(0, 1): the noise follows from the seed alone, so all
    networks start from the same images.
    """
    start = np.random.default_rng([seed, 7]).normal(size=(len(targets), *network.image_shape)).astype(np.float32)
    return np.asarray(_ascend(network, steps, variables, start, jnp.asarray(targets, jnp.int32)))


@partial(jax.jit, static_argnums=(0, 1))
def _ascend(network, steps, variables, start, targets):
    optimizer = optax.adam(LEARNING_RATE)

    def loss(z):
        x = jax.nn.sigmoid(z)
        logits, _ = network.module.apply(variables, network.normalise(x))
        return jnp.sum(optax.softmax_cross_entropy_with_integer_labels(logits, targets) + SMOOTH * total_variation(x))

    def step(carry, _):
        z, state = carry
        updates, state = optimizer.update(jax.grad(loss)(z), state)
        return (optax.apply_updates(z, updates), state), None

    (z, _), _ = lax.scan(step, (start, optimizer.init(start)), length=steps)
    return jnp.round(255 * jax.nn.sigmoid(z)).astype(jnp.uint8)


def total_variation(x):
    """Mean absolute difference of neighbouring pixels of images [N, H, W, C], [N]."""
    return sum(jnp.mean(jnp.abs(jnp.diff(x, axis=axis)), axis=(1, 2, 3)) for axis in (1, 2))


def label_leak(scores, forget_mask) -> float:
    """How well a score per class, [C], gives away which classes were forgotten: the probability that a forgotten
    class has a higher one than a retained one, ties counting a half; 0.5 is chance.

    It is what the attacks on labels of Zheng et al. (2026, arXiv 2604.07386) come down to. Scores: the change of a
    class's weights in the head, or how unsure the network is of the images that were inverted for the class.
    """
    forgotten, retained = scores[forget_mask][:, None], scores[~forget_mask][None]
    return float(np.mean((forgotten > retained) + 0.5 * (forgotten == retained)))
