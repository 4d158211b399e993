"""The distillation: what a step does, what it leaves alone, and that scan, loop and any number of devices agree."""

import dataclasses
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from ispf_jax.devices import Devices
from ispf_jax.distill import distill_epoch, generator_step, student_learning_rate, student_step
from ispf_jax.methods import METHODS, kept_samples, target_logits
from ispf_jax.models import Generator, build_classifier, init_variables
from ispf_jax.ops import convolutions
from ispf_jax.state import DistillState, new_net
from tests import tiny
from tests.tiny import BATCH, CLASSES, FORGET, WARMUP, networks, noise, request, run_epoch, view

MASK = np.isin(np.arange(CLASSES), FORGET)
identical = partial(jax.tree.map, np.testing.assert_array_equal)


def raw(tree):
    """Random keys as numbers, so that numpy can compare states."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x, tree)


def assert_close(got, want, rtol=1e-4, of_scale=2e-5):
    """Leaf by leaf, absolutely in units of the leaf's largest entry (at least 1e-2). Measured at most: 3.1e-6."""

    def compare(path, a, b):
        scale = max(np.abs(b).max(), 1e-2)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=of_scale * scale, err_msg=jax.tree_util.keystr(path))

    jax.tree.map_with_path(compare, raw(got), raw(want))


