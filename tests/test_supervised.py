"""Supervised training against a slow loop that knows no masks, and on several devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ispf_jax import optim
from ispf_jax.augment import augment
from ispf_jax.state import TrainState, new_net
from ispf_jax.supervised import SupervisedSetup, supervised_epoch
from tests import tiny
from tests.tiny import CLASSES, NETWORK, assert_close, general_position, sgd_step, traced

BATCH, RATE, IMAGES = 8, 0.05, 26
SETUP = SupervisedSetup(NETWORK, optim.sgd(0.9, 1e-2), BATCH, "crop_flip")

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (IMAGES, 8, 8, 3), np.uint8)
LABELS = RNG.permutation(np.arange(IMAGES) % CLASSES).astype(np.int32)
ORIGINAL = np.isin(np.arange(IMAGES), RNG.choice(IMAGES, 19, replace=False))  # batches of 8, 8 and 3
RETRAIN = ORIGINAL & (LABELS != 2)  # 8 and 8
assert (ORIGINAL.sum(), RETRAIN.sum()) == (19, 16)
original_and_retrain = pytest.mark.parametrize("member", [ORIGINAL, RETRAIN], ids=["original", "retrain"])


def new_state(epoch=0):
    net = new_net(general_position(NETWORK.module, 8, 8, 3, seed=1), SETUP.optimizer)
    return TrainState(net, jax.random.key(3), jnp.int32(epoch))


def run(member, epoch=0, count=1, images=PIXELS):
    program = traced(supervised_epoch, SETUP, count)[0]
    return program(new_state(epoch), images, LABELS, member, jnp.float32(RATE))


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
        images = (images / 255 - np.array(NETWORK.mean)) / np.array(NETWORK.std)
        target = np.eye(CLASSES, dtype=np.float32)[LABELS[rows]]
        loss, variables, velocity, logits = sgd_step(variables, velocity, images, target, RATE)
        total, hits = total + len(rows) * loss, hits + np.sum(np.argmax(logits, 1) == LABELS[rows])
    return (variables, velocity), total / len(order), 100 * hits / len(order)


@original_and_retrain
def test_an_epoch_is_the_slow_loop_over_the_members(member):
    state, metrics = run(member, epoch=4)
    want, loss, accuracy = slow_epoch(new_state(4), member)
    assert_close((state.net.variables, state.net.opt_state[1].trace), want)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(metrics["accuracy"], accuracy, rtol=1e-6)
    assert 0 < accuracy < 100 and state.epoch == 5


def test_images_outside_the_members_are_never_seen():
    changed = np.where(RETRAIN[:, None, None, None], PIXELS, 255 - PIXELS)
    tiny.assert_identical(run(RETRAIN, images=changed), run(RETRAIN))


def test_one_program_trains_original_and_retrained_models_every_epoch_in_another_order():
    states = [
        run(member, epoch)[0].net for member, epoch in [(ORIGINAL, 0), (RETRAIN, 0), (ORIGINAL, 1), (ORIGINAL, 0)]
    ]
    assert len(traced(supervised_epoch, SETUP, 1)[1]) == 1
    tiny.assert_identical(states[3], states[0])
    assert all(tiny.differs(state.params, states[0].params) for state in states[1:3])


@original_and_retrain
def test_eight_devices_are_one(member):
    """Of the last batch's three rows five devices get none."""
    assert_close(run(member, count=8), run(member))
