"""The two classifiers: shapes, sizes, and ResNet18 against a forward pass written with stock operations."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ispf_jax.models import CLASSIFIERS, AllCNN, ResNet18, build_classifier, init_variables
from ispf_jax.models.layers import MOMENTS, torch_uniform


def shapes(module, size=8, channels=3):
    """Shapes of the variables, without computing anything."""
    return jax.eval_shape(partial(init_variables, module, example_shape=(1, size, size, channels)), jax.random.key(0))


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def batch_norms(variables):
    return sum(path[-1].key == "mean" for path, _ in jax.tree.leaves_with_path(variables["batch_stats"]))


def test_the_table_of_names():
    assert set(CLASSIFIERS) == {"allcnn", "resnet18"}
    model = build_classifier("resnet18", 100, 0.5, "bfloat16")
    assert isinstance(model, ResNet18) and (model.num_classes, model.width, model.dtype) == (100, 0.5, jnp.bfloat16)
    assert build_classifier("allcnn", 10) == AllCNN(10, 1.0, jnp.dtype("float32"))


def test_allcnn_has_its_known_number_of_parameters():
    variables = shapes(AllCNN(10))
    convolutions = 9 * (3 * 96 + 96 * 96 + 96 * 192 + 4 * 192 * 192) + 192 * 192
    norms, head = 2 * (2 * 96 + 6 * 192), 192 * 10 + 10
    assert count(variables["params"]) == convolutions + norms + head == 1_620_010
    assert batch_norms(variables) == 8


def test_resnet18_has_its_known_number_of_parameters():
    """11,173,962 is also what the widely used PyTorch implementation for CIFAR has."""
    variables = shapes(ResNet18(10), size=32)
    convolutions, norms = 9 * 3 * 64 + 9 * 4 * 64 * 64, 2 * 5 * 64
    for filters in (128, 256, 512):
        convolutions += 9 * (filters // 2 * filters + 3 * filters * filters) + filters // 2 * filters
        norms += 2 * 5 * filters
    assert count(variables["params"]) == convolutions + norms + 512 * 10 + 10 == 11_173_962
    assert batch_norms(variables) == 20


@pytest.mark.parametrize("name, features", [("allcnn", 192), ("resnet18", 512)])
@pytest.mark.parametrize("width", [1.0, 0.125])
@pytest.mark.parametrize("size, channels, dtype", [(32, 3, "float32"), (28, 1, "float32"), (9, 3, "bfloat16")])
def test_output_shapes_and_types(name, features, width, size, channels, dtype):
    module = build_classifier(name, 7, width, dtype)
    variables = shapes(module, size, channels)
    images = jax.ShapeDtypeStruct((4, size, size, channels), jnp.float32)
    logits, found = jax.eval_shape(module.apply, variables, images)
    assert logits.shape == (4, 7) and found.shape == (4, features * width)
    assert {leaf.dtype for leaf in jax.tree.leaves((variables, logits, found))} == {jnp.dtype("float32")}


@pytest.mark.parametrize("name, norms", [("allcnn", 8), ("resnet18", 20)])
def test_moments_mirror_the_batch_statistics(name, norms):
    """What batch-norm matching compares, leaf by leaf."""
    module = build_classifier(name, 10, 0.125)
    variables = shapes(module)
    apply = partial(module.apply, mutable=[MOMENTS])
    _, left = jax.eval_shape(apply, variables, jax.ShapeDtypeStruct((4, 8, 8, 3), jnp.float32))
    assert jax.tree.map(jnp.shape, left[MOMENTS]) == jax.tree.map(jnp.shape, variables["batch_stats"])
    assert batch_norms({"batch_stats": left[MOMENTS]}) == norms


def test_widths_never_round_to_nothing():
    assert shapes(AllCNN(10, width=1e-3))["params"]["conv1"]["kernel"].shape == (3, 3, 3, 1)
    assert shapes(ResNet18(10, width=1e-3))["params"]["conv_stem"]["kernel"].shape == (3, 3, 3, 1)


def random_variables(module, size, seed=0):
    """Every parameter and statistic in general position, as after training."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        if path[-1].key == "kernel":
            return rng.standard_normal(leaf.shape) / np.sqrt(leaf.size / leaf.shape[-1])
        if path[-1].key in ("var", "scale"):
            return rng.uniform(0.5, 1.5, leaf.shape)
        return 0.3 * rng.standard_normal(leaf.shape)

    return jax.tree.map(np.float32, jax.tree.map_with_path(draw, shapes(module, size)))


