"""The distillation: what a step does, what it leaves alone, and that scan, loop and any number of devices agree."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from ispf_jax.distill import distill_epoch, student_learning_rate
from ispf_jax.filters import post_filter, project
from ispf_jax.methods import METHODS
from ispf_jax.models import Generator, build_classifier
from ispf_jax.ops import convolutions
from ispf_jax.state import DistillState, new_net
from tests import tiny
from tests.tiny import BATCH, CLASSES, FORGET, SETUP, assert_close, differs, networks, noise, request, run_epoch

MASK = np.isin(np.arange(CLASSES), FORGET)


def softmax(logits):
    return scipy.special.softmax(np.float64(logits), axis=1)


def view(state, z):
    """Images of one student step, and what the teacher says about them."""
    images, logits, _ = tiny.view(state.generator.variables, networks()[0], z)
    return np.asarray(images), np.asarray(logits)


def kept_by(method, logits):
    """What the student sees, by definition: [N] of booleans."""
    if METHODS[method].keep == "block":
        return ~np.isin(logits.argmax(1), FORGET)
    return (softmax(logits)[:, MASK] < tiny.quartile()).all(1) | (METHODS[method].keep == "all")


def test_the_teacher_of_this_file_tells_images_apart():
    """Otherwise the comparisons below would say little: every class occurs, forgotten ones as well."""
    labels = view(networks()[1], noise(0, 8 * BATCH))[1].argmax(1)
    assert set(labels) == set(range(CLASSES)) and 0.1 < np.isin(labels, FORGET).mean() < 0.7


# Scan and loop, one device and many


@pytest.mark.parametrize("method", ["ispf", "gkt", "blockf"])
def test_an_epoch_is_the_loop_over_its_steps(method):
    state, ask = networks()[1], request(method)
    *want, before = tiny.python_loop(state, ask)
    assert_close(run_epoch(state, ask), tuple(want))
    assert len(before) == 4 and want[0].epoch == tiny.WARMUP + 1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("base", tiny.SETUPS)
def test_eight_devices_are_one(base, method):
    state, ask = networks()[1], request(method)
    assert_close(run_epoch(state, ask, base, 8), run_epoch(state, ask, base, 1))


@pytest.mark.parametrize("method", ["gkt", "is"])
def test_the_filters_above_are_uneven_and_leave_devices_empty(method):
    """Of the two samples of a device sometimes none is kept while another device keeps both."""
    state, ask = networks()[1], request(method)
    layouts = [kept_by(method, view(*step)[1]).reshape(8, 2).sum(1) for step in tiny.python_loop(state, ask)[3]]
    assert any(layout.min() == 0 and layout.max() >= 2 for layout in layouts)
    np.testing.assert_array_equal(run_epoch(state, ask, count=8)[2]["kept"], np.sum(layouts, axis=1))


def test_runs_are_repeatable_and_every_epoch_and_key_draws_anew():
    state, ask = networks()[1], request("ispf")
    changed = state.replace(epoch=jnp.int32(tiny.WARMUP + 1)), state.replace(key=jax.random.key(6))
    once, again, *others = (run_epoch(s, ask) for s in (state, state, *changed))
    tiny.assert_identical(once, again)
    assert all(differs(once[1]["generator/adv"], other[1]["generator/adv"]) for other in others)


# One program for everything


def test_one_program_serves_all_methods_forget_sets_and_thresholds():
    def loss(method, forget, threshold, thresholded=False):
        ask = request(method, forget, threshold, thresholded)
        return float(run_epoch(networks()[1], ask)[2]["student/loss"].sum())

    assert loss("dfkd", (0,), 0.05) == loss("dfkd", (0,), 0.5, True)
    assert loss("gkt", (0,), 0.05) != loss("gkt", (0,), 0.5)
    assert loss("pf", (0,), 0.05) == loss("pf", (0,), 0.5) != loss("pf", (0,), 0.5, True)
    for forget in ((0,), (1, 4), (0, 1, 2, 3, 5)):
        losses = [loss(method, forget, 0.5) for method in METHODS]
        assert np.isfinite(losses).all() and (len(set(losses)) == len(METHODS) or forget != (1, 4))
    assert len(tiny.traced(distill_epoch, SETUP, 1)[1]) == 1  # traced once, by all the tests of this file together


@pytest.mark.parametrize("name", ["tiny", "allcnn", "resnet18"])
def test_the_program_of_an_epoch_contains_only_convolutions_of_the_fast_layout(name):
    """XLA's own filter gradient, naive and 20 to 60 times slower in a loop, would read f01b; see tests/ops."""
    classifier, generator = tiny.CLASSIFIER, tiny.GENERATOR
    if name != "tiny":
        classifier, generator = build_classifier(name, CLASSES, 0.0625), Generator((8, 8), 3, width=0.0625)
    setup, ask = tiny.distill_setup(dataclasses.replace(tiny.NETWORK, module=classifier), generator), request("ispf")

    def epoch(teacher, student, generator):
        nets = new_net(student, setup.student_optimizer), new_net(generator, setup.generator_optimizer)
        return distill_epoch(setup, DistillState(*nets, jax.random.key(0), jnp.int32(0)), teacher, ask)

    network = tiny.shapes(classifier, 8, 8, 3)
    with convolutions("xla"):
        program = jax.jit(epoch).lower(network, network, tiny.shapes(generator, tiny.LATENT))
    text = program.as_text()
    assert set(re.findall(r"dim_numbers = (.+?), window", text)) == {"[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"}
    if name == "tiny":  # compilation of the others would only move layouts
        text = program.compile().as_text()
        assert set(re.findall(r"dim_labels=(\S+?)[,\s]", text)) == {"b01f_01io->b01f"} and "while(" in text


