"""The two classifiers: shapes, sizes, and both against a forward pass written with stock operations."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ispf_jax.classifier import init_variables
from ispf_jax.models import build_classifier
from ispf_jax.models.layers import MOMENTS
from tests.tiny import general_position, shapes


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_allcnn_has_its_known_number_of_parameters():
    convolutions = 9 * (3 * 96 + 96 * 96 + 96 * 192 + 4 * 192 * 192) + 192 * 192
    norms, head = 2 * (2 * 96 + 6 * 192), 192 * 10 + 10
    assert count(shapes(build_classifier("allcnn", 10), 8, 8, 3)["params"]) == convolutions + norms + head == 1_620_010


def test_resnet18_has_its_known_number_of_parameters():
    """11,173,962 is also what the widely used PyTorch implementation for CIFAR has."""
    convolutions, norms = 9 * 3 * 64 + 9 * 4 * 64 * 64, 2 * 5 * 64
    for filters in (128, 256, 512):
        convolutions += 9 * (filters // 2 * filters + 3 * filters * filters) + filters // 2 * filters
        norms += 2 * 5 * filters
    assert (
        count(shapes(build_classifier("resnet18", 10), 32, 32, 3)["params"])
        == convolutions + norms + 512 * 10 + 10
        == 11_173_962
    )


@pytest.mark.parametrize("name, features, norms", [("allcnn", 192, 8), ("resnet18", 512, 20)])
@pytest.mark.parametrize("width", [1.0, 0.125])
@pytest.mark.parametrize("size, channels, dtype", [(32, 3, "float32"), (28, 1, "float32"), (9, 3, "bfloat16")])
def test_shapes_and_types(name, features, norms, width, size, channels, dtype):
    """Moments mirror the batch statistics: what batch-norm matching compares, leaf by leaf."""
    module = build_classifier(name, 7, width, dtype)
    variables = shapes(module, size, size, channels)
    images = jax.ShapeDtypeStruct((4, size, size, channels), jnp.float32)
    (logits, found), left = jax.eval_shape(partial(module.apply, mutable=[MOMENTS]), variables, images)
    assert logits.shape == (4, 7) and found.shape == (4, features * width)
    assert {leaf.dtype for leaf in jax.tree.leaves((variables, logits, found))} == {jnp.dtype("float32")}
    assert jax.tree.map(jnp.shape, left[MOMENTS]) == jax.tree.map(jnp.shape, variables["batch_stats"])
    assert len(jax.tree.leaves(left)) == 2 * norms


def test_widths_never_round_to_nothing():
    for module, first in (
        (build_classifier("allcnn", 10, 1e-3), "conv1"),
        (build_classifier("resnet18", 10, 1e-3), "conv_stem"),
    ):
        assert shapes(module, 8, 8, 3)["params"][first]["kernel"].shape == (3, 3, 3, 1)


def conv_norm(x, variables, kernel, norm, stride=1):
    params, stats = variables["params"], variables["batch_stats"][norm]
    kernel, pad = params[kernel]["kernel"], [(params[kernel]["kernel"].shape[0] // 2,) * 2] * 2
    x = lax.conv_general_dilated(x, kernel, (stride, stride), pad, dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return (x - stats["mean"]) / jnp.sqrt(stats["var"] + 1e-5) * params[norm]["scale"] + params[norm]["bias"]


def allcnn_by_hand(variables, x):
    for i, stride in enumerate((1, 1, 2, 1, 1, 2, 1, 1), start=1):
        x = jax.nn.relu(conv_norm(x, variables, f"conv{i}", f"bn{i}", stride))
    return x


def resnet_by_hand(variables, x):
    """He et al. 2016 with the 3x3 stem: 64-64-128-256-512, shortcuts projected where a stage begins with stride 2."""
    x = jax.nn.relu(conv_norm(x, variables, "conv_stem", "bn_stem"))
    for stage in (1, 2, 3, 4):
        for block in (1, 2):
            inside = {kind: tree[f"stage{stage}_block{block}"] for kind, tree in variables.items()}
            stride = 2 if stage > 1 and block == 1 else 1
            h = jax.nn.relu(conv_norm(x, inside, "conv1", "bn1", stride))
            if stride == 2:
                x = conv_norm(x, inside, "conv_shortcut", "bn_shortcut", 2)
            x = jax.nn.relu(conv_norm(h, inside, "conv2", "bn2") + x)
    return x


@pytest.mark.parametrize(
    "module, by_hand",
    [
        (build_classifier("allcnn", 10, 0.0625), allcnn_by_hand),
        (build_classifier("resnet18", 10, 0.0625), resnet_by_hand),
    ],
)
def test_forward_pass_is_the_one_written_by_hand(module, by_hand):
    variables = general_position(module, 9, 9, 3, seed=0)
    x = np.random.default_rng(1).standard_normal((3, 9, 9, 3)).astype(np.float32)
    (logits, features), want = jax.jit(lambda v, x: (module.apply(v, x), by_hand(v, x).mean((1, 2))))(variables, x)
    head = variables["params"]["classifier"]
    np.testing.assert_allclose(features, want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(logits, want @ head["kernel"] + head["bias"], rtol=1e-4, atol=1e-4)
    assert np.std(logits, axis=0).min() > 1e-3  # the images are told apart


def test_initial_values_are_uniform_within_pytorchs_bound_of_every_layer():
    """U(-b, b) with b = fan_in^-1/2, whose standard deviation is b / sqrt(3)."""
    key = jax.random.key(0, impl="rbg")  # compiles in a fraction of the time
    params = jax.jit(partial(init_variables, build_classifier("allcnn", 10, 0.25), example_shape=(1, 8, 8, 3)))(key)[
        "params"
    ]
    for name, kernel in ((name, layer["kernel"]) for name, layer in params.items() if "kernel" in layer):
        bound, error = (kernel.size / kernel.shape[-1]) ** -0.5, 3 / kernel.size**0.5
        for end in (-kernel.min(), kernel.max()):
            assert 0.95 * bound < end <= bound, name
        np.testing.assert_allclose(np.std(kernel), bound / np.sqrt(3), rtol=error, err_msg=name)
        np.testing.assert_allclose(np.mean(kernel), 0, atol=error * bound, err_msg=name)
    bias = np.abs(params["classifier"]["bias"])
    assert 0.5 * 48**-0.5 < bias.max() <= 48**-0.5
