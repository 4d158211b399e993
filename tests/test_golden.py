"""Losses, filters and whole steps against the recorded numbers of the authors' PyTorch program (`golden/README.md`).

Tolerances are those that an independent JAX implementation reached, stated there: generator losses 1e-5 relative, gradient norms
4e-4 relative, fixed-generator loss 3e-6 relative and probe logits 1e-3 absolute, teacher probe logits 2e-5 absolute; after a
generator update about 1 %.

The record is float32 itself, made with direct convolutions: in float64 the gradient of the generator's last bias is 4.1e-4 to 4.4e-4 away from it,
and a loss of GKT and IS 3.2e-6, both more than the tolerance. So float32 is also held against float64, more closely than against the record. Direct
convolutions are held against all of the record; the package's default, with Winograd's convolutions for wide layers, in these numbers against float64.
"""

from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ispf_jax import losses as objectives
from ispf_jax import methods, optim
from ispf_jax.distill import DistillSetup, LossWeights, generator_step, student_step, unlearning
from ispf_jax.models import Generator, build_classifier, init_variables
from ispf_jax.ops import convolutions, describe, onednn
from ispf_jax.state import DistillState, new_net
from tests.torch_names import from_torch, initial_tensors, to_torch

GOLDEN = Path(__file__).parent / "golden"
PROGRAM_NAMES = {"dfkd": "None", "blockf": "BlockF", "gkt": "GKT", "is": "IS_GKT", "pf": "PF", "ispf": "IS_PF"}
FORGET_SETS = ("3", "1-7")
GRADIENTS_OFF, LOSSES_OFF = (
    ("conv_blocks.9.bias",),
    ("gkt", "is"),
)  # where float64 is not within the tolerance of the record
BATCH = 16
DIRECT = "xla" if onednn.problem() else "onednn"
by_default_and_directly = pytest.mark.parametrize("implementation", ["auto", DIRECT], indirect=True)


@pytest.fixture(autouse=True)
def implementation(request):
    """The convolutions: the package's default, or what the test asks for."""
    chosen = getattr(request, "param", "auto")
    with convolutions(chosen):
        yield chosen


@cache
def load(name):
    with np.load(GOLDEN / f"{name}_public.npz") as file:
        return dict(file)


def mask_of(forget):
    return jnp.zeros(10).at[jnp.array([int(c) for c in forget.split("-")])].set(1.0)


def test_losses():
    g = load("losses")
    t, s = g["teacher_logits"], g["student_logits"]
    np.testing.assert_allclose(jnp.mean(objectives.kl_divergence(t, s)), g["kl_batchmean"], rtol=1e-5)
    np.testing.assert_allclose(jnp.mean(objectives.one_hot(t)), g["one_hot"], rtol=1e-5)
    balance = objectives.class_balance(jnp.mean(jax.nn.softmax(t), axis=0))
    np.testing.assert_allclose(balance, g["balance"], rtol=1e-5)


@pytest.mark.parametrize("forget", FORGET_SETS)
def test_inhibited_loss_and_filters(forget):
    g = load("losses")
    t, s = g["teacher_logits"], g["student_logits"]
    inhibited = jnp.mean(objectives.adversarial(t, s, mask_of(forget), inhibit=1.0))
    np.testing.assert_allclose(inhibited, g[f"inhibited_adv/{forget}"], rtol=1e-5)
    np.testing.assert_array_equal(methods.block_keep(t, mask_of(forget)), g[f"block_keep/{forget}"])
    for threshold in (0.01, 0.001):
        kept = methods.prefilter_keep(t, mask_of(forget), threshold)
        np.testing.assert_array_equal(kept, g[f"prefilter_keep/{forget}/{threshold}"])


@cache
def make_setup(generator_lr, dtype):
    return DistillSetup(
        classifier=build_classifier("allcnn", 10, dtype=dtype),
        generator=Generator((32, 32), 3, dtype=jnp.dtype(dtype)),
        student_optimizer=optim.sgd(0.9, 1e-4),
        generator_optimizer=optim.adam(0.5, 0.999),
        batch_size=BATCH,
        latent_dim=256,
        loops=1,
        generator_steps=1,
        student_steps=2,
        warmup_epochs=0,
        student_lr=0.05,
        student_lr_final=2e-4,
        cosine_epochs=200,
        generator_lr=generator_lr,
        weights=LossWeights(),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )


@cache
def networks(prefix):
    setup = make_setup(1e-3, "float32")
    examples = {"generator": (1, 256), "teacher": (1, 32, 32, 3), "student": (1, 32, 32, 3)}
    made = {}
    for network, example in examples.items():
        module = setup.generator if network == "generator" else setup.classifier
        template = jax.eval_shape(partial(init_variables, module, example_shape=example), jax.random.key(0))
        shapes = {k: v.shape for k, v in to_torch(network, jax.tree.map(lambda s: np.empty(s.shape), template)).items()}
        made[network] = from_torch(network, initial_tensors(network, shapes, load("distill"), prefix))
    return made


