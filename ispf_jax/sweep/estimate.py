"""How much work the jobs of an experiment are and how long they will take, told before they begin."""

import time
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from ispf_jax.config import Experiment
from ispf_jax.data import ImageData
from ispf_jax.models import Generator, build_classifier, init_variables
from ispf_jax.ops import convolutions, describe
from ispf_jax.sweep.jobs import Job

_EFFICIENCY = {
    "XLA": 0.5,
    "oneDNN": 0.8,
}  # share of the matrix-product rate that whole training steps reach on two cores


def forward_flops(module, example_shape, batch: int) -> float:
    """Floating-point operations of one forward pass over `batch` inputs, counted by XLA."""
    variables = jax.eval_shape(partial(init_variables, module, example_shape=(1, *example_shape)), jax.random.key(0))
    inputs = jax.ShapeDtypeStruct((batch, *example_shape), jnp.float32)
    with convolutions("xla"):
        return float(jax.jit(lambda v, x: module.apply(v, x)).lower(variables, inputs).cost_analysis()["flops"])


@dataclass(frozen=True)
class Costs:
    """What the work of a job is computed from.

    Attributes:
      classifier_pass, generator_pass: operations of one forward pass over one image.
      class_counts: training images per class, [C].
    """

    e: Experiment
    classifier_pass: float
    generator_pass: float
    class_counts: np.ndarray

    def steps(self, job: Job) -> int:
        """Training steps of a job, of unlearning those of the student; 0 for an audit, which is many small pieces."""
        c = self.e.distill
        if job.kind == "unlearn":
            return c.epochs * c.loops * c.student_steps
        if self._given(job):
            return 0
        return 0 if job.kind == "audit" else self.e.train.epochs * -(-int(self._seen(job)) // self.e.train.batch_size)

    def flops(self, job: Job) -> float:
        """Operations of a job, by passes: a training step is three forward passes' worth."""
        if job.kind == "unlearn":
            c = self.e.distill
            images = self.steps(job) * c.batch_size
            generated = (c.epochs + c.warmup_epochs) * c.loops * c.generator_steps * c.batch_size
            distilled = images * (self.generator_pass + 4 * self.classifier_pass)  # teacher once, student three
            return distilled + generated * (
                3 * self.generator_pass + 4 * self.classifier_pass
            )  # two networks, forward and to the input
        if job.kind == "audit":
            return self._audit()
        if self._given(job):
            return 0.0
        seen = self._seen(job)
        fraction = self.e.data.val_fraction
        return self.e.train.epochs * self.classifier_pass * seen * (3 + fraction / (1 - fraction))

    def _given(self, job):
        return job.kind == "original" and bool(self.e.model.checkpoint)

    def _seen(self, job):
        """Images per epoch of supervised training."""
        images = self.class_counts.sum() - self.class_counts[list(job.forget)].sum()
        return images * (1 - self.e.data.val_fraction) / (2 if job.kind == "shadow" else 1)

    def _audit(self):
        """Relearning curves above all; as often as there are models."""
        a = self.e.audit
        if "relearn" not in a.metrics:
            return 0.0
        steps = a.relearn_steps or 10 * self._seen(Job("original", 0)) / a.relearn_batch
        models = 4 + len(self.e.base) * len(self.e.methods)
        return models * (3 + len(a.shots)) * steps * a.relearn_batch * 3 * self.classifier_pass


def costs(e: Experiment, data: ImageData) -> Costs:
    """The costs of an experiment on its data."""
    classifier = build_classifier(e.model.name, data.num_classes, e.model.width, "float32")
    generator = Generator(tuple(data.image_shape[:2]), data.image_shape[2], e.generator.width)
    return Costs(
        e,
        forward_flops(classifier, data.image_shape, 1),
        forward_flops(generator, (e.generator.latent_dim,), 1),
        np.bincount(data.train.labels, minlength=data.num_classes),
    )


def matmul_rate(size: int = 1024, repeats: int = 8) -> float:
    """Measured float32 matrix-product rate of the default device, operations per second."""
    x = jnp.ones((size, size))
    product = jax.jit(jnp.matmul)
    product(x, x).block_until_ready()
    began = time.perf_counter()
    for _ in range(repeats):
        y = product(x, x)
    y.block_until_ready()
    return repeats * 2 * size**3 / (time.perf_counter() - began)


def device_seconds(flops: float) -> float:
    """Seconds that training work of that many operations takes on the default device, roughly; small networks on a GPU take longer."""
    return flops / (_EFFICIENCY[describe().split()[0]] * matmul_rate())
