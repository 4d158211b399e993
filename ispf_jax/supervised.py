"""Supervised training of the original and the retrained model, from images that lie on the device as uint8."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax
from jax import lax

from ispf_jax import optim
from ispf_jax.augment import augment
from ispf_jax.classifier import Network
from ispf_jax.collectives import local_slice, psum, value_and_global_grad
from ispf_jax.state import TrainState


@dataclass(frozen=True)
class SupervisedSetup:
    """What stays the same in a run, and is compiled in; `augmentation` is a name that `augment` knows."""

    network: Network
    optimizer: optax.GradientTransformation
    batch_size: int
    augmentation: str


def supervised_step(setup: SupervisedSetup, state: TrainState, images, labels, mask, learning_rate, axis=None):
    """One SGD step on normalised images [N, H, W, C]; rows with mask 0 do not exist (the last, smaller batch of an
    epoch).

    Returns:
      (state, metrics): sums over the batch of cross entropy and hits, and the number of rows.
    """
    rows = psum(jnp.sum(mask), axis)

    def loss_share(params):
        variables = {"params": params, "batch_stats": state.net.batch_stats}
        (logits, _), new = setup.network.module.apply(
            variables, images, train=True, mask=mask, axis=axis, mutable=["batch_stats"]
        )
        losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)
        hits = jnp.sum((jnp.argmax(logits, axis=-1) == labels) * mask)
        return jnp.sum(losses * mask) / rows, (new.get("batch_stats", {}), hits)

    (loss, (batch_stats, hits)), gradient = value_and_global_grad(loss_share, state.net.params, axis)
    params, opt_state = optim.apply(setup.optimizer, learning_rate, gradient, state.net.opt_state, state.net.params)
    net = state.net.replace(params=params, batch_stats=batch_stats, opt_state=opt_state)
    return state.replace(net=net), {"loss": loss * rows, "hits": psum(hits, axis), "rows": rows}


def supervised_epoch(setup: SupervisedSetup, state: TrainState, images, labels, member, learning_rate, axis=None):
    """One pass over the images whose `member` flag is set, in a fresh random order, last batch smaller.

    The training set is a mask over all images, so the original and every retrained model run the same compiled program.

    Args:
      images: uint8 [M, H, W, C]; labels: int32 [M]; member: bool [M].
    Returns:
      (state, metrics): mean cross entropy `loss` and `accuracy` (percent) over the epoch, in train mode.
    """
    batch = setup.batch_size
    order_key, augment_key = jax.random.split(jax.random.fold_in(state.key, state.epoch))
    rank = jnp.where(member, jax.random.uniform(order_key, member.shape), jnp.inf)
    order = jnp.pad(jnp.argsort(rank), (0, -member.size % batch))
    members = jnp.sum(member)

    def body(step, carry):
        state, sums = carry
        rows = lax.dynamic_slice_in_dim(order, step * batch, batch)
        mask = (step * batch + jnp.arange(batch) < members).astype(jnp.float32)
        # Augmented before it is sliced: every number of devices draws the same crops.
        augmented = augment(setup.augmentation, jax.random.fold_in(augment_key, step), images[rows])
        state, metrics = supervised_step(
            setup,
            state,
            setup.network.normalise(local_slice(augmented, axis)),
            local_slice(labels[rows], axis),
            local_slice(mask, axis),
            learning_rate,
            axis,
        )
        return state, jax.tree.map(jnp.add, sums, metrics)

    sums = {"loss": jnp.float32(0), "hits": jnp.float32(0), "rows": jnp.float32(0)}
    state, sums = lax.fori_loop(0, -(-members // batch), body, (state, sums))
    metrics = {"loss": sums["loss"] / sums["rows"], "accuracy": 100 * sums["hits"] / sums["rows"]}
    return state.replace(epoch=state.epoch + 1), metrics
