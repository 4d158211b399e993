"""Supervised training against a slow loop that knows no masks, and on several devices."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ispf_jax import optim
from ispf_jax.data.augment import augment
from ispf_jax.devices import Devices
from ispf_jax.state import TrainState, new_net
from ispf_jax.supervised import SupervisedSetup, supervised_epoch
from tests.tiny import CLASSES, TinyNet, general_position

BATCH, RATE, IMAGES = 8, 0.05, 26
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
SETUP = SupervisedSetup(TinyNet(), optim.sgd(0.9, 1e-2), BATCH, "crop_flip", MEAN, STD)

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (IMAGES, 8, 8, 3), np.uint8)
LABELS = RNG.permutation(np.arange(IMAGES) % CLASSES).astype(np.int32)
ORIGINAL = np.isin(np.arange(IMAGES), RNG.choice(IMAGES, 19, replace=False))  # batches of 8, 8 and 3
RETRAIN = ORIGINAL & (LABELS != 2)  # 8 and 8
assert (ORIGINAL.sum(), RETRAIN.sum()) == (19, 16)


def new_state(epoch=0):
    variables = general_position(SETUP.classifier, (1, 8, 8, 3), 1)
    return TrainState(new_net(variables, SETUP.optimizer), jax.random.key(3), jnp.int32(epoch))


@cache
def program(count):
    traces = []

    def epoch(setup, state, images, labels, member, rate, axis):
        traces.append(axis)
        return supervised_epoch(setup, state, images, labels, member, rate, axis)

    return Devices(tuple(jax.devices()[:count])).compile(epoch, SETUP), traces


def run(state, member, count=1, images=PIXELS):
    state, metrics = program(count)[0](state, images, LABELS, member, jnp.float32(RATE))
    return state.net, metrics


@jax.jit
def dense_step(variables, velocity, images, labels):
    """PyTorch's SGD on the mean cross entropy of a batch in which every image exists."""

    def loss(params):
        model = {**variables, "params": params}
        (logits, _), new = SETUP.classifier.apply(model, images, train=True, mutable=["batch_stats"])
        log_p = jax.nn.log_softmax(logits)
        losses = -log_p[jnp.arange(len(labels)), labels]
        return jnp.mean(losses), (jnp.sum(losses), jnp.sum(jnp.argmax(logits, 1) == labels), new["batch_stats"])

    gradient, (total, hits, batch_stats) = jax.grad(loss, has_aux=True)(variables["params"])
    velocity = jax.tree.map(lambda v, g, w: 0.9 * v + g + 1e-2 * w, velocity, gradient, variables["params"])
    params = jax.tree.map(lambda w, v: w - RATE * v, variables["params"], velocity)
    return {"params": params, "batch_stats": batch_stats}, velocity, total, hits


crops = jax.jit(partial(augment, "crop_flip"))


def slow_epoch(state, member):
    """The same order and the same crops, one batch after the other, the last one smaller."""
    order_key, augment_key = jax.random.split(jax.random.fold_in(state.key, state.epoch))
    draw = np.asarray(jax.random.uniform(order_key, (IMAGES,)))
    order = sorted(np.flatnonzero(member), key=lambda image: draw[image])
    variables, velocity, total, hits = state.net.variables, jax.tree.map(jnp.zeros_like, state.net.params), 0.0, 0
    for step, start in enumerate(range(0, len(order), BATCH)):
        rows = np.array(order[start : start + BATCH])
        full = np.zeros((BATCH, 8, 8, 3), np.uint8)
        full[: len(rows)] = PIXELS[rows]
        images = crops(jax.random.fold_in(augment_key, step), full)[: len(rows)]
        images = (images / 255 - np.array(MEAN)) / np.array(STD)
        variables, velocity, losses, correct = dense_step(variables, velocity, images, LABELS[rows])
        total, hits = total + losses, hits + correct
    return variables, velocity, total / len(order), 100 * hits / len(order)


def assert_close(got, want, of_scale=2e-5):
    compare = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=of_scale * max(np.abs(b).max(), 1e-2))
    jax.tree.map(compare, got, want)


@pytest.mark.parametrize("member", [ORIGINAL, RETRAIN], ids=["original", "retrain"])
def test_an_epoch_is_the_slow_loop_over_the_members(member):
    net, metrics = run(new_state(), member)
    variables, velocity, loss, accuracy = slow_epoch(new_state(), member)
    assert_close((net.variables, net.opt_state[1].trace), (variables, velocity))
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(metrics["accuracy"], accuracy, rtol=1e-6)
    assert 0 < accuracy < 100


def test_images_outside_the_members_are_never_seen():
    changed = np.where(RETRAIN[:, None, None, None], PIXELS, 255 - PIXELS)
    want, got = (run(new_state(), RETRAIN, images=images) for images in (PIXELS, changed))
    jax.tree.map(np.testing.assert_array_equal, got, want)


def test_original_and_retrained_models_run_one_program():
    nets = [run(new_state(), member)[0].params["classifier"]["bias"] for member in (ORIGINAL, RETRAIN, ORIGINAL)]
    assert len(program(1)[1]) == 1
    np.testing.assert_array_equal(nets[0], nets[2])
    assert (nets[0] != nets[1]).any()


def test_every_epoch_has_an_order_of_its_own():
    early, again, late = (run(new_state(epoch), ORIGINAL)[0].params["classifier"]["bias"] for epoch in (0, 0, 1))
    np.testing.assert_array_equal(early, again)
    assert (early != late).any()
    state, _ = program(1)[0](new_state(4), PIXELS, LABELS, ORIGINAL, jnp.float32(RATE))
    assert state.epoch == 5


@pytest.mark.parametrize("member", [ORIGINAL, RETRAIN], ids=["original", "retrain"])
def test_eight_devices_are_one(member):
    """Of the last batch's three rows five devices get none."""
    assert_close(run(new_state(), member, count=8), run(new_state(), member, count=1))
