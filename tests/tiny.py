"""A distillation small enough to compile in seconds: 8x8 images, six classes, a teacher that tells images apart.

Programs and networks are cached: the modules of this folder share them. `test_golden.py` has steps of real classifiers.
"""

from functools import cache, partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ispf_jax import optim, replay
from ispf_jax.classifier import Network, init_variables
from ispf_jax.devices import Devices
from ispf_jax.distill import (
    DistillSetup,
    LossWeights,
    distill_epoch,
    generator_step,
    student_step,
    synthesise,
    unlearning,
)
from ispf_jax.methods import METHODS
from ispf_jax.models.layers import MaskedBatchNorm, conv, dense
from ispf_jax.state import DistillState, new_net

CLASSES, BATCH, LATENT, WARMUP = 6, 16, 8, 1
FORGET = (1, 4)


class TinyNet(nn.Module):
    """Two convolutions, of both strides, with the layers and the calling convention of the real classifiers."""

    num_classes: int = CLASSES

    @nn.compact
    def __call__(self, x, train=False, mask=None, axis=None):
        for i, stride in enumerate((1, 2), start=1):
            x = conv(x, 8, 3, stride, use_bias=False, name=f"conv{i}")
            x = nn.relu(MaskedBatchNorm(name=f"bn{i}")(x, train, mask, axis))
        features = jnp.mean(x, axis=(1, 2))
        return dense(features, self.num_classes, name="classifier"), features


class TinyGenerator(nn.Module):
    """Noise [N, LATENT] -> images [N, 8, 8, 3] in [0, 1], likewise."""

    @nn.compact
    def __call__(self, z, train=False, mask=None, axis=None):
        x = dense(z, 4 * 4 * 8, name="project").reshape(-1, 4, 4, 8)
        x = nn.leaky_relu(MaskedBatchNorm(name="bn")(x, train, mask, axis), 0.2)
        return nn.sigmoid(conv(x.repeat(2, axis=1).repeat(2, axis=2), 3, name="conv"))


CLASSIFIER, GENERATOR = TinyNet(), TinyGenerator()


