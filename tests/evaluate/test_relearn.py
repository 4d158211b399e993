"""Relearning curves step by step against a plain loop, the order of the images, and the anamnesis index by hand."""

from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ispf_jax.data.augment import normalise
from ispf_jax.errors import UserError
from ispf_jax.evaluate import relearn
from ispf_jax.evaluate.relearn import Reach, RelearnCurve, RelearnSetup
from ispf_jax.evaluate.sampling import shots
from tests.evaluate.conftest import MEAN, STD, TINY, fresh, make_images

SETUP = RelearnSetup(TINY, steps=8, augmentation="none", mean=MEAN, std=STD, batch_size=16, learning_rate=0.2)
MASK = np.arange(4) == 1
IMAGES, LABELS = make_images(np.random.default_rng(0), 40)
TEST_IMAGES, TEST_LABELS = make_images(np.random.default_rng(1), 24)


@pytest.fixture(scope="module")
def variables():
    return fresh(TINY, 0)


def curve(variables, setup=SETUP, member=np.ones(40, bool), evaluated=TEST_LABELS == 1, **options):
    return relearn.relearn_curve(
        setup, variables, IMAGES, LABELS, member, TEST_IMAGES, TEST_LABELS, evaluated, 3, **options
    )


def plain_loop(variables, member, evaluated, steps):
    """Full-batch Adam with optax on the members alone, the accuracy after every step."""
    optimizer = optax.adam(SETUP.learning_rate)
    x, y = normalise(IMAGES[member], MEAN, STD), LABELS[member]
    params, stats = variables["params"], variables["batch_stats"]
    opt_state, found = optimizer.init(params), []

    @jax.jit
    def step(params, stats, opt_state):
        def loss(params):
            (z, _), new = TINY.apply({"params": params, "batch_stats": stats}, x, train=True, mutable=["batch_stats"])
            return optax.losses.softmax_cross_entropy_with_integer_labels(z, y).mean(), new["batch_stats"]

        gradient, stats_ = jax.grad(loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(gradient, opt_state)
        return optax.apply_updates(params, updates), stats_, opt_state

    for done in range(steps + 1):
        z, _ = TINY.apply({"params": params, "batch_stats": stats}, normalise(TEST_IMAGES[evaluated], MEAN, STD))
        found.append(100 * np.mean(np.argmax(z, axis=-1) == TEST_LABELS[evaluated]))
        params, stats, opt_state = step(params, stats, opt_state)
    return found


def test_the_curve_is_that_of_a_plain_loop(variables):
    member, evaluated = np.arange(40) < 13, TEST_LABELS > 0
    found = curve(variables, member=member, evaluated=evaluated)
    np.testing.assert_allclose(found.accuracy, plain_loop(variables, member, evaluated, 8), atol=1e-4)
    assert found.steps == tuple(range(9)) and (found.images, found.test_images) == (13, 18)
    assert len(set(found.accuracy)) > 2


def test_evaluating_every_second_step_gives_every_second_value(variables):
    fine, coarse = curve(variables), curve(variables, replace(SETUP, evaluate_every=2))
    assert coarse.steps == fine.steps[::2] and coarse.accuracy == fine.accuracy[::2]


def test_a_curve_stops_where_it_is_told(variables):
    whole = curve(variables, evaluated=TEST_LABELS > 0).accuracy
    reached = next(i for i, a in enumerate(whole) if a > whole[0])
    stopped = curve(variables, evaluated=TEST_LABELS > 0, stop_at=whole[reached]).accuracy
    assert stopped[: reached + 1] == whole[: reached + 1] and np.all(np.isnan(stopped[reached + 1 :]))
    with pytest.raises(UserError, match="stopped early"):
        relearn.mean_accuracy(RelearnCurve((0, 1, 2), (1.0, 2.0, np.nan), 1, 1))


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
    setup = RelearnSetup(Recorder(), steps=4, augmentation="none", mean=(0.0,), std=(1.0,), batch_size=16)
    images, member = (
        np.arange(40, dtype=np.uint8)[:, None, None, None],
        np.arange(40) >= 10,
    )  # 30 images: 16 and 14 per epoch
    variables = {"params": {"unused": jnp.float32(0)}, "batch_stats": {"seen": jnp.zeros(40)}}

    def share_seen(times, evaluated):
        labels = np.full(40, times)
        return relearn.relearn_curve(setup, variables, images, labels, member, images, labels, evaluated, 0).accuracy

    np.testing.assert_allclose(share_seen(1, member)[:3], [0, 1600 / 30, 100], rtol=1e-6)
    np.testing.assert_allclose(share_seen(2, member), [0, 0, 0, 1600 / 30, 100], rtol=1e-6)
    np.testing.assert_allclose(share_seen(0, ~member), [100] * 5)


def test_relearning_sets():
    member = np.arange(40) >= 8
    chosen = {data: relearn.relearn_members(data, LABELS, member, MASK) for data in ("all", "forget", "retain")}
    np.testing.assert_array_equal(chosen["all"], member)
    np.testing.assert_array_equal(chosen["forget"], member & (LABELS == 1))
    np.testing.assert_array_equal(chosen["retain"], member & (LABELS != 1))
    few = relearn.relearn_members("shots", LABELS, member, MASK, seed=1, k=3)
    assert np.bincount(LABELS[few]).tolist() == [3, 3, 3, 3] and np.all(member[few])
    np.testing.assert_array_equal(few, shots(LABELS, member, 3, seed=1))
    assert not np.array_equal(few, shots(LABELS, member, 3, seed=2))


@pytest.mark.parametrize(
    "data, labels, k", [("all", LABELS, 5), ("shots", LABELS, None), ("some", LABELS, None), ("all", LABELS * 0, None)]
)
def test_relearning_sets_that_cannot_be(data, labels, k):
    with pytest.raises(UserError):
        relearn.relearn_members(data, labels, np.ones(40, bool), MASK, k=k)


def test_shots_need_enough_images():
    with pytest.raises(UserError, match="class 0 has 10"):
        shots(LABELS, np.ones(40, bool), 11, seed=0)
    with pytest.raises(UserError, match="1 or more"):
        shots(LABELS, np.ones(40, bool), 0, seed=0)


@pytest.mark.parametrize(
    "options",
    [
        {"member": np.zeros(40, bool)},
        {"evaluated": np.zeros(24, bool)},
        {"member": np.ones(3, bool)},
        {"setup": replace(SETUP, steps=0)},
        {"setup": replace(SETUP, evaluate_every=3)},
    ],
)
def test_curves_that_cannot_be(variables, options):
    with pytest.raises(UserError):
        curve(variables, **options)


def line(*accuracy, every=1):
    return RelearnCurve(tuple(range(0, every * len(accuracy), every)), tuple(map(float, accuracy)), 1, 1)


def test_steps_to_reach_by_hand():
    assert relearn.steps_to_reach(line(0, 40, 95, 90), 95) == Reach(2, False)
    assert relearn.steps_to_reach(line(99, 0, 0), 95) == Reach(1, False)
    assert relearn.steps_to_reach(line(0, 40, 94), 95) == Reach(2, True)
    assert relearn.steps_to_reach(line(0, 40, 96, every=5), 95) == Reach(10, False)
    for target in (0, -1, 101, np.nan):
        with pytest.raises(UserError):
            relearn.steps_to_reach(line(0, 1), target)


def test_anamnesis_index_by_hand():
    quick, slow, never = line(0, 96, 96, 96, 96), line(0, 0, 0, 0, 95), line(0, 0, 0, 0, 1)
    target = relearn.relearn_target(100.0)
    assert target == 95
    found = relearn.anamnesis_index(quick, slow, target)
    assert (found.value, found.bound, found.student.steps, found.gold.steps) == (0.25, "exact", 1, 4)
    assert relearn.anamnesis_index(never, quick, target).bound == "at least"
    assert relearn.anamnesis_index(quick, never, target).bound == "at most"
    both = relearn.anamnesis_index(never, never, target)
    assert both.value is None and both.bound == "undefined"
    with pytest.raises(UserError, match="same steps"):
        relearn.anamnesis_index(line(0, 1), slow, target)


def test_mean_accuracy_leaves_out_step_zero():
    assert relearn.mean_accuracy(line(90, 10, 20, 60)) == 30
