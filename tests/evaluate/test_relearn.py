"""Relearning curves step by step against a plain loop, the order of the images, and the anamnesis index by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ispf_jax.classifier import Network
from ispf_jax.errors import UserError
from ispf_jax.evaluate import relearn
from ispf_jax.evaluate.relearn import RelearnSetup, Subset
from ispf_jax.evaluate.sampling import shots
from tests.evaluate.conftest import TINY, fresh, make_images

SETUP = RelearnSetup(TINY, steps=8, batch_size=16, learning_rate=0.2)
IMAGES, LABELS = make_images(np.random.default_rng(0), 40)
ALL = np.ones(40, bool)
TEST_IMAGES, TEST_LABELS = make_images(np.random.default_rng(1), 24)


@pytest.fixture(scope="module")
def variables():
    return fresh(TINY, 0)


def curve(variables, setup=SETUP, member=ALL, evaluated=TEST_LABELS == 1):
    train, test = Subset(IMAGES, LABELS, member), Subset(TEST_IMAGES, TEST_LABELS, evaluated)
    return relearn.relearn_curve(setup, variables, train, test, seed=3)


def plain_loop(variables, member, evaluated, steps):
    """Full-batch Adam with optax on the members alone, the accuracy after every step."""
    optimizer = optax.adam(SETUP.learning_rate)
    x, y = TINY.normalise(IMAGES[member]), LABELS[member]
    params, stats = variables["params"], variables["batch_stats"]
    opt_state, found = optimizer.init(params), []

    @jax.jit
    def step(params, stats, opt_state):
        def loss(params):
            (z, _), new = TINY.module.apply(
                {"params": params, "batch_stats": stats}, x, train=True, mutable=["batch_stats"]
            )
            return optax.losses.softmax_cross_entropy_with_integer_labels(z, y).mean(), new["batch_stats"]

        gradient, stats_ = jax.grad(loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(gradient, opt_state)
        return optax.apply_updates(params, updates), stats_, opt_state

    for _ in range(steps + 1):
        z, _ = TINY.module.apply({"params": params, "batch_stats": stats}, TINY.normalise(TEST_IMAGES[evaluated]))
        found.append(100 * np.mean(np.argmax(z, axis=-1) == TEST_LABELS[evaluated]))
        params, stats, opt_state = step(params, stats, opt_state)
    return found


def test_the_curve_is_that_of_a_plain_loop(variables):
    member, evaluated = np.arange(40) < 13, TEST_LABELS > 0
    found = curve(variables, member=member, evaluated=evaluated)
    np.testing.assert_allclose(found, plain_loop(variables, member, evaluated, 8), atol=1e-4)
    assert len(found) == 9 and len(set(found)) > 2


def test_all_sets_of_a_size_share_one_program(variables):
    curve(variables)
    before = relearn._curve._cache_size()
    curve(variables, member=LABELS != 2, evaluated=TEST_LABELS == 3)
    curve(jax.tree.map(lambda v: v + 0.1, variables), member=np.arange(40) % 5 > 0)
    assert relearn._curve._cache_size() == before


class Recorder(nn.Module):
    """Counts how often it was trained on each image, whose number is its pixel, and predicts that count."""

    num_classes: int = 4

    @nn.compact
    def __call__(self, x, train=False, mask=None, axis=None):
        seen = self.variable("batch_stats", "seen", jnp.zeros, (40,))
        self.param("unused", nn.initializers.zeros, ())
        number = jnp.round(x[:, 0, 0, 0] * 255).astype(int)
        if train:
            seen.value = seen.value.at[number].add(mask)
        return jax.nn.one_hot(seen.value[number].astype(int), self.num_classes), x


def test_every_epoch_shows_every_member_once_and_nothing_else():
    setup = RelearnSetup(Network(Recorder(), (1, 1, 1), (0.0,), (1.0,)), steps=4, batch_size=16)
    images, member = np.arange(40, dtype=np.uint8)[:, None, None, None], np.arange(40) >= 10
    variables = {"params": {"unused": jnp.float32(0)}, "batch_stats": {"seen": jnp.zeros(40)}}

    def share_seen(times, evaluated):
        labels = np.full(40, times)
        train, test = Subset(images, labels, member), Subset(images, labels, evaluated)
        return relearn.relearn_curve(setup, variables, train, test, seed=0)

    # 30 images: 16 and 14 per epoch.
    np.testing.assert_allclose(share_seen(1, member)[:3], [0, 1600 / 30, 100], rtol=1e-6)
    np.testing.assert_allclose(share_seen(2, member), [0, 0, 0, 1600 / 30, 100], rtol=1e-6)
    np.testing.assert_allclose(share_seen(0, ~member), [100] * 5)


@pytest.mark.parametrize(
    "empty, what", [({"member": np.zeros(40, bool)}, "training"), ({"evaluated": TEST_LABELS > 9}, "test")]
)
def test_curves_that_cannot_be(variables, empty, what):
    with pytest.raises(UserError, match=f"no {what} images"):
        curve(variables, **empty)


def test_few_shots_are_seeded_members_of_every_class():
    member = np.arange(40) >= 8
    few = shots(LABELS, member, 3, seed=1)
    assert np.bincount(LABELS[few]).tolist() == [3, 3, 3, 3] and np.all(member[few])
    np.testing.assert_array_equal(few, shots(LABELS, member, 3, seed=1))
    assert not np.array_equal(few, shots(LABELS, member, 3, seed=2))
    for k in (0, 9):
        with pytest.raises(UserError, match=f"{k} images of class 0"):
            shots(LABELS, member, k, seed=0)


def test_steps_to_reach_by_hand():
    assert relearn.steps_to_reach((0, 40, 95, 90), 95) == (2, True)
    assert relearn.steps_to_reach((99, 0, 0), 95) == (1, True)
    assert relearn.steps_to_reach((0, 40, 94), 95) == (2, False)


def test_anamnesis_index_by_hand():
    quick, slow, never = (0, 96, 96, 96, 96), (0, 0, 0, 0, 95), (0, 0, 0, 0, 1)
    assert relearn.anamnesis_index(quick, slow, 95) == (0.25, "exact")
    assert relearn.anamnesis_index(never, quick, 95) == (4, "at least")
    assert relearn.anamnesis_index(quick, never, 95) == (0.25, "at most")
    assert relearn.anamnesis_index(never, never, 95) == (None, "undefined")
