"""Data-free distillation: the generator step, the student step and the epoch that alternates them (paper, Algorithm 1).

Everything the update needs is an argument: modules and numbers that never change in a run are in `DistillSetup`
(static), the networks in `DistillState`, the teacher's variables, and what to forget and how in `Unlearning` (all
arrays). There is no argument through which real images could come in.
"""

from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import lax

from ispf_jax import losses, optim, replay
from ispf_jax.classifier import Network
from ispf_jax.collectives import local_slice, psum, replicated_share, value_and_global_grad
from ispf_jax.methods import Method, Rules
from ispf_jax.models.layers import BOUNDARY, MOMENTS
from ispf_jax.state import DistillState, select


@dataclass(frozen=True)
class LossWeights:
    """Weights of the generator's loss terms (DFQ base: 1, 1, 1, 1, 0; ZSKT base: 1, 0, 0, 0, 0)."""

    adv: float = 1.0
    bn: float = 1.0
    oh: float = 1.0
    balance: float = 1.0
    act: float = 0.0


@dataclass(frozen=True)
class DistillSetup:
    """What stays the same in a run, and is compiled in.

    Attributes:
      network: the teacher, and the student where `pupil` is None, with the normalisation that it was trained with.
      generator: module, noise [N, latent_dim] -> images in [0, 1].
      batch_size: global number of synthetic images per step.
      loops: loops per epoch; each is `generator_steps` generator steps, then `student_steps` student steps.
      warmup_epochs: epochs in which only the generator is trained, before the schedule of the student starts.
      cosine_epochs: length of the cosine schedule; 200 in the authors' program whatever the number of epochs.
      balance_retained: class balance over the retained classes alone.
      replayed: how many of a student step's images are earlier ones; 0: none, and the state needs no memory.
      memory: how many earlier images the state holds.
      mixup: share of the earlier images that are mixtures of two.
      temperature: of the distillation, on teacher and student alike.
      weight_logits: weight of the L1 distance of logits in the student's loss.
      rules: what methods can choose from.
      pupil: the student's module, where it is not the teacher's.
      remat: whether the layers' outputs are computed again for gradients, but for those at the boundaries of blocks.
    """

    network: Network
    generator: nn.Module
    student_optimizer: optax.GradientTransformation
    generator_optimizer: optax.GradientTransformation
    batch_size: int
    latent_dim: int
    loops: int
    generator_steps: int
    student_steps: int
    warmup_epochs: int
    student_lr: float
    student_lr_final: float
    cosine_epochs: int
    generator_lr: float
    weights: LossWeights
    balance_retained: bool = False
    replayed: int = 0
    memory: int = 0
    mixup: float = 0.0
    temperature: float = 1.0
    weight_logits: float = 0.0
    rules: Rules = Rules()
    pupil: Network | None = None
    remat: bool = False

    @property
    def student(self) -> Network:
        """The student's network."""
        return self.pupil or self.network

    def apply(self, module, *args, **settings):
        """What a module computes for a gradient."""
        if not self.remat:
            return module.apply(*args, **settings)
        policy = jax.checkpoint_policies.save_only_these_names(BOUNDARY)
        return jax.checkpoint(partial(module.apply, **settings), policy=policy)(*args)

    @property
    def fresh(self) -> int:
        """New images per student step."""
        return self.batch_size - self.replayed


@flax.struct.dataclass
class Unlearning:
    """What to forget and how, as arrays: one compiled program serves every forget set, method and threshold.

    Attributes:
      forget_mask: [C], 1 for classes to forget.
      threshold: PreFilter's threshold.
      post_threshold: PostFilter's threshold, -1 for the paper's PostFilter without one.
      codes: the method, see `Method.codes`.
      generator_rate: factor on the generator's learning rate.
    """

    forget_mask: jax.Array
    threshold: jax.Array
    post_threshold: jax.Array
    codes: dict
    generator_rate: jax.Array


def unlearning(method: Method, forget, num_classes: int, threshold: float, thresholded_post_filter: bool = False):
    """The arrays of an unlearning request: `forget` lists the class ids to forget; for a step with `method.rules()`."""
    return Unlearning(
        generator_rate=jnp.array(1.0),
        forget_mask=jnp.zeros(num_classes).at[jnp.array(forget)].set(1.0),
        threshold=jnp.float32(threshold),
        post_threshold=jnp.float32(threshold if thresholded_post_filter else -1.0),
        codes=method.codes(),
    )


def synthesise(setup, generator, noise, train=False, axis=None):
    """Images [N, H, W, C] from noise, normalised as the teacher expects; with `train` also the new batch statistics."""
    if not train:
        return setup.network.normalise(setup.generator.apply(generator, noise, axis=axis))
    images, new = setup.apply(setup.generator, generator, noise, train=True, axis=axis, mutable=["batch_stats"])
    return setup.network.normalise(images), new["batch_stats"]


