"""Relearning: how fast a model gets the forgotten class back when it is trained on it again, and the anamnesis index
(AIN).

Anamnesis index: Chundawat et al. 2023. The whole curve is measured, because one threshold crossing is a noisy number.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ispf_jax import optim
from ispf_jax.augment import augment
from ispf_jax.classifier import Network
from ispf_jax.errors import UserError
from ispf_jax.state import TrainState, new_net
from ispf_jax.supervised import SupervisedSetup, supervised_step


@dataclass(frozen=True)
class RelearnSetup:
    """What is the same for all curves, and is compiled in.

    Attributes:
      steps: how many mini-batch steps are made.
      learning_rate: of Adam (0.9, 0.999, 1e-8) with a fresh state, constant, no weight decay.
    """

    network: Network
    steps: int
    augmentation: str = "none"
    batch_size: int = 256
    learning_rate: float = 1e-3


class Subset(NamedTuple):
    """Images uint8 [M, H, W, C] on the device with labels [M], and which of them take part, bool [M]."""

    images: Any
    labels: Any
    member: Any


def relearn_curve(setup: RelearnSetup, variables, train: Subset, test: Subset, seed: int) -> tuple[float, ...]:
    """Train a copy of a model and measure its accuracy on test images before and after every step, in one compiled
    program.

    Cross entropy over all logits, batch norm in train mode, evaluation in eval mode. Training and test sets are masks
    over all images, so all sets share one program per network and shape of the data. With fewer images than a batch,
    the batch has that many (and the program that many rows, rounded up to a power of two: few shots are cheap). Order
    and augmentation follow from the seed and the set alone: every model sees the same batches.

    Args:
      variables: {"params", "batch_stats"} of the model; not changed.
      test: usually the test images of the forgotten classes.

    Returns:
      1 + steps accuracies in percent.
    """
    train, test = (
        Subset(s.images, jnp.asarray(s.labels, jnp.int32), np.asarray(s.member).astype(bool)) for s in (train, test)
    )
    for subset, what in ((train, "training"), (test, "test")):
        if not subset.member.any():
            raise UserError(f"Relearning has no {what} images; does the {what} set hold the forgotten class?")
    batch = min(setup.batch_size, _power_of_two(train.member.sum()))
    return tuple(map(float, _curve(setup, batch, variables, train, test, jax.random.key(seed))))


def steps_to_reach(curve, target: float) -> tuple[int, bool]:
    """(first step, 1 or more, at which the accuracy is at least `target` percent, True), or (the last step, False)."""
    reached = np.flatnonzero(np.asarray(curve) >= target)
    return (max(int(reached[0]), 1), True) if reached.size else (len(curve) - 1, False)


def anamnesis_index(student, gold, target: float) -> tuple[float | None, str]:
    """Steps that the student's curve needs to reach `target` (percent) over those of the retrained model's curve.

    Near 1 like retraining; far below 1, knowledge is left; above 1, harder to relearn.

    Returns:
      (index, what the end of a curve made of it): "exact", "at least" (the student never gets there), "at most" (the
      retrained model never does) or "undefined" (both: the index is None).
    """
    (s, s_reached), (g, g_reached) = steps_to_reach(student, target), steps_to_reach(gold, target)
    if not s_reached and not g_reached:
        return None, "undefined"
    return s / g, "exact" if s_reached and g_reached else "at most" if s_reached else "at least"


@partial(jax.jit, static_argnums=(0, 1))
def _curve(setup, batch, variables, train, test, key):
    """Accuracy before the first step and after every step, [1 + steps], percent."""
    network, size = setup.network, train.member.size
    members = jnp.sum(train.member)
    training = SupervisedSetup(network, optim.adam(0.9, 0.999), batch, setup.augmentation)
    steps_per_epoch = -(-members // batch)
    start = TrainState(new_net(variables, training.optimizer), key, jnp.int32(0))
    accuracy_of = _accuracy(network, test)

    def shuffled(epoch):
        rank = jnp.where(train.member, jax.random.uniform(jax.random.fold_in(key, 2 * epoch), (size,)), jnp.inf)
        return jnp.pad(jnp.argsort(rank), (0, -size % batch))

    def body(carry, step):
        state, order = carry
        epoch, place = step // steps_per_epoch, step % steps_per_epoch * batch
        order = lax.cond(place == 0, shuffled, lambda _: order, epoch)
        rows = lax.dynamic_slice_in_dim(order, place, batch)
        mask = (place + jnp.arange(batch) < members).astype(jnp.float32)
        images = augment(setup.augmentation, jax.random.fold_in(key, 2 * step + 1), train.images[rows])
        images, labels = network.normalise(images), train.labels[rows]
        state, _ = supervised_step(training, state, images, labels, mask, setup.learning_rate)
        return (state, order), accuracy_of(state.net.variables)

    _, after = lax.scan(body, (start, jnp.arange(size + -size % batch)), jnp.arange(setup.steps))
    return jnp.concatenate([accuracy_of(variables)[None], after])


def _accuracy(network, test):
    """variables -> accuracy in percent on the test images, in chunks; only chunks that hold any are computed."""
    available = test.images.shape[0]
    chunk = min(512, 8 * -(-available // (7 * network.num_classes)))  # a little over a class, from shapes alone
    order = jnp.pad(jnp.argsort(~test.member), (0, -available % chunk))
    count = jnp.sum(test.member)

    def accuracy_of(variables):
        def hits_of(i, hits):
            rows = lax.dynamic_slice_in_dim(order, i * chunk, chunk)
            logits, _ = network.module.apply(variables, network.normalise(test.images[rows]))
            real = i * chunk + jnp.arange(chunk) < count
            return hits + jnp.sum((jnp.argmax(logits, axis=-1) == test.labels[rows]) & real)

        return 100 * lax.fori_loop(0, -(-count // chunk), hits_of, jnp.int32(0)) / count

    return accuracy_of


def _power_of_two(number):
    """The smallest power of two that is not below `number`, and 16 at least."""
    return 1 << (max(int(number), 16) - 1).bit_length()
