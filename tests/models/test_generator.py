"""The generator for any image size and number of channels."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ispf_jax.models import Generator
from tests.tiny import shapes

LATENT = 12


@pytest.mark.parametrize(
    "image_size, channels",
    [((28, 28), 1), ((30, 30), 3), ((9, 14), 2), ((32, 32), 3), ((64, 64), 3), ((96, 128), 3), ((224, 224), 3)],
)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_any_size_and_number_of_channels(image_size, channels, dtype):
    module = Generator(image_size, channels, width=0.0625, dtype=dtype)
    images = jax.eval_shape(module.apply, shapes(module, LATENT), jax.ShapeDtypeStruct((5, LATENT), jnp.float32))
    assert images.shape == (5, *image_size, channels) and images.dtype == jnp.float32


def test_parameters_of_the_full_network():
    """Linear 256 -> 256 * 8 * 8, convolutions 256 -> 128 -> 64 without and 64 -> 3 with bias, three batch norms."""
    variables = shapes(Generator((32, 32), 3), 256)
    linear, convolutions = (256 + 1) * 256 * 64, 9 * (256 * 128 + 128 * 64 + 64 * 3) + 3
    norms = 2 * (256 + 128 + 64)
    assert sum(p.size for p in jax.tree.leaves(variables["params"])) == linear + convolutions + norms == 4_581_955
    assert set(variables["batch_stats"]) == {"bn0", "bn1", "bn2"}


@pytest.mark.parametrize(
    "size, first, filters", [(64, 8, (512, 256, 128, 64)), (224, 7, (512, 512, 512, 256, 128, 64))]
)
def test_larger_images_double_more_often(size, first, filters):
    params = shapes(Generator((size, size), 3), 256)["params"]
    assert params["project"]["kernel"].shape == (256, first**2 * filters[0])
    pairs = [params[f"conv{i}"]["kernel"].shape[2:] for i in range(1, len(filters) + 1)]
    assert pairs == list(zip(filters, (*filters[1:], 3)))


MODULE = Generator((10, 7), 2, width=0.0625)
Z = np.random.default_rng(1).standard_normal((6, LATENT)).astype(np.float32)


@partial(jax.jit, static_argnums=1)
def generate(variables, train):
    return MODULE.apply(variables, Z, train=train, mutable=["batch_stats"])


def by_hand(variables):
    """Eval mode with stock operations, for images of 10x7 cut from 12x8; also what comes out of the linear layer."""
    params, stats = variables["params"], variables["batch_stats"]

    def norm(x, name):
        scale, bias = params[name]["scale"], params[name]["bias"]
        return (x - stats[name]["mean"]) / jnp.sqrt(stats[name]["var"] + 1e-5) * scale + bias

    def convolve(x, name):
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, params[name]["kernel"], (1, 1), "SAME", dimension_numbers=numbers)

    projected = (Z @ params["project"]["kernel"] + params["project"]["bias"]).reshape(-1, 3, 2, 16)
    x = norm(projected, "bn0")
    for i in (1, 2):
        x = norm(convolve(x.repeat(2, 1).repeat(2, 2), f"conv{i}"), f"bn{i}")
        x = jnp.where(x > 0, x, 0.2 * x)
    return 1 / (1 + jnp.exp(-(convolve(x, "conv3") + params["conv3"]["bias"])))[:, :10, :7], projected


def test_forward_pass_and_statistics():
    """A generator in general position: images that are not grey all over. Only train mode moves the statistics."""
    rng = np.random.default_rng(0)
    ones = ("var", "scale")
    draw = lambda path, leaf: (
        np.ones(leaf.shape) if path[-1].key in ones else 0.3 * rng.standard_normal(leaf.shape)
    ).astype(np.float32)
    variables = jax.tree.map_with_path(draw, shapes(MODULE, LATENT))
    trained, new = generate(variables, True)
    variables_after = {**variables, **new}  # statistics other than 0 and 1
    images, same = generate(variables_after, False)
    for found in (trained, images):
        assert 0 <= found.min() < 0.3 and 0.7 < found.max() <= 1
    want, projected = jax.jit(by_hand)(variables_after)
    np.testing.assert_allclose(images, want, rtol=1e-4, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, same["batch_stats"], new["batch_stats"])
    old, found, rows = variables["batch_stats"]["bn0"], new["batch_stats"]["bn0"], projected.reshape(-1, 16)
    np.testing.assert_allclose(found["mean"], 0.9 * old["mean"] + 0.1 * rows.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["var"], 0.9 * old["var"] + 0.1 * rows.var(0, ddof=1), rtol=1e-4)