def differs(a, b):
    return any((x != y).any() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def kept_by(ask, state, z):
    """Mask of kept samples, teacher logits and images of one student step, computed from outside."""
    images, t, _ = view(tiny.SETUP, state.generator.variables, networks()[0], z)
    return np.asarray(kept_samples(ask.codes, t, ask.forget_mask, ask.threshold)), np.asarray(t), images


def test_the_teacher_of_this_file_tells_images_apart():
    """Otherwise the comparisons below would say little: every class occurs, forgotten ones as well."""
    teacher, state = networks()
    t = np.concatenate([view(tiny.SETUP, state.generator.variables, teacher, noise(seed))[1] for seed in range(8)])
    assert (np.bincount(t.argmax(1), minlength=CLASSES) > 0).all()
    assert 0.1 < np.isin(t.argmax(1), FORGET).mean() < 0.7


# Scan and loop, one device and many


@pytest.mark.parametrize("method", ["ispf", "gkt", "blockf"])
def test_an_epoch_is_the_loop_over_its_steps(method):
    state, ask = networks()[1], request(method)
    *want, before = tiny.python_loop(state, ask)
    assert_close(run_epoch(state, ask), tuple(want))
    assert len(before) == 4 and want[0].epoch == WARMUP + 1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("base", ["dfq", "zskt"])
def test_eight_devices_are_one(base, method):
    state, ask = networks()[1], request(method)
    assert_close(run_epoch(state, ask, base, 8), run_epoch(state, ask, base, 1))


@pytest.mark.parametrize("method", ["gkt", "is"])
def test_the_filters_above_are_uneven_and_leave_devices_empty(method):
    """Of the two samples of a device sometimes none is kept while another device keeps both."""
    ask = request(method)
    layouts = [kept_by(ask, *step)[0].reshape(8, 2).sum(1) for step in tiny.python_loop(networks()[1], ask)[3]]
    assert any(layout.min() == 0 and layout.max() >= 2 for layout in layouts)
    metrics = run_epoch(networks()[1], ask, count=8)[2]
    np.testing.assert_array_equal(metrics["kept"], np.sum(layouts, axis=1))


def test_runs_are_repeatable_and_every_epoch_draws_anew():
    state, ask = networks()[1], request("ispf")
    once, again, later = (run_epoch(s, ask) for s in (state, state, state.replace(epoch=jnp.int32(WARMUP + 1))))
    identical(raw(once), raw(again))
    assert differs(once[1]["generator/adv"], later[1]["generator/adv"])
    other = run_epoch(state.replace(key=jax.random.key(6)), ask)
    assert differs(once[1]["generator/adv"], other[1]["generator/adv"])


# One program for everything


def test_one_program_serves_all_methods_forget_sets_and_thresholds():
    state, results = networks()[1], {}
    for method in METHODS:
        for forget in ((0,), (1, 4), (0, 1, 2, 3, 5)):
            for threshold in (0.05, 0.5):
                for thresholded in (False, True):
                    ask = request(method, forget, threshold, thresholded)
                    results[method, forget, threshold, thresholded] = run_epoch(state, ask)[2]["student/loss"].sum()
    assert len(tiny.epoch_program("dfq", 1)[1]) == 1  # traced once, by all the tests of this file together
    assert np.isfinite(list(results.values())).all()
    loss = lambda *key: float(results[key])
    assert loss("dfkd", (0,), 0.05, False) == loss("dfkd", (0,), 0.5, True)
    assert loss("gkt", (0,), 0.05, False) != loss("gkt", (0,), 0.5, False)
    assert loss("pf", (0,), 0.05, False) == loss("pf", (0,), 0.5, False) != loss("pf", (0,), 0.5, True)
    assert len({loss(method, (1, 4), 0.5, False) for method in METHODS}) == len(METHODS)


def test_the_program_contains_only_convolutions_of_the_fast_layout():
    """XLA's own filter gradient, naive and 20 to 60 times slower in a loop, would read f01b; see tests/ops."""
    program = Devices(tuple(jax.devices()[:1])).compile(distill_epoch, tiny.make_setup("dfq"))
    with convolutions("xla"):
        program.prepare(networks()[1], networks()[0], request("ispf"))
    text = program._compiled.as_text()
    assert set(re.findall(r"dim_labels=(\S+?)[,\s]", text)) == {"b01f_01io->b01f"}
    assert "while(" in text


@pytest.mark.parametrize("name", ["allcnn", "resnet18"])
def test_so_do_the_steps_of_the_real_networks(name):
    """Of the program before compilation, which would only move layouts."""
    classifier, generator = build_classifier(name, CLASSES, 0.0625), Generator((8, 8), 3, width=0.0625)
    s = dataclasses.replace(tiny.SETUP, classifier=classifier, generator=generator)

    def steps(teacher, student, generator, ask, z):
        nets = new_net(student, s.student_optimizer), new_net(generator, s.generator_optimizer)
        state = DistillState(*nets, jax.random.key(0), jnp.int32(0))
        state, _ = generator_step(s, state, teacher, ask, z)
        return student_step(s, state, teacher, ask, z)

    net = jax.eval_shape(partial(init_variables, classifier, example_shape=(1, 8, 8, 3)), jax.random.key(0))
    noise_net = jax.eval_shape(partial(init_variables, generator, example_shape=(1, tiny.LATENT)), jax.random.key(0))
    with convolutions("xla"):
        program = jax.jit(steps).lower(net, net, noise_net, request("gkt"), noise(0)).as_text()
    assert set(re.findall(r"dim_numbers = (.+?), window", program)) == {"[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"}


# What changes nothing


def test_an_empty_filtered_batch_changes_nothing_in_the_student():
    state = run_epoch(networks()[1], request("gkt"))[0]  # with momentum that would move the weights on
    momentum = jax.tree.leaves(state.student.opt_state)
    assert max(np.abs(m).max() for m in momentum) > 0
    for count in (1, 8):
        new, _, metrics = run_epoch(state, request("gkt", threshold=0.0), count=count)
        identical(new.student, state.student)
        assert differs(new.generator.params, state.generator.params)
        np.testing.assert_array_equal(metrics["skipped_steps"], np.ones(4))
        for name in ("kept", "student/loss", "entropy"):
            np.testing.assert_array_equal(metrics[name], np.zeros(4), err_msg=name)


def test_a_step_that_keeps_one_sample_changes_the_student():
    teacher, state = networks()
    z = noise(0)
    worst = scipy.special.softmax(kept_by(request("gkt"), state, z)[1], axis=1)[:, MASK].max(1)
    lowest, second = np.sort(worst)[:2]
    new, metrics = tiny.learn(state, teacher, request("gkt", threshold=float(lowest + second) / 2), z)
    assert metrics["kept"] == 1 and metrics["skipped_steps"] == 0
    assert differs(new.student.params, state.student.params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(new.student))


def test_warm_up_moves_the_generator_only():
    state = networks()[1].replace(epoch=jnp.int32(0))
    new, generator_metrics, student_metrics = run_epoch(state, request("ispf"))
    identical(new.student, state.student)
    assert new.epoch == 1
    for part in ("params", "batch_stats"):
        assert differs(getattr(new.generator, part), getattr(state.generator, part))
    np.testing.assert_array_equal(generator_metrics["class_counts"].sum(1), [BATCH, BATCH])
    assert all((metric == 0).all() and metric.shape == (4,) for metric in student_metrics.values())
    assert differs(run_epoch(new, request("ispf"))[0].student.params, state.student.params)


def test_a_student_step_leaves_the_generator_alone_and_a_generator_step_the_student():
    teacher, state = networks()
    learned, _ = tiny.learn(state, teacher, request("ispf"), noise(0))
    identical(learned.generator, state.generator)
    generated, _ = tiny.generate(state, teacher, request("ispf"), noise(0))
    identical(generated.student, state.student)
    assert differs(learned.student.batch_stats, state.student.batch_stats)
    assert differs(generated.generator.batch_stats, state.generator.batch_stats)


# The generator


def generated(method):
    teacher, state = networks()
    return tiny.generate(state, teacher, request(method), noise(7))


def test_inhibition_turns_the_sign_of_forgotten_terms_and_nothing_else():
    teacher, state = networks()
    s = tiny.SETUP
    (plain_state, plain), (inhibited_state, inhibited) = generated("gkt"), generated("is")
    for term in ("bn", "oh", "balance", "act"):
        assert plain[f"generator/{term}"] == inhibited[f"generator/{term}"], term
    images, _ = s.generator.apply(state.generator.variables, noise(7), train=True, mutable=["batch_stats"])
    images = (images - np.array(s.mean)) / np.array(s.std)
    t, student = (s.classifier.apply(v, images)[0] for v in (teacher, state.student.variables))
    p, q = (scipy.special.softmax(np.float64(x), axis=1) for x in (t, student))
    k = p * np.log(p / q)
    np.testing.assert_allclose(plain["generator/adv"], -k.sum() / BATCH, rtol=1e-4)
    np.testing.assert_allclose(inhibited["generator/adv"], (-k[:, ~MASK].sum() + k[:, MASK].sum()) / BATCH, rtol=1e-4)
    assert differs(plain_state.generator.params, inhibited_state.generator.params)
    identical(plain_state.generator.batch_stats, inhibited_state.generator.batch_stats)
    np.testing.assert_array_equal(plain["class_counts"], np.bincount(p.argmax(1), minlength=CLASSES))


@pytest.mark.parametrize("methods", [("dfkd", "blockf", "gkt", "pf", "pd"), ("is", "ispf", "pd_is")])
def test_methods_that_differ_for_the_student_only_train_the_same_generator(methods):
    first, *others = (generated(method) for method in methods)
    for other in others:
        identical((first[0].generator, first[1]), (other[0].generator, other[1]))


def test_the_total_is_the_weighted_sum():
    state, ask = networks()[1], request("ispf")
    dfq, zskt = (run_epoch(state, ask, base)[1] for base in ("dfq", "zskt"))
    want = sum(dfq[f"generator/{term}"] for term in ("adv", "bn", "oh", "balance"))
    np.testing.assert_allclose(dfq["generator/total"], want, rtol=1e-5)
    np.testing.assert_array_equal(zskt["generator/total"], zskt["generator/adv"])
    assert "generator/bn" not in zskt
    assert dfq["generator/bn"].min() > 0 > dfq["generator/balance"].max()


# The student


@jax.jit
def dense_step(variables, velocity, images, target, rate):
    """A student step on images that all exist: batch norm without a mask, mean of KL, PyTorch's SGD, by hand."""
    s = tiny.SETUP

    def loss(params):
        (logits, _), new = s.classifier.apply(
            {**variables, "params": params}, images, train=True, mutable=["batch_stats"]
        )
        log_p, log_q = jax.nn.log_softmax(target), jax.nn.log_softmax(logits)
        return jnp.mean(jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=1)), new["batch_stats"]

    (value, batch_stats), gradient = jax.value_and_grad(loss, has_aux=True)(variables["params"])
    velocity = jax.tree.map(lambda v, g, w: 0.9 * v + g + 1e-2 * w, velocity, gradient, variables["params"])
    params = jax.tree.map(lambda w, v: w - rate * v, variables["params"], velocity)
    return value, params, velocity, batch_stats