@partial(jax.jit, static_argnums=(0, 1))
def recorded_run(setup, made_with, state, teacher, request, noises):
    """One generator step and two student steps, and what the file holds about them; `made_with` tells programs apart."""
    state, generator_metrics = generator_step(setup, state, teacher, request, noises[0])
    state, _ = student_step(setup, state, teacher, request, noises[1])
    state, student_metrics = student_step(setup, state, teacher, request, noises[2])
    return state, generator_metrics, student_metrics


@partial(jax.jit, static_argnums=(0, 1))
def probe(setup, made_with, variables, images):
    return setup.classifier.apply(variables, images)[0]


def program(dtype):
    """What tells programs apart that are otherwise the same; float64 ones are, whatever was chosen."""
    return describe() if dtype == "float32" else dtype


def run(method, generator_lr, dtype="float32", noise_seed=1000):
    prefix = f"allcnn.{PROGRAM_NAMES[method]}.3"
    setup, nets = make_setup(generator_lr, dtype), jax.tree.map(lambda v: jnp.asarray(v, dtype), networks(prefix))
    state = DistillState(
        new_net(nets["student"], setup.student_optimizer),
        new_net(nets["generator"], setup.generator_optimizer),
        jax.random.key(0),
        jnp.int32(0),
    )
    request = unlearning(methods.METHODS[method], [3], 10, threshold=0.11, thresholded_post_filter=True)
    noises = [np.random.default_rng(noise_seed + i).standard_normal((BATCH, 256)).astype(np.float32) for i in range(3)]
    state, *metrics = recorded_run(
        setup, program(dtype), state, nets["teacher"], request, jnp.asarray(np.stack(noises), dtype)
    )
    return setup, state, nets["teacher"], *metrics


def probe_images():
    return jnp.asarray(np.random.default_rng(1099).standard_normal((8, 3, 32, 32)), jnp.float32).transpose(0, 2, 3, 1)


def assert_summaries(tree_as_torch, golden_prefix, norm_rtol, head_atol_of_scale, but=()):
    """Norms relative, first entries absolute in units of the tensor's root mean square."""
    g, compared = load("distill"), 0
    for name, value in tree_as_torch.items():
        if name in but:
            continue
        norm = g[f"{golden_prefix}/{name}#norm"]
        if norm < 1e-4 * np.sqrt(
            value.size
        ):  # a gradient that vanishes in exact arithmetic (a bias before a batch norm)
            continue
        np.testing.assert_allclose(np.linalg.norm(np.asarray(value, np.float64)), norm, rtol=norm_rtol, err_msg=name)
        head = g[f"{golden_prefix}/{name}#head"]
        scale = norm / np.sqrt(value.size)
        np.testing.assert_allclose(
            value.ravel()[: head.size], head, rtol=1e-3, atol=head_atol_of_scale * scale, err_msg=name
        )
        compared += 1
    return compared


@by_default_and_directly
@pytest.mark.parametrize("method", PROGRAM_NAMES)
def test_generator_step(method, implementation):
    setup, state, teacher, generator_metrics, _ = run(method, 1e-3)
    g, prefix = load("distill"), f"allcnn.{PROGRAM_NAMES[method]}.3"
    for term in ("bn", "oh", "adv", "balance", "act", "total"):
        np.testing.assert_allclose(
            generator_metrics[f"generator/{term}"], g[f"{prefix}/generator_loss/{term}"], rtol=1e-5, err_msg=term
        )
    np.testing.assert_allclose(
        probe(setup, describe(), teacher, probe_images()), g[f"{prefix}/teacher_probe_logits"], atol=2e-5
    )
    # The first moment after Adam's first step is (1 - b1) times the gradient.
    gradient = jax.tree.map(lambda m: 2 * m, state.generator.opt_state.mu)
    off = GRADIENTS_OFF if implementation == "auto" else ()  # see test_generator_step_is_close_to_float64
    assert (
        assert_summaries(to_torch("generator", {"params": gradient}), f"{prefix}/generator_grad", 4e-4, 1e-2, off) >= 8
    )
    after = to_torch("generator", state.generator.variables)
    assert assert_summaries(after, f"{prefix}/generator_after", 1e-2, 1e-2) >= 14


@by_default_and_directly
@pytest.mark.parametrize("method", PROGRAM_NAMES)
def test_student_steps_with_the_generator_left_alone(method, implementation):
    setup, state, _, _, student_metrics = run(method, 0.0)
    g, prefix = load("distill"), f"allcnn.{PROGRAM_NAMES[method]}.3/fixed_generator"
    off = implementation == "auto" and method in LOSSES_OFF
    loss = student_loss_in_float64(method) if off else g[f"{prefix}/last_loss"]
    np.testing.assert_allclose(
        student_metrics["student/loss"], loss, rtol=3e-6, atol=3e-8
    )  # atol: two units in the last place of 0.16
    assert student_metrics["kept"] == len(g[f"{prefix}/last_target_logits"])
    np.testing.assert_allclose(
        probe(setup, describe(), state.student.variables, probe_images()), g[f"{prefix}/probe_logits"], atol=1e-3
    )
    student = to_torch("student", state.student.variables)
    assert assert_summaries(student, f"{prefix}/student_after", 1e-4, 1e-3) >= 42


