"""The package's generator, student and supervised step, set up for measuring."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from ispf_jax import optim
from ispf_jax.classifier import Network, init_variables
from ispf_jax.devices import Program
from ispf_jax.distill import DistillSetup, LossWeights, generator_step, student_step, unlearning
from ispf_jax.methods import METHODS
from ispf_jax.models import Generator, build_classifier
from ispf_jax.state import DistillState, TrainState, new_net
from ispf_jax.supervised import SupervisedSetup, supervised_step

FORGET, LATENT, LEARNING_RATE = (3,), 256, 0.1
THRESHOLD = 0.1  # of PreFilter: a fresh teacher predicts about 0.1 for every class, so part of a batch is kept


class JaxSteps:
    """Programs and starting states of one problem.

    Args:
      a: options with model, method, classes, width, generator_width, size, channels, batch, dtype.
    """

    def __init__(self, a):
        self.shape, self.batch = (a.size, a.size, a.channels), a.batch
        classifier = build_classifier(a.model, a.classes, a.width, a.dtype)
        generator = Generator(self.shape[:2], a.channels, a.generator_width, jnp.dtype(a.dtype))
        network = Network(classifier, self.shape, (0.5,) * a.channels, (0.5,) * a.channels)
        self.setup = DistillSetup(
            network=network,
            generator=generator,
            student_optimizer=optim.sgd(),
            generator_optimizer=optim.adam(0.5, 0.999),
            batch_size=a.batch,
            latent_dim=LATENT,
            loops=1,
            generator_steps=1,
            student_steps=1,
            warmup_epochs=0,
            student_lr=LEARNING_RATE,
            student_lr_final=2e-4,
            cosine_epochs=200,
            generator_lr=1e-3,
            weights=LossWeights(),
        )
        self.supervised = SupervisedSetup(network, optim.sgd(), a.batch, "none")
        keys = jax.random.split(jax.random.key(0), 3)
        examples = {"teacher": (1, *self.shape), "student": (1, *self.shape), "generator": (1, LATENT)}
        modules = {"teacher": classifier, "student": classifier, "generator": generator}
        self.variables = {n: init_variables(modules[n], key, examples[n]) for n, key in zip(examples, keys)}
        self.request = unlearning(METHODS[a.method], FORGET, a.classes, THRESHOLD)

    def inputs(self):
        """(noise, images, labels) of one batch."""
        keys = jax.random.split(jax.random.key(1), 3)
        return (
            jax.random.normal(keys[0], (self.batch, LATENT)),
            jax.random.normal(keys[1], (self.batch, *self.shape)),
            jax.random.randint(keys[2], (self.batch,), 0, self.request.forget_mask.size),
        )

    def steps(self):
        """{name: ((state, teacher, noise, images, labels) -> (state, loss), first state)}."""
        student = new_net(self.variables["student"], self.setup.student_optimizer)
        generator = new_net(self.variables["generator"], self.setup.generator_optimizer)
        distilling = DistillState(student, generator, jax.random.key(2), jnp.int32(0))

        def distil(step, loss, state, teacher, noise, *_):
            state, metrics = step(self.setup, state, teacher, self.request, noise)
            return state, metrics[loss]

        def supervise(state, teacher, noise, images, labels):
            mask = jnp.ones(images.shape[0])
            state, metrics = supervised_step(self.supervised, state, images, labels, mask, jnp.float32(LEARNING_RATE))
            return state, metrics["loss"] / metrics["rows"]

        return {
            "student": (partial(distil, student_step, "student/loss"), distilling),
            "generator": (partial(distil, generator_step, "generator/total"), distilling),
            "supervised": (supervise, TrainState(student, jax.random.key(2), jnp.int32(0))),
        }

    def compiled(self, name):
        """(program of `count` steps in a loop, as an epoch runs them; program of one step; first state, inputs)."""
        step, state = self.steps()[name]
        inputs = (self.variables["teacher"], *self.inputs())

        def loop(state, count, teacher, noise, *batch):
            # Inputs change from step to step: what does not change in a loop XLA would compute once, before it.
            def body(i, state):
                return step(state, teacher, *(jnp.roll(v, i, axis=0) for v in (noise, *batch)))[0]

            return lax.fori_loop(0, count, body, state)

        return Program(jax.jit(loop), loop, {}), Program(jax.jit(step), step, {}), state, inputs