@pytest.mark.parametrize("method", ["gkt", "blockf"])
def test_filtered_samples_do_not_exist(method):
    teacher, state = networks()
    state = tiny.learn(state, teacher, request("dfkd"), noise(1))[0]  # so that there is momentum
    ask, z = request(method), noise(2)
    keep, t, images = kept_by(ask, state, z)
    assert 1 < keep.sum() < BATCH - 1
    velocity = state.student.opt_state[1].trace
    rate = 2e-4 + (0.05 - 2e-4) * (1 + np.cos(np.pi * 0 / 10)) / 2  # no epoch after the warm-up is completed
    want = dense_step(state.student.variables, velocity, images[keep > 0], t[keep > 0], rate)
    new, metrics = tiny.learn(state, teacher, ask, z)
    got = metrics["student/loss"], new.student.params, new.student.opt_state[1].trace, new.student.batch_stats
    assert_close(got, want)


@pytest.mark.parametrize("method", ["pf", "pd", "ispf", "dfkd"])
def test_the_student_learns_the_methods_target(method):
    teacher, state = networks()
    ask, z = request(method), noise(2)
    keep, t, images = kept_by(ask, state, z)
    target = target_logits(ask.codes, t, ask.forget_mask, ask.post_threshold)
    velocity = jax.tree.map(jnp.zeros_like, state.student.params)
    want = dense_step(state.student.variables, velocity, images, target, 0.05)
    new, metrics = tiny.learn(state, teacher, ask, z)
    assert_close((metrics["student/loss"], new.student.params), want[:2])
    assert (method == "dfkd") == np.array_equal(target, t)


