"""Relearning: how fast a model gets the forgotten class back when it is trained on it again, and the anamnesis index (AIN).

Anamnesis index: Chundawat et al. 2023. The whole curve is measured, because one threshold crossing is a noisy number.
"""

from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ispf_jax import optim
from ispf_jax.data.augment import augment, normalise
from ispf_jax.errors import UserError
from ispf_jax.evaluate import inputs
from ispf_jax.evaluate.sampling import shots
from ispf_jax.state import TrainState, new_net
from ispf_jax.supervised import SupervisedSetup, supervised_step

DATA = ("all", "forget", "retain", "shots")


@dataclass(frozen=True)
class RelearnSetup:
    """What is the same for all curves, and is compiled in.

    Attributes:
      steps: the cap: how many mini-batch steps are made.
      evaluate_every: steps between two evaluations; 1 for the anamnesis index.
      learning_rate: of Adam (0.9, 0.999, 1e-8) with a fresh state, constant, no weight decay.
    """

    classifier: nn.Module
    steps: int
    augmentation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    batch_size: int = 256
    evaluate_every: int = 1
    learning_rate: float = 1e-3


@dataclass(frozen=True)
class RelearnCurve:
    """Accuracy in percent on the evaluated test images after `steps` (the first is 0: before relearning).

    NaN after the first value at or above `stop_at`, where a curve was asked to stop there.
    """

    steps: tuple[int, ...]
    accuracy: tuple[float, ...]
    images: int
    test_images: int


@dataclass(frozen=True)
class Reach:
    """First evaluated step, 1 or more, at which a curve is at or above a target. Censored: never, and `steps` is the cap."""

    steps: int
    censored: bool


@dataclass(frozen=True)
class Anamnesis:
    """AIN = student steps / gold steps. Near 1 like retraining; far below 1, knowledge is left; above 1, harder to relearn.

    `bound` says what a cap made of the value: "exact", "at least" (student censored), "at most" (gold censored) or "undefined"
    (both: `value` is None).
    """

    value: float | None
    student: Reach
    gold: Reach
    bound: str


def relearn_members(data: str, labels, member, forget_mask, seed: int = 0, k: int | None = None) -> np.ndarray:
    """Which training images are relearned, bool [M]; `member` is the original's training split.

    data: "all" (every class: the anamnesis index), "forget" (forgotten classes only), "retain" (retained classes only: does the
    forgotten class come back without being shown?), "shots" (`k` images of every class).
    """
    if data not in DATA or (data == "shots") != (k is not None):
        raise UserError(f"Relearning data {data!r} with k={k}; use one of {', '.join(DATA)}, and k with shots only.")
    member = np.asarray(member).astype(bool)
    forgotten = inputs.forgotten_rows("training images", labels, forget_mask)
    inputs.same_length(labels=forgotten, member=member)
    if data == "shots":
        return shots(labels, member, k, seed)
    return member & {"all": True, "forget": forgotten, "retain": ~forgotten}[data]


def relearn_curve(
    setup: RelearnSetup,
    variables,
    images,
    labels,
    member,
    test_images,
    test_labels,
    evaluated,
    seed: int,
    stop_at: float | None = None,
) -> RelearnCurve:
    """Train a copy of a model and measure its accuracy on the evaluated test images after every step, in one compiled program.

    Cross entropy over all logits, batch norm in train mode, evaluation in eval mode. Training and test sets are masks over all
    images, so all sets share one program per network and shape of the data. With fewer images than a batch, the batch has that
    many (and the program that many rows, rounded up to a power of two: few shots are cheap). Order and augmentation follow from
    the seed and the set alone: every model sees the same batches.

    Args:
      variables: {"params", "batch_stats"} of the model; not changed.
      images: uint8 [M, H, W, C]; labels: int [M]; member: bool [M]; test_images: uint8 [T, H, W, C]; test_labels: int [T];
        evaluated: bool [T], usually the test images of the forgotten classes.
      stop_at: percent; steps after the first evaluation at or above it are not made, and NaN in the curve.
    """
    member, evaluated = (np.asarray(mask).astype(bool) for mask in (member, evaluated))
    inputs.same_length(images=images, labels=labels, member=member)
    inputs.same_length(test_images=test_images, test_labels=test_labels, evaluated=evaluated)
    if not member.any() or not evaluated.any():
        raise UserError(
            f"Relearning on {member.sum()} training images, measured on {evaluated.sum()} test images: both must be at least one; "
            "does the test set hold the forgotten class?"
        )
    if setup.steps < 1 or setup.steps % setup.evaluate_every:
        raise UserError(
            f"relearn.steps={setup.steps} must be a positive multiple of evaluate_every={setup.evaluate_every}."
        )
    rows = min(setup.batch_size, _power_of_two(member.sum()))
    accuracy = _curve(
        setup,
        rows,
        variables,
        images,
        jnp.asarray(labels, jnp.int32),
        member,
        test_images,
        jnp.asarray(test_labels, jnp.int32),
        evaluated,
        jax.random.key(seed),
        jnp.float32(np.inf if stop_at is None else stop_at),
    )
    accuracy = tuple(map(float, np.asarray(accuracy)))
    steps = tuple(range(0, setup.steps + 1, setup.evaluate_every))
    return RelearnCurve(steps, accuracy, int(member.sum()), int(evaluated.sum()))


