"""How long a configuration will take on a CPU, told before it begins."""

import time
from functools import partial

import jax
import jax.numpy as jnp

from ispf_jax.config import Experiment
from ispf_jax.models import Generator, init_variables

_EFFICIENCY = 0.5  # share of the matrix-product rate that whole training steps reach on two cores


def forward_flops(module, example_shape, batch: int) -> float:
    """Floating-point operations of one forward pass over `batch` inputs, counted by XLA."""
    variables = jax.eval_shape(partial(init_variables, module, example_shape=(1, *example_shape)), jax.random.key(0))
    inputs = jax.ShapeDtypeStruct((batch, *example_shape), jnp.float32)
    return float(jax.jit(module.apply).lower(variables, inputs).cost_analysis()["flops"])


def total_flops(e: Experiment, classifier, image_shape, train_images: int, forget_sets: int) -> float:
    """Operations of all stages the experiment asks for, by passes: a training step is three forward passes' worth."""
    classifier_pass = forward_flops(classifier, image_shape, 1)
    generator = Generator(tuple(image_shape[:2]), image_shape[2], e.generator.width)
    generator_pass = forward_flops(generator, (e.generator.latent_dim,), 1)

    supervised = e.train.epochs * train_images * classifier_pass * (3 * (1 - e.data.val_fraction) + e.data.val_fraction)
    c = e.distill
    student_images = c.epochs * c.loops * c.student_steps * c.batch_size
    generator_images = (c.epochs + c.warmup_epochs) * c.loops * c.generator_steps * c.batch_size
    distilled = student_images * (generator_pass + 4 * classifier_pass)  # teacher once, student three
    distilled += generator_images * (3 * generator_pass + 4 * classifier_pass)  # two networks, forward and to the input

    trials = len(e.seeds)
    flops = trials * supervised * (("original" in e.stages) + forget_sets * ("retrain" in e.stages))
    return flops + trials * forget_sets * len(e.methods) * len(e.base) * distilled * ("unlearn" in e.stages)


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


def cpu_seconds(flops: float) -> float:
    """Seconds that training work of that many operations takes on this CPU, roughly."""
    return flops / (_EFFICIENCY * matmul_rate())