def test_metrics_mean_what_they_say():
    teacher, state = networks()
    ask, z = request("gkt"), noise(2)
    keep, t, _ = kept_by(ask, state, z)
    p = scipy.special.softmax(t.astype(np.float64), axis=1)
    np.testing.assert_array_equal(keep, (p[:, MASK] < ask.threshold).all(1))
    metrics = {name: float(value) for name, value in tiny.learn(state, teacher, ask, z)[1].items()}
    forgotten = np.isin(p.argmax(1), FORGET).sum()
    assert 0 < forgotten < BATCH
    assert metrics["kept"] == keep.sum() and metrics["skipped_steps"] == 0
    assert (metrics["forget_samples"], metrics["retain_samples"]) == (forgotten, BATCH - forgotten)
    entropies = scipy.stats.entropy(p[:, ~MASK], axis=1)  # renormalises
    np.testing.assert_allclose(metrics["entropy"], entropies[keep > 0].sum(), rtol=1e-5)
    np.testing.assert_allclose(metrics["teacher_forget_probability"], p[:, MASK].mean(), rtol=1e-5)


def test_schedule_starts_after_the_warm_up_and_runs_over_its_own_length():
    s = tiny.SETUP
    rates = [float(student_learning_rate(s, epoch)) for epoch in range(WARMUP + 11)]
    want = 2e-4 + (0.05 - 2e-4) * (1 + np.cos(np.pi * np.arange(11) / 10)) / 2
    np.testing.assert_allclose(rates, [0.05] * WARMUP + want.tolist(), rtol=1e-4)
    state = networks()[1]
    early, late = (
        tiny.learn(state.replace(epoch=jnp.int32(e)), networks()[0], request("pf"), noise(0))[0] for e in (1, 6)
    )
    moved = [jax.tree.map(jnp.subtract, run.student.params, state.student.params) for run in (early, late)]
    ratio = want[5] / want[0]
    assert_close(moved[1], jax.tree.map(lambda m: ratio * m, moved[0]), rtol=1e-3, of_scale=1e-4)