@by_default_and_directly
@pytest.mark.parametrize("method", PROGRAM_NAMES)
def test_student_steps_after_a_generator_step(method):
    setup, state, _, _, student_metrics = run(method, 1e-3)
    g, prefix = load("distill"), f"allcnn.{PROGRAM_NAMES[method]}.3"
    np.testing.assert_allclose(student_metrics["student/loss"], g[f"{prefix}/last_loss"], rtol=1e-2)
    assert student_metrics["kept"] == len(g[f"{prefix}/last_target_logits"])


@by_default_and_directly
@pytest.mark.parametrize("with_onednn", [True, False])
def test_teacher_logits_are_close_to_float64(implementation, with_onednn, monkeypatch):
    """With images enough for Winograd's in all wide layers; beside XLA's direct ones 96 channels are wide."""
    if not with_onednn:
        monkeypatch.setattr(onednn, "available", lambda: False)
    images = jnp.concatenate([probe_images(), probe_images()[:, ::-1]])

    def logits(dtype):
        teacher = jax.tree.map(lambda v: jnp.asarray(v, dtype), networks("allcnn.IS_PF.3")["teacher"])
        return np.asarray(probe(make_setup(1e-3, dtype), program(dtype), teacher, images.astype(dtype)), np.float64)

    with jax.enable_x64(True):
        exact = logits("float64")
    difference = logits("float32") - exact
    assert 0 < np.sqrt(np.mean(np.square(difference))) < 1e-5


@by_default_and_directly
@pytest.mark.parametrize("method", PROGRAM_NAMES)
def test_generator_step_is_close_to_float64(method, implementation):
    prefix = f"allcnn.{PROGRAM_NAMES[method]}.3/generator_grad/"
    recorded = {key.removeprefix(prefix): norm for key, norm in load("distill").items() if key.startswith(prefix)}

    def results(dtype):
        _, state, _, losses, _ = run(method, 1e-3, dtype)
        gradient = to_torch("generator", {"params": state.generator.opt_state.mu})
        norms = {  # but for those that vanish in exact arithmetic
            name: np.linalg.norm(np.asarray(value, np.float64))
            for name, value in gradient.items()
            if recorded[f"{name}#norm"] > 1e-4 * np.sqrt(value.size)
        }
        return norms, np.asarray(losses["generator/total"])

    with jax.enable_x64(True):
        norms, loss = results("float64")
    assert loss.dtype == np.float64
    single_norms, single_loss = results("float32")
    assert len(norms) >= 8
    for name, norm in norms.items():
        np.testing.assert_allclose(single_norms[name], norm, rtol=2e-4, err_msg=name)
    np.testing.assert_allclose(single_loss, loss, rtol=1e-6)


@cache
def student_loss_in_float64(method, noise_seed=1000):
    """Of the second student step, with the generator left alone."""
    with jax.enable_x64(True):
        loss = np.asarray(run(method, 0.0, "float64", noise_seed)[-1]["student/loss"])
    assert loss.dtype == np.float64
    return float(loss)


def student_loss_error(method, noise_seed=1000):
    """Relative, of float32."""
    return abs(
        float(run(method, 0.0, noise_seed=noise_seed)[-1]["student/loss"]) / student_loss_in_float64(method, noise_seed)
        - 1
    )


@pytest.mark.parametrize("method", PROGRAM_NAMES)
def test_where_the_record_is_not_within_its_tolerance_of_float64(method):
    g, prefix = load("distill"), f"allcnn.{PROGRAM_NAMES[method]}.3"
    off = (
        abs(student_loss_in_float64(method) - g[f"{prefix}/fixed_generator/last_loss"])
        > 3e-6 * g[f"{prefix}/fixed_generator/last_loss"] + 3e-8
    )
    assert off == (method in LOSSES_OFF)
    with jax.enable_x64(True):
        gradient = jax.tree.map(lambda m: 2 * m, run(method, 1e-3, "float64")[1].generator.opt_state.mu)
    gradient = to_torch("generator", {"params": gradient})
    for name in GRADIENTS_OFF:
        norm = g[f"{prefix}/generator_grad/{name}#norm"]
        assert abs(np.linalg.norm(gradient.pop(name)) / norm - 1) > 4e-4
    assert assert_summaries(gradient, f"{prefix}/generator_grad", 4e-4, 1e-2) >= 7


@pytest.mark.parametrize("implementation", [DIRECT], indirect=True)
@pytest.mark.parametrize("method", PROGRAM_NAMES)
def test_recorded_student_loss_is_close_to_float64(method):
    assert 0 < student_loss_error(method) < 3e-6


@by_default_and_directly
def test_student_losses_are_close_to_float64():
    """The rounding of the step before moves a single loss by anything up to 1e-5, whatever convolutions; half of several are as close as the recorded one."""
    errors = [student_loss_error(method, seed) for method in ("gkt", "ispf") for seed in range(1000, 1050, 10)]
    assert 0 < np.median(errors) < 3e-6 and max(errors) < 3e-5
