"""MIA-II: a membership attack that is trained on shadow models (Shokri et al. 2017), scored by F1 on the model under
attack.

The paper fixes only that there are several shadow models and that the score is F1; everything else here is our
protocol, stated in each function. The value is not better when higher or lower: it is compared with the retrained
model's.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

HIDDEN = 64
BATCH = 256
LEARNING_RATE = 1e-3


def halves(num_images: int, shadows: int, seed: int) -> np.ndarray:
    """Training sets of the shadow models: bool [shadows, num_images], a random half of all images for each.

    The pool is the official training set, which overlaps the model's own training set (the data sets are too small for
    disjoint ones); the attacker sees neither class nor image, so the effect is small.
    """
    orders = [np.random.default_rng([seed, k]).permutation(num_images) for k in range(shadows)]
    return np.stack([np.isin(np.arange(num_images), order[: num_images // 2]) for order in orders])


def train_attacker(signals, member, seed: int, epochs: int = 50) -> dict:
    """Fit the attack network, sigmoid(W2 relu(W1 s + b1) + b2) with 64 hidden units, to signals of the shadow models.

    Adam with binary cross entropy. A tenth of either side is held out; the parameters after the epoch with the lowest
    held-out loss are kept, which is early stopping without a patience to choose. All epochs are one compiled program.

    Args:
      signals: [N, S], `signals.sorted_softmax` of every shadow model on all images; member: bool [N], whether the
        shadow was trained on the image.

    Returns:
      Its parameters.
    """
    rng, held_out = np.random.default_rng(seed), np.zeros(member.size, bool)
    for side in (True, False):
        rows = rng.permutation(np.flatnonzero(member == side))
        held_out[rows[: max(1, rows.size // 10)]] = True
    data = [jnp.asarray(a[part], jnp.float32) for part in (~held_out, held_out) for a in (signals, member)]
    return jax.device_get(_train(epochs, *data, jax.random.key(seed)))


def attack(params: dict, signals) -> np.ndarray:
    """The attack network's probability of "in training" for signals [N, S] of the model under attack, [N]."""
    return np.asarray(jax.nn.sigmoid(_logit(params, jnp.asarray(signals, jnp.float32))), np.float64)


def _logit(params, signals):
    hidden = jax.nn.relu(signals @ params["w1"] + params["b1"])
    return hidden @ params["w2"] + params["b2"]


@partial(jax.jit, static_argnums=0)
def _train(epochs, signals, member, held_signals, held_member, key):
    """Parameters of the epoch with the lowest held-out loss."""
    optimizer = optax.adam(LEARNING_RATE)
    rows, batch = signals.shape[0], min(BATCH, signals.shape[0])
    init_key, order_key = jax.random.split(key)
    first, second = jax.random.split(init_key)
    init = jax.nn.initializers.he_normal()
    params = {"w1": init(first, (signals.shape[1], HIDDEN)), "b1": jnp.zeros(HIDDEN)}
    params |= {"w2": init(second, (HIDDEN, 1))[:, 0], "b2": jnp.float32(0)}

    def loss(params, signals, member, weight):
        losses = optax.losses.sigmoid_binary_cross_entropy(_logit(params, signals), member)
        return jnp.sum(losses * weight) / jnp.sum(weight)

    def step(carry, chosen):
        (params, opt_state), (index, weight) = carry, chosen
        gradient = jax.grad(loss)(params, signals[index], member[index], weight)
        updates, opt_state = optimizer.update(gradient, opt_state)
        return (optax.apply_updates(params, updates), opt_state), None

    def epoch(carry, key):
        params, opt_state, best, best_loss = carry
        order = jnp.pad(jax.random.permutation(key, rows), (0, -rows % batch)).reshape(-1, batch)
        weight = (jnp.arange(order.size) < rows).astype(jnp.float32).reshape(-1, batch)
        (params, opt_state), _ = lax.scan(step, (params, opt_state), (order, weight))
        held = loss(params, held_signals, held_member, jnp.ones(held_member.shape))
        best = jax.tree.map(lambda new, old: jnp.where(held < best_loss, new, old), params, best)
        return (params, opt_state, best, jnp.minimum(best_loss, held)), None

    start = (params, optimizer.init(params), params, jnp.inf)
    (_, _, best, _), _ = lax.scan(epoch, start, jax.random.split(order_key, epochs))
    return best
