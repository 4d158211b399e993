"""The memory of earlier images against lists in numpy, and what a step makes of it."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats
from scipy.special import log_softmax, softmax

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


def test_mixtures_lie_between_two_images_in_uniform_shares():
    """Of white and black images the share a of the first can be read off: 1 in half of them, else uniform (Kolmogorov
    and Smirnov)."""
    count, share = 2000, 0.5
    white, black = jnp.ones((count, 1, 1, 1)), jnp.zeros((count, 1, 1, 1))
    a = np.asarray(replay.mix(jax.random.key(1), white, black, count, share)).ravel()
    assert abs((a == 1).mean() - (1 - share)) < 4 * np.sqrt(share * (1 - share) / count)
    assert stats.kstest(a[a < 1], "uniform").pvalue > 1e-3
    images, others = batch(1), batch(2)
    mixed = replay.mix(jax.random.key(2), images, others, 4, 1.0)
    a = np.asarray(replay.mix(jax.random.key(2), white[:4], black[:4], 4, 1.0))
    np.testing.assert_allclose(mixed, a * images + (1 - a) * others, atol=1e-6)


def test_a_step_mixes_only_the_earlier_images_and_adds_the_distance_of_logits():
    """The loss, in float64, of the images that `draw` and `mix` give with the keys of the step."""
    teacher, state = tiny.networks()
    setup, key, z = tiny.SETUPS["remix"], jax.random.key(3), tiny.noise(0, 8)
    state = state.replace(memory=replay.put(replay.empty(32, 8, SHAPE), batch(9, 8)))
    _, metrics = jax.jit(tiny.student_step, static_argnums=0)(setup, state, teacher, tiny.request("dfkd"), z, key=key)
    fresh = tiny.GENERATOR.apply(state.generator.variables, z)
    memory = replay.put(state.memory, fresh)
    which, shares = jax.random.split(jax.random.fold_in(key, 1))
    first, second = (replay.draw(memory, k, 8) / 255.0 for k in (key, which))
    images = setup.network.normalise(jnp.concatenate([fresh, replay.mix(shares, first, second, 8, 0.5)]))
    t = np.asarray(tiny.CLASSIFIER.apply(teacher, images)[0], float)
    learning = {"train": True, "mutable": ["batch_stats"]}
    s = np.asarray(tiny.CLASSIFIER.apply(state.student.variables, images, **learning)[0][0], float)
    kl = (softmax(t, 1) * (log_softmax(t, 1) - log_softmax(s, 1))).sum(1)
    difference = (t - t.mean(1, keepdims=True)) - (s - s.mean(1, keepdims=True))
    np.testing.assert_allclose(metrics["student/loss"], (kl + 0.5 * np.abs(difference).mean(1)).mean(), rtol=1e-5)