def generator_step(setup: DistillSetup, state: DistillState, teacher, request: Unlearning, noise, axis=None):
    """One update of the generator: images on which the student has to learn, as the teacher's statistics want them.

    The generator runs in train mode, teacher and student in eval mode; gradients flow through both.

    Args:
      teacher: variables of the original model.
      noise: [N, latent_dim], this device's share of the batch.
    Returns:
      (state, metrics): generator loss terms by name; the teacher's labels of the batch, counted [C];
        `generator/spread`, the
      standard deviation over the batch of a pixel in [0, 1], mean over pixels: 0 when all images are alike.
    """
    weights, total = setup.weights, setup.batch_size

    def loss_share(params):
        generator = {"params": params, "batch_stats": state.generator.batch_stats}
        images, batch_stats = synthesise(setup, generator, noise, train=True, axis=axis)
        (t, features), moments = setup.apply(
            setup.network.module, teacher, images, axis=axis, mutable=[MOMENTS] if weights.bn else []
        )
        s, _ = setup.apply(setup.student.module, state.student.variables, images)
        mean_probability = psum(jnp.sum(jax.nn.softmax(t), axis=0), axis) / total
        if setup.balance_retained:
            mean_probability = losses.retained(mean_probability, request.forget_mask)
        adversarial = losses.adversarial(t, s, request.forget_mask, request.codes["inhibit"])
        terms = {
            "adv": jnp.sum(adversarial) / total,
            "oh": jnp.sum(losses.one_hot(t)) / total,
            "balance": replicated_share(losses.class_balance(mean_probability), axis),
            "act": jnp.sum(losses.activation(features)) / total,
        }
        if weights.bn:
            distance = losses.moment_matching(teacher["batch_stats"], moments.get(MOMENTS, {}))
            terms["bn"] = replicated_share(distance, axis)
        loss = sum(getattr(weights, name) * term for name, term in terms.items() if getattr(weights, name))
        return loss, (terms, batch_stats, t, lax.stop_gradient(images))

    (loss, (terms, batch_stats, t, images)), gradient = value_and_global_grad(loss_share, state.generator.params, axis)
    params, opt_state = optim.apply(
        setup.generator_optimizer,
        setup.generator_lr * request.generator_rate,
        gradient,
        state.generator.opt_state,
        state.generator.params,
    )
    generator = state.generator.replace(params=params, batch_stats=batch_stats, opt_state=opt_state)
    metrics = {f"generator/{name}": psum(term, axis) for name, term in terms.items()}
    metrics |= {
        "generator/total": loss,
        "class_counts": psum(_label_counts(t), axis),
        "generator/spread": _spread(setup, images, axis),
    }
    return state.replace(generator=generator), metrics


def student_step(setup: DistillSetup, state: DistillState, teacher, request: Unlearning, noise, axis=None, key=None):
    """One update of the student: it learns the method's target on the samples the method keeps, of new images and, with
    `replayed`, of earlier ones.

    The generator runs in eval mode and gets no gradient. Filtered samples enter neither the batch statistics nor the
    loss; when nothing is kept, nothing changes: neither weights nor momentum nor statistics.

    Args:
      noise: [N, latent_dim], this device's share of that for the new images.
      key: of the replay; the same on all devices.
    Returns:
      (state, metrics): `student/loss`; `kept`, `forget_samples`, `retain_samples`: sample counts, the latter two by the
      teacher's label before filtering; `entropy`: Eq. 11's sum over kept samples (nats); `teacher_forget_probability`:
      mean over the batch before filtering; `skipped_steps`: 1 if nothing was kept; `new_counts`, `agreed_counts`: of
      the new images with each label [C], how many there are and to how many the student gave that label before it
      learned from them.
    """
    images, memory = _student_images(setup, state, noise, axis, key)
    t, _ = setup.network.module.apply(teacher, images)
    keep = setup.rules.kept_samples(request.codes, t, request.forget_mask, request.threshold)
    target = setup.rules.target_logits(request.codes, t, request.forget_mask, request.post_threshold)
    kept = psum(jnp.sum(keep), axis)

    def loss_share(params):
        student = {"params": params, "batch_stats": state.student.batch_stats}
        (s, _), new = setup.apply(
            setup.student.module, student, images, train=True, mask=keep, axis=axis, mutable=["batch_stats"]
        )
        distance = losses.kl_divergence(target, s, setup.temperature)
        if setup.weight_logits:
            distance += setup.weight_logits * losses.logit_distance(target, s)
        loss = jnp.sum(distance * keep) / jnp.maximum(kept, 1)
        return loss, (new.get("batch_stats", {}), s)

    (loss, (batch_stats, s)), gradient = value_and_global_grad(loss_share, state.student.params, axis)
    params, opt_state = optim.apply(
        setup.student_optimizer,
        student_learning_rate(setup, state.epoch),
        gradient,
        state.student.opt_state,
        state.student.params,
    )
    updated = state.student.replace(params=params, batch_stats=batch_stats, opt_state=opt_state)

    forgotten = psum(_label_counts(t), axis) @ request.forget_mask
    t_new, s_new = (logits[: len(noise)] for logits in (t, s))
    agreed = jnp.argmax(s_new, axis=-1) == jnp.argmax(t_new, axis=-1)
    metrics = {
        "student/loss": jnp.where(kept > 0, loss, 0.0),
        "kept": kept,
        "forget_samples": forgotten,
        "retain_samples": setup.batch_size - forgotten,
        "entropy": psum(jnp.sum(losses.retained_entropy(t, request.forget_mask) * keep), axis),
        "teacher_forget_probability": psum(jnp.sum(losses.forget_probability(t, request.forget_mask)), axis)
        / setup.batch_size,
        "skipped_steps": (kept == 0).astype(jnp.float32),
        "new_counts": psum(_label_counts(t_new), axis),
        "agreed_counts": psum(_label_counts(t_new, agreed), axis),
    }
    return state.replace(student=select(kept > 0, updated, state.student), memory=memory), metrics