NETWORK = Network(CLASSIFIER, (8, 8, 3), mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


def distill_setup(network=NETWORK, generator=GENERATOR, **changes):
    """The only place that builds a `DistillSetup`: the tiny run, but for the `changes`."""
    fields = {
        "student_optimizer": optim.sgd(0.9, 1e-2),
        # Adam divides by the gradient's size. With its eps of 1e-8 a gradient that is zero in exact arithmetic (the
        # bias before the first batch norm) becomes a step of random sign; with 1e-4 rounding stays rounding.
        "generator_optimizer": optax.scale_by_adam(0.5, 0.999, eps=1e-4),
        "batch_size": BATCH,
        "latent_dim": LATENT,
        "loops": 2,
        "generator_steps": 1,
        "student_steps": 2,
        "warmup_epochs": WARMUP,
        "student_lr": 0.05,
        "student_lr_final": 2e-4,
        "cosine_epochs": 10,
        "generator_lr": 1e-2,
        "weights": LossWeights(),
    }
    return DistillSetup(network, generator, **(fields | changes))


SETUP = distill_setup()
SETUPS = {"dfq": SETUP, "zskt": distill_setup(weights=LossWeights(bn=0, oh=0, balance=0))}
SETUPS["replay"] = distill_setup(replayed=8, balance_retained=True, temperature=2.0)
SETUPS["remix"] = distill_setup(replayed=8, mixup=0.5, weight_logits=0.5)


def shapes(module, *example_shape):
    """Shapes of the variables for inputs of this shape, without computing anything."""
    return jax.eval_shape(partial(init_variables, module, example_shape=(1, *example_shape)), jax.random.key(0))


def general_position(module, *example_shape, seed):
    """Variables of which none is 0, 1 or equal to another, as after some training."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        name = path[-1].key
        if name == "kernel":
            return rng.standard_normal(leaf.shape) * np.sqrt(2 * leaf.shape[-1] / leaf.size)
        return rng.uniform(0.5, 1.5, leaf.shape) if name in ("var", "scale") else 0.3 * rng.standard_normal(leaf.shape)

    return jax.tree.map(jnp.float32, jax.tree.map_with_path(draw, shapes(module, *example_shape)))


def noise(seed, rows=BATCH):
    return jnp.asarray(np.random.default_rng(seed).standard_normal((rows, LATENT)), jnp.float32)


@jax.jit
def view(generator, teacher, noise):
    """The images a student sees, and the teacher's logits and features of them."""
    images = synthesise(SETUP, generator, noise)
    return images, *CLASSIFIER.apply(teacher, images)


@cache
def networks():
    """Teacher variables, whose logits have mean 0 and deviation 3 for every class, and the state of a new run."""
    generator = general_position(GENERATOR, LATENT, seed=0)
    teacher, student = (general_position(CLASSIFIER, 8, 8, 3, seed=seed) for seed in (1, 2))
    features = np.float64(view(generator, teacher, noise(100, 8 * BATCH))[2])
    kernel = np.random.default_rng(3).standard_normal((features.shape[1], CLASSES))
    kernel *= 3 / (features @ kernel).std(0)
    teacher["params"]["classifier"] = {"kernel": jnp.float32(kernel), "bias": jnp.float32(-(features @ kernel).mean(0))}
    nets = new_net(student, SETUP.student_optimizer), new_net(generator, SETUP.generator_optimizer)
    return teacher, DistillState(*nets, jax.random.key(5), jnp.int32(WARMUP))


def request(method, forget=FORGET, threshold=None, thresholded=False):
    threshold = quartile() if threshold is None else threshold
    return unlearning(METHODS[method], list(forget), CLASSES, threshold, thresholded)


@cache
def quartile():
    """The threshold below which PreFilter keeps a quarter of the first images."""
    teacher, state = networks()
    logits = view(state.generator.variables, teacher, noise(100, 8 * BATCH))[1]
    return float(np.quantile(np.max(jax.nn.softmax(logits)[:, list(FORGET)], axis=1), 0.25))


@cache
def traced(function, setup, count):
    """`function` compiled for `count` devices, and the list that grows when it is traced."""
    traces = []

    def program(setup, *args, axis):
        traces.append(axis)
        return function(setup, *args, axis)

    return Devices(tuple(jax.devices()[:count])).compile(program, setup), traces


def run_epoch(state, request, base="dfq", count=1):
    if SETUPS[base].replayed and state.memory is None:
        state = state.replace(memory=replay.empty(3 * SETUPS[base].fresh, SETUPS[base].fresh, (8, 8, 3)))
    return traced(distill_epoch, SETUPS[base], count)[0](state, networks()[0], request)


generate = partial(jax.jit(generator_step, static_argnums=0), SETUP)
learn = partial(jax.jit(student_step, static_argnums=0), SETUP)


def python_loop(state, request):
    """`distill_epoch` as a loop over its steps; also the state before every student step and its noise."""
    teacher = networks()[0]
    generator_metrics, student_metrics, before = [], [], []
    for key in jax.random.split(jax.random.fold_in(state.key, state.epoch), SETUP.loops):
        generator_key, student_key = jax.random.split(key)
        for step_key in jax.random.split(generator_key, SETUP.generator_steps):
            state, metrics = generate(state, teacher, request, jax.random.normal(step_key, (BATCH, LATENT)))
            generator_metrics.append(metrics)
        for step_key in jax.random.split(student_key, SETUP.student_steps):
            z = jax.random.normal(step_key, (BATCH, LATENT))
            before.append((state, z))
            state, metrics = learn(state, teacher, request, z)
            student_metrics.append(metrics)
    stack = lambda metrics: jax.tree.map(lambda *m: jnp.stack(m), *metrics)
    return state.replace(epoch=state.epoch + 1), stack(generator_metrics), stack(student_metrics), before


@jax.jit
def sgd_step(variables, velocity, images, target, rate):
    """PyTorch's SGD by hand on images that all exist: batch norm without a mask, mean of KL(target || prediction).

    Args:
      target: probabilities [N, C].
    Returns:
      (loss, variables, velocity, logits)
    """

    def loss(params):
        model = {**variables, "params": params}
        (logits, _), new = CLASSIFIER.apply(model, images, train=True, mutable=["batch_stats"])
        terms = jax.scipy.special.xlogy(target, target) - target * jax.nn.log_softmax(logits)
        return jnp.sum(terms) / len(images), (logits, new["batch_stats"])

    (value, (logits, stats)), gradient = jax.value_and_grad(loss, has_aux=True)(variables["params"])
    velocity = jax.tree.map(lambda v, g, w: 0.9 * v + g + 1e-2 * w, velocity, gradient, variables["params"])
    params = jax.tree.map(lambda w, v: w - rate * v, variables["params"], velocity)
    return value, {"params": params, "batch_stats": stats}, velocity, logits


def raw(tree):
    """Random keys as numbers, so that numpy can compare states."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x, tree)


def assert_close(got, want, rtol=1e-4, of_scale=2e-5):
    """Leaf by leaf, absolutely in units of the leaf's largest entry (at least 1e-2). Measured at most: 3.1e-6."""

    def compare(path, a, b):
        scale = max(np.abs(b).max(), 1e-2)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=of_scale * scale, err_msg=jax.tree_util.keystr(path))

    jax.tree.map_with_path(compare, raw(got), raw(want))


def assert_identical(got, want):
    jax.tree.map(np.testing.assert_array_equal, raw(got), raw(want))


def differs(a, b):
    return any((x != y).any() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
