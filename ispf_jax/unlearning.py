"""Unlearning: a fresh student learns from the teacher what is to be retained, on images that a generator invents.

This file and everything it imports know networks and numbers, never a data set: what it returns came from the teacher's
weights and a seed alone. A callback lets a caller who has test images look at the student after an epoch; nothing it
returns flows back into training.
"""

import html
import logging
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ispf_jax import memory, monitoring, optim, replay
from ispf_jax.classifier import Classifier, Network, init_variables
from ispf_jax.distill import DistillSetup, LossWeights, distill_epoch, student_learning_rate, unlearning
from ispf_jax.errors import ArgumentError, UserError
from ispf_jax.forget import ForgetSet, check_again, forget_set, joined, named
from ispf_jax.hyperparameters import Distill
from ispf_jax.image_generator import ImageGenerator
from ispf_jax.methods import Method, method_named
from ispf_jax.models import Generator, build_classifier
from ispf_jax.runtime.loop import RunOptions, Task, run
from ispf_jax.runtime.provenance import weights_digest
from ispf_jax.runtime.store import Saved, Store, identity
from ispf_jax.state import DistillState, new_net, random_stream

log = logging.getLogger(__name__)

_MEANS = ("student/loss", "kept", "forget_samples", "retain_samples", "entropy", "teacher_forget_probability")


@dataclass(frozen=True, eq=False)
class Unlearned:
    """The result of `unlearn`.

    Attributes:
      classifier: the student, after the last epoch or the one that `select` chose.
      generator: the generator that its images came from.
      forget: ids of the forgotten classes.
      method, base: what they were forgotten by.
      history: one dict of metrics per epoch.
      access: what the result used: "weights only".
      best: the student of the epoch with the highest score of the callback; None without one.
      meta: {"epoch", "seconds", "best_epoch", "best_score", ...}: `epoch` is that of `classifier`.
      steps: from a number of epochs to (student steps, generator steps).
      images: from a number of epochs to how many new images were made in them.
      threshold: PreFilter's.
    """

    classifier: Classifier
    generator: ImageGenerator
    forget: ForgetSet
    method: str
    base: str
    history: list[dict]
    access: str
    best: Classifier | None
    meta: dict
    steps: Callable[[int], tuple[int, int]]
    images: Callable[[int], int]
    threshold: float

    def sample(self, count: int = 64, seed: int = 0) -> np.ndarray:
        """Synthetic images, uint8 [count, H, W, C]."""
        return self.generator(count, seed)

    def __repr__(self) -> str:
        forgotten = named(self.forget, self.classifier.class_names)
        steps, seconds = self.steps(self.meta["epoch"])[0], self.meta["seconds"]
        return f"Unlearned({self.method} ({self.base}), forgot {forgotten}, {steps:,} student steps in {seconds:.0f} s)"

    def _repr_html_(self) -> str:
        return f"<div><b>{html.escape(repr(self))}</b></div>{self.classifier._repr_html_()}"


def unlearn(
    teacher: Classifier,
    forget,
    method: str | Method = "ispf",
    *,
    base: str = "dfq",
    seed: int = 0,
    config: Distill | None = None,
    student: Any = None,
    **options,
) -> Unlearned:
    """Remove classes from a classifier without any data, by distillation into a fresh network (the paper's Algorithm
    1).

    Args:
      teacher: the original.
      forget: ids or names of the classes to forget; see `forget.forget_set`.
      method: a name of `methods.METHODS`, or a `Method`.
      base: "dfq" (all generator losses), "zskt" (the adversarial one alone) or "remix" (dfq with replay, mixup and a
        loss of logits: better students).
      seed: of the initial weights and the noise; the same seed gives the same bits on the same devices.
      config: hyper-parameters.
      student: another network for the student: a name of `models.CLASSIFIERS`, or a module; None: the teacher's.
      options: how the run is carried out, kept and shown: `devices`, `checkpoints`, `callback`, `progress`, ...; see
        `RunOptions`.

    Returns:
      The student, its generator and the history of the run.

    Raises:
      ArgumentError: an argument is wrong.
      Interrupted: a signal asked to stop; with `checkpoints` the same call continues.
    """
    run_options = RunOptions.of(options)
    unlearning_run = UnlearningRun(teacher, forget, method, base, seed, Distill.of(config), run_options, student)
    return unlearning_run.result(*unlearning_run.start())


def restore(teacher: Classifier, forget, method="ispf", *, base="dfq", seed=0, config=None, student=None, **options):
    """What an earlier `unlearn` with the same arguments left in `checkpoints`; raises UserError if there is nothing."""
    run_options = RunOptions.of(options)
    unlearning_run = UnlearningRun(teacher, forget, method, base, seed, Distill.of(config), run_options, student)
    if unlearning_run.options.directory is None:
        raise ArgumentError("checkpoints", " is missing; name the directory of the run.")
    state, directory = unlearning_run.fresh_state(), unlearning_run.options.directory / "checkpoints"
    with Store(directory, unlearning_run.identity) as store:
        saved = store.restore(Saved(state, state.student.variables, state.student.variables, {}))
    if saved is None:
        raise UserError(
            f"there is no checkpoint in {directory}; put it back, or remove the run's directory to unlearn again."
        )
    return unlearning_run.result(saved, [])