def steps_to_reach(curve: RelearnCurve, target: float) -> Reach:
    """First evaluated step at which the accuracy is at least `target` (percent); 1 if it already is before relearning."""
    if not 0 < target <= 100:
        raise UserError(
            f"The accuracy to relearn is {target} %; it must be above 0, up to 100: does the original know the class?"
        )
    for step, accuracy in zip(curve.steps, curve.accuracy):
        if accuracy >= target:
            return Reach(max(step, 1), False)
    return Reach(curve.steps[-1], True)


def relearn_target(original_accuracy: float, alpha: float = 0.05) -> float:
    """The accuracy to reach for the anamnesis index: (1 - alpha) times the original's on the forgotten test images, percent."""
    return (1 - alpha) * original_accuracy


def anamnesis_index(student: RelearnCurve, gold: RelearnCurve, target: float) -> Anamnesis:
    """Steps the student needs to reach `target` (percent) over the steps the retrained model needs, both at least 1."""
    if student.steps != gold.steps:
        raise UserError(
            "The anamnesis index compares curves with the same steps; relearn both models with the same setup."
        )
    s, g = steps_to_reach(student, target), steps_to_reach(gold, target)
    bound = {(0, 0): "exact", (1, 0): "at least", (0, 1): "at most", (1, 1): "undefined"}[s.censored, g.censored]
    return Anamnesis(None if bound == "undefined" else s.steps / g.steps, s, g, bound)


def mean_accuracy(curve: RelearnCurve) -> float:
    """Mean accuracy in percent over the evaluated steps after step 0: the area under the curve, steadier than one crossing."""
    return float(np.mean(inputs.finite("accuracies of the relearning curve (stopped early?)", curve.accuracy[1:])))


@partial(jax.jit, static_argnums=(0, 1))
def _curve(setup, batch, variables, images, labels, member, test_images, test_labels, evaluated, key, stop_at):
    """Accuracy before the first step and after every evaluated one, [1 + steps / evaluate_every], percent."""
    members = jnp.sum(member)
    training = SupervisedSetup(
        setup.classifier, optim.adam(0.9, 0.999), batch, setup.augmentation, setup.mean, setup.std
    )
    steps_per_epoch = -(-members // batch)
    start = TrainState(new_net(variables, training.optimizer), key, jnp.int32(0))
    accuracy_of = _evaluator(setup, test_images, test_labels, evaluated)

    def shuffled(epoch):
        rank = jnp.where(member, jax.random.uniform(jax.random.fold_in(key, 2 * epoch), member.shape), jnp.inf)
        return jnp.pad(jnp.argsort(rank), (0, -member.size % batch))

    def train(step, carry):
        state, order = carry
        epoch, place = step // steps_per_epoch, step % steps_per_epoch * batch
        order = lax.cond(place == 0, shuffled, lambda _: order, epoch)
        rows = lax.dynamic_slice_in_dim(order, place, batch)
        mask = (place + jnp.arange(batch) < members).astype(jnp.float32)
        batch_images = augment(setup.augmentation, jax.random.fold_in(key, 2 * step + 1), images[rows])
        normalised = normalise(batch_images, setup.mean, setup.std)
        state, _ = supervised_step(training, state, normalised, labels[rows], mask, setup.learning_rate)
        return state, order

    def run(carry, first_step):
        state, order, _ = carry
        state, order = lax.fori_loop(first_step, first_step + setup.evaluate_every, train, (state, order))
        return state, order, accuracy_of(state.net.variables)

    def body(carry, first_step):
        done = ~(carry[2] < stop_at)
        carry = lax.cond(done, lambda carry, _: carry, run, carry, first_step)
        return carry, jnp.where(done, jnp.nan, carry[2])

    before = accuracy_of(variables)
    first_steps = jnp.arange(0, setup.steps, setup.evaluate_every)
    _, after = lax.scan(body, (start, jnp.arange(member.size + -member.size % batch), before), first_steps)
    return jnp.concatenate([before[None], after])


def _evaluator(setup, images, labels, evaluated):
    """variables -> accuracy in percent on the evaluated images, in chunks; only chunks that hold any are computed."""
    chunk = min(
        512, _power_of_two(images.shape[0] // setup.classifier.num_classes)
    )  # about one class, from shapes alone
    order = jnp.pad(jnp.argsort(~evaluated), (0, -images.shape[0] % chunk))
    count = jnp.sum(evaluated)

    def accuracy_of(variables):
        def hits_of(i, hits):
            rows = lax.dynamic_slice_in_dim(order, i * chunk, chunk)
            logits, _ = setup.classifier.apply(variables, normalise(images[rows], setup.mean, setup.std))
            real = i * chunk + jnp.arange(chunk) < count
            return hits + jnp.sum((jnp.argmax(logits, axis=-1) == labels[rows]) & real)

        return 100 * lax.fori_loop(0, -(-count // chunk), hits_of, jnp.int32(0)) / count

    return accuracy_of


def _power_of_two(number):
    """The smallest power of two that is not below `number`, and 16 at least."""
    return 1 << (max(int(number), 16) - 1).bit_length()
