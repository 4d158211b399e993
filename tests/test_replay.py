"""The memory of earlier images against lists in numpy, and what a step makes of it."""

import jax
import jax.numpy as jnp
import numpy as np

from ispf_jax import replay
from ispf_jax.augment import crop_flip
from tests import tiny

SHAPE = (8, 8, 3)


def batch(seed, count=4):
    return np.random.default_rng(seed).random((count, *SHAPE), np.float32)


def filled(batches, images=12):
    memory = replay.empty(images, 4, SHAPE)
    for seed in range(batches):
        memory = replay.put(memory, batch(seed))
    return memory


def as_bytes(images):
    return np.round(255 * images).astype(np.uint8)


def test_the_ring_holds_the_newest_images():
    memory = filled(5, images=15)  # three batches of four fit
    want = [as_bytes(batch(seed)) for seed in (3, 4, 2)]
    np.testing.assert_array_equal(memory.images, np.concatenate(want))
    assert memory.stored == 20


def test_what_is_drawn_was_stored_and_is_only_moved_and_mirrored():
    """Every image is some stored one under some shift and flip; of three batches all occur, of one only that one."""
    for batches in (1, 3):
        stored = np.concatenate([as_bytes(batch(seed)) for seed in range(batches)])
        places = [(row, column) for row in range(9) for column in range(9)]
        views = {}
        for i, image in enumerate(stored):
            many = np.repeat(image[None], 2 * len(places), axis=0)
            flips = np.arange(len(many)) % 2 == 1
            for view in np.asarray(crop_flip(many, np.repeat(places, 2, axis=0), flips)):
                views[view.tobytes()] = i
        drawn = np.asarray(replay.draw(filled(batches), jax.random.key(0), 200))
        assert len(np.unique(drawn, axis=0)) > 100
        assert {views[image.tobytes()] for image in drawn if image.any()} == set(range(len(stored)))


def test_a_step_learns_from_new_and_earlier_images_alike():
    """Half of the batch are new images, the rest what `draw` gives with the key of the step."""
    teacher, state = tiny.networks()
    setup, key, z = tiny.SETUPS["replay"], jax.random.key(3), tiny.noise(0, 8)
    state = state.replace(memory=replay.put(replay.empty(32, 8, SHAPE), batch(9, 8)))
    ask = tiny.request("ispf")
    new, metrics = jax.jit(tiny.student_step, static_argnums=0)(setup, state, teacher, ask, z, key=key)
    fresh = tiny.GENERATOR.apply(state.generator.variables, z)
    memory = replay.put(state.memory, fresh)
    tiny.assert_identical(new.memory.stored, memory.stored)
    images = jnp.concatenate([fresh, replay.draw(memory, key, 8) / 255.0])
    images = (images - np.array(setup.network.mean)) / np.array(setup.network.std)
    logits = np.asarray(tiny.CLASSIFIER.apply(teacher, images)[0])
    forgotten = np.isin(logits.argmax(1), tiny.FORGET).sum()
    assert (metrics["forget_samples"], metrics["kept"]) == (forgotten, 16)