def student_network(teacher: Network, student) -> Network:
    """The network of a student: a name, a module, a `Network`, or None for the teacher's."""
    if student is None or isinstance(student, Network):
        student = student or teacher
        if (student.num_classes, student.image_shape) != (teacher.num_classes, teacher.image_shape):
            raise ArgumentError("student", f" has {student.num_classes} classes and images of {student.image_shape}.")
        student = replace(student, mean=teacher.mean, std=teacher.std)
    else:
        module = build_classifier(student, teacher.num_classes) if isinstance(student, str) else student
        made = Classifier(module, {}, image_shape=teacher.image_shape, mean=teacher.mean, std=teacher.std)
        student = student_network(teacher, made.network)
    if not jax.tree.leaves(student.shapes()):
        raise ArgumentError("student", f"={student.title} has no weights to train; name a network.")
    return student


def distill_setup(
    network: Network, config: Distill, base: str = "dfq", method: Method | None = None, student: Network | None = None
) -> DistillSetup:
    """The static half of an unlearning run."""
    config = config.on(base)
    weights = {field.name: getattr(config, f"weight_{field.name}") for field in fields(LossWeights)}
    height, width, channels = network.image_shape
    dtype = getattr(network.module, "dtype", jnp.float32)
    return DistillSetup(
        network=network,
        generator=Generator((height, width), channels, config.generator_width, dtype),
        student_optimizer=optim.sgd(config.momentum, config.weight_decay),
        generator_optimizer=optim.adam(config.generator_b1, config.generator_b2),
        student_lr=config.lr,
        student_lr_final=config.lr_final,
        cosine_epochs=config.cosine_epochs or config.epochs,
        weights=LossWeights(**weights),
        replayed=round(config.replay * config.batch_size),
        memory=config.kept_images(network.image_shape),
        pupil=student if student != network else None,
        **{"rules": method.rules()} if method else {},
        **{
            name: getattr(config, name)
            for name in (
                "batch_size",
                "latent_dim",
                "loops",
                "generator_steps",
                "student_steps",
                "warmup_epochs",
                "generator_lr",
                "balance_retained",
                "mixup",
                "temperature",
                "weight_logits",
                "remat",
            )
        },
    )


