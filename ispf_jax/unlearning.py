"""Unlearning: a fresh student learns from the teacher what is to be retained, on images that a generator invents.

This file and everything it imports know networks and numbers, never a data set: what it returns came from the teacher's
weights and a seed alone. `observe` lets a caller who has test images look at the student after an epoch; nothing it returns
flows back into training.
"""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ispf_jax import optim
from ispf_jax.config import Experiment
from ispf_jax.distill import DistillSetup, LossWeights, distill_epoch, student_learning_rate, unlearning
from ispf_jax.methods import METHODS
from ispf_jax.models import Generator, init_variables
from ispf_jax.runtime.loop import Keeping, Task, train
from ispf_jax.runtime.store import Saved, Store
from ispf_jax.state import DistillState, new_net, random_stream

ALIKE = 1e-3
"""Mean standard deviation of a pixel over a batch, of a range of 1, below which images count as alike; 8-bit steps are 0.004."""

ONE_CLASS = 0.99
"""Share of one class among an epoch's synthetic images above which the generator counts as collapsed to it."""

_MEANS = ("student/loss", "kept", "forget_samples", "retain_samples", "entropy", "teacher_forget_probability")


def distill_setup(experiment: Experiment, base: str, classifier, image_shape) -> DistillSetup:
    """The static half of an unlearning run, from the configuration; `image_shape` is (H, W, C)."""
    c, g = experiment.distill, experiment.generator
    terms = {field.name for field in fields(LossWeights)}
    adversarial_alone = {term: float(term == "adv") for term in terms}
    weights = LossWeights(
        **(adversarial_alone if base == "zskt" else {term: getattr(c, f"weight_{term}") for term in terms})
    )
    return DistillSetup(
        classifier=classifier,
        generator=Generator(tuple(image_shape[:2]), image_shape[2], g.width, classifier.dtype),
        student_optimizer=optim.sgd(c.momentum, c.weight_decay),
        generator_optimizer=optim.adam(c.generator_b1, c.generator_b2),
        batch_size=c.batch_size,
        latent_dim=g.latent_dim,
        loops=c.loops,
        generator_steps=c.generator_steps,
        student_steps=c.student_steps,
        warmup_epochs=c.warmup_epochs,
        student_lr=c.lr,
        student_lr_final=c.lr_final,
        cosine_epochs=c.cosine_epochs or c.epochs,
        generator_lr=c.generator_lr,
        weights=weights,
        mean=experiment.data.mean,
        std=experiment.data.std,
    )


class UnlearnStage:
    """Unlearning with one base; every method, forget set, threshold and seed runs the same compiled program."""

    def __init__(self, experiment: Experiment, base: str, classifier, image_shape, devices, keeping: Keeping):
        self.setup = distill_setup(experiment, base, classifier, image_shape)
        self._config, self._image_shape = experiment.distill, tuple(image_shape)
        self._devices, self._keeping = devices, keeping
        self._program = devices.compile(distill_epoch, self.setup, donate=1)
        self._sample = jax.jit(self._images)

    @property
    def epochs(self) -> int:
        """Epochs in all, warm-up included."""
        return self._config.warmup_epochs + self._config.epochs

    def steps(self, epoch: int) -> tuple[int, int]:
        """(student steps, generator steps) after `epoch` epochs."""
        s = self.setup
        return max(epoch - s.warmup_epochs, 0) * s.loops * s.student_steps, epoch * s.loops * s.generator_steps

    def fresh_state(self, seed: int) -> DistillState:
        """Freshly initialised student and generator; all methods of a trial start from the same."""
        student_key, generator_key, run_key = jax.random.split(random_stream(seed, "unlearn"), 3)
        s = self.setup
        student = init_variables(s.classifier, student_key, (1, *self._image_shape))
        generator = init_variables(s.generator, generator_key, (1, s.latent_dim))
        return DistillState(
            new_net(student, s.student_optimizer), new_net(generator, s.generator_optimizer), run_key, jnp.int32(0)
        )

    def run(
        self,
        title: str,
        directory: Path,
        seed: int,
        method: str,
        forget: tuple[int, ...],
        teacher: dict,
        observe: Callable[[dict, int], tuple[dict, float | None]] | None = None,
    ) -> Saved:
        """Unlearn the classes `forget` from `teacher` (variables) with a method of `methods.METHODS`."""
        c, s = self._config, self.setup
        classes = s.classifier.num_classes
        request = unlearning(METHODS[method], forget, classes, c.threshold or 0.1 / classes, c.thresholded_post_filter)
        state = self.fresh_state(seed)

        def run_epoch(state, epoch):
            state, generator, student = self._program(state, teacher, request)
            return state, self._epoch_record(epoch, jax.device_get(generator), jax.device_get(student))

        steps = s.loops * s.student_steps
        shown = ("student/loss", "kept", "generator/total", "test/acc_retain", "test/acc_forget")
        task = Task(
            title,
            directory,
            self.epochs,
            steps,
            lambda st: self._program.prepare(st, teacher, request),
            run_epoch,
            lambda st: st.student.variables,
            observe,
            shown,
            self._collapse,
        )
        return train(task, state, self._keeping, self._devices)

    def restore(self, directory: Path, seed: int) -> Saved | None:
        """The last checkpoint of a run of this stage, None if there is none."""
        state = self.fresh_state(seed)
        with Store(directory / "checkpoints") as store:
            return store.restore(Saved(state, state.student.variables, state.student.variables, {}))

    def sample_images(self, state: DistillState, seed: int, count: int = 64) -> np.ndarray:
        """`count` images of the generator, uint8 [count, H, W, C], in eval mode."""
        noise = jax.random.normal(random_stream(seed, "samples"), (count, self.setup.latent_dim))
        return np.asarray(self._sample(state.generator.variables, noise))

    def _images(self, generator, noise):
        images = self.setup.generator.apply(generator, noise)
        return jnp.round(255 * images).astype(jnp.uint8)

    def _collapse(self, record) -> dict[str, str]:
        """Signs in an epoch's record that the generator has collapsed: {kind: sentence with the number}."""
        signs, counts = {}, record["class_counts"]
        if record["generator/spread"] < ALIKE:
            signs["alike"] = (
                f"all synthetic images are alike (standard deviation over a batch {record['generator/spread']:.2g} of 1)"
            )
        if counts.max() > ONE_CLASS * counts.sum():
            share = 100 * counts.max() / counts.sum()
            signs["class"] = (
                f"{share:.1f} % of the synthetic images are of one class, {int(counts.argmax())}, in the teacher's eyes"
            )
        if record.get("skipped_steps"):
            steps = self.setup.loops * self.setup.student_steps
            signs["filtered"] = (
                f"{record['skipped_steps']:.0f} of {steps} steps had every image filtered out: the student learned nothing in them"
            )
        return signs

    def _epoch_record(self, epoch, generator, student):
        """Means over the epoch's steps, and cumulative counts."""
        student_steps, generator_steps = self.steps(epoch + 1)
        record = {"student_step": student_steps, "generator_step": generator_steps, "batch_size": self.setup.batch_size}
        record |= {name: value.mean() for name, value in generator.items() if name.startswith("generator/")}
        record["class_counts"] = generator["class_counts"].sum(axis=0)
        if epoch >= self.setup.warmup_epochs:
            record |= {name: student[name].mean() for name in _MEANS}
            record["filtered"] = self.setup.batch_size - record["kept"]
            record["skipped_steps"] = student["skipped_steps"].sum()
            record["learning_rate"] = float(student_learning_rate(self.setup, epoch))
        return record