def stock_conv(x, kernel, stride):
    pad = [(kernel.shape[0] // 2,) * 2] * 2
    return lax.conv_general_dilated(x, kernel, (stride, stride), pad, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def stock_norm(x, params, stats):
    return (x - stats["mean"]) / jnp.sqrt(stats["var"] + 1e-5) * params["scale"] + params["bias"]


def head(x, params):
    features = x.mean((1, 2))
    return features @ params["kernel"] + params["bias"], features


def resnet_by_hand(variables, x):
    """He et al. 2016 with the 3x3 stem: 64-64-128-256-512, shortcuts projected where a stage begins with stride 2."""
    params, stats = variables["params"], variables["batch_stats"]
    x = jax.nn.relu(stock_norm(stock_conv(x, params["conv_stem"]["kernel"], 1), params["bn_stem"], stats["bn_stem"]))
    for stage in (1, 2, 3, 4):
        for block in (1, 2):
            name = f"stage{stage}_block{block}"
            p, s = params[name], stats[name]
            stride = 2 if stage > 1 and block == 1 else 1
            h = jax.nn.relu(stock_norm(stock_conv(x, p["conv1"]["kernel"], stride), p["bn1"], s["bn1"]))
            h = stock_norm(stock_conv(h, p["conv2"]["kernel"], 1), p["bn2"], s["bn2"])
            if stride == 2:
                x = stock_norm(stock_conv(x, p["conv_shortcut"]["kernel"], 2), p["bn_shortcut"], s["bn_shortcut"])
            x = jax.nn.relu(h + x)
    return head(x, params["classifier"])


def allcnn_by_hand(variables, x):
    params, stats = variables["params"], variables["batch_stats"]
    for i, stride in enumerate((1, 1, 2, 1, 1, 2, 1, 1), start=1):
        x = stock_conv(x, params[f"conv{i}"]["kernel"], stride)
        x = jax.nn.relu(stock_norm(x, params[f"bn{i}"], stats[f"bn{i}"]))
    return head(x, params["classifier"])


@pytest.mark.parametrize(
    "module, by_hand", [(AllCNN(10, 0.0625), allcnn_by_hand), (ResNet18(10, 0.0625), resnet_by_hand)]
)
def test_forward_pass_is_the_one_written_by_hand(module, by_hand):
    variables = random_variables(module, 9)
    x = np.random.default_rng(1).standard_normal((3, 9, 9, 3)).astype(np.float32)
    (logits, features), want = jax.jit(lambda v, x: (module.apply(v, x), by_hand(v, x)))(variables, x)
    np.testing.assert_allclose(features, want[1], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(logits, want[0], rtol=1e-4, atol=1e-4)
    assert np.std(logits, axis=0).min() > 1e-3  # the images are told apart


def test_initial_values_are_uniform_within_pytorchs_bound():
    """U(-b, b) with b = fan_in^-1/2 has the standard deviation b / sqrt(3)."""
    values = torch_uniform(25)(jax.random.key(0), (100, 100))
    assert values.min() >= -0.2 and values.max() <= 0.2
    assert values.min() < -0.199 and values.max() > 0.199
    np.testing.assert_allclose(np.std(values), 0.2 / np.sqrt(3), rtol=0.02)
    np.testing.assert_allclose(np.mean(values), 0, atol=5e-3)


def test_every_layer_gets_its_own_bound():
    key = jax.random.key(0, impl="rbg")  # compiles in a fraction of the time
    params = jax.jit(partial(init_variables, AllCNN(10, 0.25), example_shape=(1, 8, 8, 3)))(key)["params"]
    for name, kernel in ((name, layer["kernel"]) for name, layer in params.items() if "kernel" in layer):
        bound = (kernel.size / kernel.shape[-1]) ** -0.5
        assert 0.95 * bound < np.abs(kernel).max() <= bound, name
    bias = np.abs(params["classifier"]["bias"])
    assert 0.5 * 48**-0.5 < bias.max() <= 48**-0.5