class UnlearningRun:
    """One unlearning run, ready to start; every method, forget set, threshold and seed runs the same compiled
    program."""

    def __init__(self, teacher, forget, method, base, seed, config: Distill, options: RunOptions, student=None):
        self.teacher, self.base, self.seed, self.config, self.options = teacher, base, seed, config.on(base), options
        self.forget = forget_set(forget, teacher.class_names)
        check_again(self.forget, teacher.origin.get("forgotten", ()), teacher.class_names)
        self.method = method_named(method)
        self.name = method if isinstance(method, str) else "method"
        self.devices = options.chosen()
        self.devices.check_batch(config.batch_size)
        pupil = student_network(teacher.network, student)
        self.setup = distill_setup(teacher.network, config, base, self.method, pupil)
        named, origin = teacher.class_names, teacher.origin if pupil == teacher.network else {}
        self.student = Classifier.of(pupil, {}, named, origin)
        if self.setup.replayed % self.devices.count:
            text = f"={config.replay} makes {self.setup.replayed} of {config.batch_size} images earlier ones, which do"
            raise ArgumentError("replay", f"{text} not divide evenly over {self.devices.count} devices.")
        self._bytes = memory.check_unlearning(self.setup, self.devices)

    @property
    def threshold(self) -> float:
        """PreFilter's."""
        return self.config.threshold or 0.1 / self.teacher.num_classes

    @property
    def epochs(self) -> int:
        """Epochs in all, warm-up included."""
        return self.config.warmup_epochs + self.config.epochs

    @property
    def identity(self) -> dict:
        """What its checkpoints say they are."""
        of_teacher = {"teacher": weights_digest(self.teacher.variables)}
        return identity(self.title, self.seed, self.setup.student, **of_teacher)

    @property
    def title(self) -> str:
        """What it does, seed aside."""
        return f"unlearn {self.name} ({self.base}) forget {joined(self.forget, ',')}"

    def fresh_state(self) -> DistillState:
        """Freshly initialised student and generator; all methods of a trial start from the same."""
        student_key, generator_key, run_key = jax.random.split(random_stream(self.seed, "unlearn"), 3)
        s = self.setup
        student = s.student.init(student_key)
        generator = init_variables(s.generator, generator_key, (1, s.latent_dim))
        nets = new_net(student, s.student_optimizer), new_net(generator, s.generator_optimizer)
        images = replay.empty(s.memory, s.fresh, s.network.image_shape) if s.replayed else None
        return DistillState(*nets, run_key, jnp.int32(0), images)

    def start(self) -> tuple[Saved, list[dict]]:
        """Run to the end, from the last checkpoint if there is one."""
        text = "a step on %d images takes about %.2g GiB of memory%s"
        hint = "" if self.config.remat or self.devices.devices[0].platform == "cpu" else " (less with remat)"
        log.info(text, self.config.batch_size, self._bytes / 2**30, hint)
        return run(self.task(), self.fresh_state(), self.options, self.devices)

    def task(self) -> Task:
        """What the loop over epochs needs."""
        s, c, classes = self.setup, self.config, self.teacher.num_classes
        request = unlearning(self.method, self.forget, classes, self.threshold, c.thresholded_post_filter)
        teacher = self.devices.replicate(self.teacher.variables)
        program = self.devices.compile(distill_epoch, s, donate=1)

        def run_epoch(state, epoch, meta):
            before = meta.get("rollbacks", 0)
            nets = jax.tree.map(jnp.copy, (state.student, state.generator)) if before < c.rollbacks else None
            asked = request.replace(generator_rate=jnp.array(0.5**before))
            state, generator, student = program(state, teacher, asked)
            record = self._record(epoch, jax.device_get(generator), jax.device_get(student))
            undone = nets is not None and bool(monitoring.collapse(record, self.teacher.class_names))
            if nets and undone:
                state = state.replace(student=nets[0], generator=nets[1])
            record |= {"rollbacks": before + undone, "undone": int(undone)}
            found = monitoring.agreement(record, self.forget) if "agreed_counts" in record else 0.0
            record["agreement"] = monitoring.smoothed(meta.get("agreement", 0.0), found)
            return state, record

        def score(variables, epoch):
            if self.options.callback is None:
                return {}
            student_steps, generator_steps = self.steps(epoch)
            record = {
                "epoch": epoch,
                "epochs": self.epochs,
                "student_steps": student_steps,
                "generator_steps": generator_steps,
            }
            return self.options.callback(self.student.replace(variables=variables), record) or {}

        return Task(
            self.options.title or f"{self.title} seed {self.seed}",
            self.epochs,
            s.loops * s.student_steps,
            lambda state: program.prepare(state, teacher, request),
            run_epoch,
            lambda state: state.student.variables,
            score,
            ("student/loss", "kept", "generator/total", "agreement", "test/acc_retain", "test/acc_forget"),
            partial(
                monitoring.warnings,
                class_names=self.teacher.class_names,
                steps=s.loops * s.student_steps,
                rollbacks=c.rollbacks,
            ),
            self.identity,
            ("rollbacks", "agreement"),
            "agreement" if c.select == "agreement" else "",
            c.patience,
        )

    def result(self, saved: Saved, history: list[dict]) -> Unlearned:
        """What the caller of `unlearn` gets."""
        chosen = saved.meta.get("best_score") is not None
        meta = saved.meta | ({"epoch": saved.meta["chosen_epoch"]} if saved.meta.get("chosen_epoch") else {})
        origin = self.student.origin | {"forgotten": list(self.forget)}
        student = self.student.replace(variables=saved.last, origin=origin)
        return Unlearned(
            student,
            ImageGenerator(self.setup.generator, saved.state.generator.variables, self.setup.latent_dim),
            self.forget,
            self.name,
            self.base,
            history,
            "weights only",
            student.replace(variables=saved.best) if chosen else None,
            meta,
            self.steps,
            self.images,
            self.threshold,
        )

    def images(self, epoch: int) -> int:
        """New images that were made in `epoch` epochs, by generator and student steps."""
        student_steps, generator_steps = self.steps(epoch)
        return student_steps * self.setup.fresh + generator_steps * self.setup.batch_size

    def steps(self, epoch: int) -> tuple[int, int]:
        """(student steps, generator steps) after `epoch` epochs."""
        s = self.setup
        return max(epoch - s.warmup_epochs, 0) * s.loops * s.student_steps, epoch * s.loops * s.generator_steps

    def _record(self, epoch, generator, student):
        """Means over the epoch's steps, and cumulative counts."""
        student_steps, generator_steps = self.steps(epoch + 1)
        batch = self.setup.batch_size
        record = {"student_step": student_steps, "generator_step": generator_steps, "batch_size": batch}
        record |= {name: value.mean() for name, value in generator.items() if name.startswith("generator/")}
        record["class_counts"] = generator["class_counts"].sum(axis=0)
        if epoch >= self.setup.warmup_epochs:
            record |= {name: student[name].mean() for name in _MEANS}
            record["filtered"] = batch - record["kept"]
            record |= {name: student[name].sum(axis=0) for name in ("skipped_steps", "new_counts", "agreed_counts")}
            record["learning_rate"] = float(student_learning_rate(self.setup, epoch))
        return record