def _student_images(setup, state, noise, axis, key):
    """This device's images of a student step, normalised, and the memory after it."""
    if not setup.replayed:
        return synthesise(setup, state.generator.variables, noise), state.memory
    images = setup.generator.apply(state.generator.variables, noise)
    memory = replay.put(state.memory, images, axis)
    earlier = setup.network.normalise(replay.draw(memory, key, setup.replayed, axis))
    if setup.mixup:
        which, shares = jax.random.split(jax.random.fold_in(key, 1))
        others = setup.network.normalise(replay.draw(memory, which, setup.replayed, axis))
        earlier = replay.mix(shares, earlier, others, setup.replayed, setup.mixup, axis)
    return jnp.concatenate([setup.network.normalise(images), earlier]), memory


def student_learning_rate(setup: DistillSetup, epoch):
    """The student's learning rate after `epoch` completed epochs, warm-up included (traced)."""
    done = jnp.maximum(epoch - setup.warmup_epochs, 0)
    return optim.cosine(done, setup.student_lr, setup.student_lr_final, setup.cosine_epochs)


def distill_epoch(setup: DistillSetup, state: DistillState, teacher, request: Unlearning, axis=None):
    """One epoch: `loops` times generator steps, then student steps (none during warm-up).

    Returns:
      (state, generator metrics stacked [loops * generator_steps], student metrics stacked [loops * student_steps]).
    """
    epoch_key = jax.random.fold_in(state.key, state.epoch)
    warming_up = state.epoch < setup.warmup_epochs

    def run(step, state, key, steps, images=setup.batch_size):
        def body(state, key):
            noise = local_slice(jax.random.normal(key, (images, setup.latent_dim)), axis)
            extra = {"key": jax.random.fold_in(key, 1)} if step is student_step and setup.replayed else {}
            return step(setup, state, teacher, request, noise, axis, **extra)

        return lax.scan(body, state, jax.random.split(key, steps))

    def loop(state, key):
        generator_key, student_key = jax.random.split(key)
        state, generator_metrics = run(generator_step, state, generator_key, setup.generator_steps)
        train = partial(run, student_step, key=student_key, steps=setup.student_steps, images=setup.fresh)
        skipped = jax.eval_shape(train, state)[1]
        idle = lambda state: (state, jax.tree.map(lambda m: jnp.zeros(m.shape, m.dtype), skipped))
        state, student_metrics = lax.cond(warming_up, idle, train, state)
        return state, (generator_metrics, student_metrics)

    state, metrics = lax.scan(loop, state, jax.random.split(epoch_key, setup.loops))
    flat = jax.tree.map(lambda m: m.reshape(-1, *m.shape[2:]), metrics)
    return state.replace(epoch=state.epoch + 1), *flat


def _spread(setup, images, axis):
    mean = psum(jnp.sum(images, axis=0), axis) / setup.batch_size
    variance = psum(jnp.sum(jnp.square(images - mean), axis=0), axis) / setup.batch_size
    return jnp.mean(jnp.sqrt(variance) * jnp.array(setup.network.std))


def _label_counts(logits, counted=None):
    labels = jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1])
    return jnp.sum(labels if counted is None else labels * counted[:, None], axis=0)