# What changes nothing


def test_an_empty_filtered_batch_changes_nothing_in_the_student():
    state = run_epoch(networks()[1], request("gkt"))[0]  # with momentum that would move the weights on
    assert any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(state.student.opt_state))
    for count in (1, 8):
        new, _, metrics = run_epoch(state, request("gkt", threshold=0.0), count=count)
        tiny.assert_identical(new.student, state.student)
        assert differs(new.generator.params, state.generator.params)
        np.testing.assert_array_equal(metrics["skipped_steps"], np.ones(4))
        for name in ("kept", "student/loss", "entropy"):
            np.testing.assert_array_equal(metrics[name], np.zeros(4), err_msg=name)


def test_a_step_that_keeps_one_sample_changes_the_student():
    teacher, state = networks()
    z = noise(0)
    lowest, second = np.sort(softmax(view(state, z)[1])[:, MASK].max(1))[:2]
    new, metrics = tiny.learn(state, teacher, request("gkt", threshold=float(lowest + second) / 2), z)
    assert metrics["kept"] == 1 and metrics["skipped_steps"] == 0
    assert differs(new.student.params, state.student.params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(new.student))


def test_warm_up_moves_the_generator_only():
    state = networks()[1].replace(epoch=jnp.int32(0))
    new, generator_metrics, student_metrics = run_epoch(state, request("ispf"))
    tiny.assert_identical(new.student, state.student)
    assert new.epoch == 1
    for part in ("params", "batch_stats"):
        assert differs(getattr(new.generator, part), getattr(state.generator, part))
    np.testing.assert_array_equal(generator_metrics["class_counts"].sum(1), [BATCH, BATCH])
    assert all((metric == 0).all() and len(metric) == 4 for metric in student_metrics.values())
    assert differs(run_epoch(new, request("ispf"))[0].student.params, state.student.params)


def test_a_student_step_leaves_the_generator_alone_and_a_generator_step_the_student():
    teacher, state = networks()
    learned, generated = (step(state, teacher, request("ispf"), noise(0))[0] for step in (tiny.learn, tiny.generate))
    tiny.assert_identical((learned.generator, generated.student), (state.generator, state.student))
    assert differs(learned.student.batch_stats, state.student.batch_stats)
    assert differs(generated.generator.batch_stats, state.generator.batch_stats)


# The generator


def generated(method):
    teacher, state = networks()
    return tiny.generate(state, teacher, request(method), noise(7))


def test_inhibition_turns_the_sign_of_forgotten_terms_and_nothing_else():
    teacher, state = networks()
    (plain_state, plain), (inhibited_state, inhibited) = generated("gkt"), generated("is")
    for term in ("bn", "oh", "balance", "act"):
        assert plain[f"generator/{term}"] == inhibited[f"generator/{term}"], term
    images, _ = tiny.GENERATOR.apply(state.generator.variables, noise(7), train=True, mutable=["batch_stats"])
    images = (images - np.array(SETUP.network.mean)) / np.array(SETUP.network.std)
    p, q = (softmax(tiny.CLASSIFIER.apply(v, images)[0]) for v in (teacher, state.student.variables))
    k = p * np.log(p / q)
    np.testing.assert_allclose(plain["generator/adv"], -k.sum() / BATCH, rtol=1e-4)
    np.testing.assert_allclose(inhibited["generator/adv"], (-k[:, ~MASK].sum() + k[:, MASK].sum()) / BATCH, rtol=1e-4)
    assert differs(plain_state.generator.params, inhibited_state.generator.params)
    tiny.assert_identical(plain_state.generator.batch_stats, inhibited_state.generator.batch_stats)
    np.testing.assert_array_equal(plain["class_counts"], np.bincount(p.argmax(1), minlength=CLASSES))


@pytest.mark.parametrize("methods", [("dfkd", "blockf", "gkt", "pf", "pd"), ("is", "ispf", "pd_is")])
def test_methods_that_differ_for_the_student_only_train_the_same_generator(methods):
    first, *others = ((state.generator, metrics) for state, metrics in map(generated, methods))
    for other in others:
        tiny.assert_identical(first, other)


def test_the_total_is_the_weighted_sum():
    dfq, zskt = (run_epoch(networks()[1], request("ispf"), base)[1] for base in ("dfq", "zskt"))
    want = sum(dfq[f"generator/{term}"] for term in ("adv", "bn", "oh", "balance"))
    np.testing.assert_allclose(dfq["generator/total"], want, rtol=1e-5)
    np.testing.assert_array_equal(zskt["generator/total"], zskt["generator/adv"])
    assert "generator/bn" not in zskt
    assert dfq["generator/bn"].min() > 0 > dfq["generator/balance"].max()


# The student


@pytest.mark.parametrize("method", METHODS)
def test_the_student_learns_the_methods_target_and_filtered_samples_do_not_exist(method):
    teacher, state = networks()
    state = tiny.learn(state, teacher, request("dfkd"), noise(1))[0]  # so that there is momentum
    images, t = view(state, noise(2))
    target = {"teacher": t, "postfilter": post_filter(t, MASK), "project": project(t, MASK)}[METHODS[method].target]
    keep = kept_by(method, t)
    if METHODS[method].keep != "all":
        assert 1 < keep.sum() < BATCH - 1
    velocity = state.student.opt_state[1].trace
    loss, want, velocity, _ = tiny.sgd_step(
        state.student.variables, velocity, images[keep], jax.nn.softmax(target)[keep], 0.05
    )
    new, metrics = tiny.learn(state, teacher, request(method), noise(2))
    got = metrics["student/loss"], new.student.variables, new.student.opt_state[1].trace
    assert_close(got, (loss, want, velocity))
    assert (METHODS[method].target == "teacher") == np.array_equal(target, t)


def test_metrics_mean_what_they_say():
    teacher, state = networks()
    images, t = view(state, noise(2))
    p, keep = softmax(t), kept_by("gkt", t)
    metrics = {k: np.asarray(v) for k, v in tiny.learn(state, teacher, request("gkt"), noise(2))[1].items()}
    forgotten = np.isin(p.argmax(1), FORGET).sum()
    assert 0 < forgotten < BATCH
    assert metrics["kept"] == keep.sum() and metrics["skipped_steps"] == 0
    assert (metrics["forget_samples"], metrics["retain_samples"]) == (forgotten, BATCH - forgotten)
    entropies = scipy.stats.entropy(p[:, ~MASK], axis=1)  # renormalises
    np.testing.assert_allclose(metrics["entropy"], entropies[keep].sum(), rtol=1e-5)
    np.testing.assert_allclose(metrics["teacher_forget_probability"], p[:, MASK].mean(), rtol=1e-5)
    training = {"train": True, "mask": jnp.array(keep), "mutable": ["batch_stats"]}
    said = np.argmax(tiny.CLASSIFIER.apply(state.student.variables, images, **training)[0][0], axis=1)
    labels = t.argmax(1)
    np.testing.assert_array_equal(metrics["new_counts"], np.bincount(labels, minlength=CLASSES))
    agreed = np.bincount(labels[said == labels], minlength=CLASSES)
    assert 0 < agreed.sum() < BATCH
    np.testing.assert_array_equal(metrics["agreed_counts"], agreed)


def test_schedule_starts_after_the_warm_up_and_runs_over_its_own_length():
    rates = [float(student_learning_rate(SETUP, epoch)) for epoch in range(tiny.WARMUP + 11)]
    want = 2e-4 + (0.05 - 2e-4) * (1 + np.cos(np.pi * np.arange(11) / 10)) / 2
    np.testing.assert_allclose(rates, [0.05] * tiny.WARMUP + want.tolist(), rtol=1e-4)
    teacher, state = networks()
    step = lambda epoch: tiny.learn(state.replace(epoch=jnp.int32(epoch)), teacher, request("pf"), noise(0))[0]
    early, late = (jax.tree.map(jnp.subtract, step(at).student.params, state.student.params) for at in (1, 6))
    assert_close(late, jax.tree.map(lambda m: want[5] / want[0] * m, early), rtol=1e-3, of_scale=1e-4)
