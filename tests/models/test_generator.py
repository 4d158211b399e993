"""The generator for any image size and number of channels."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ispf_jax.models import Generator, init_variables

LATENT = 12
SIZES = [((28, 28), 1), ((30, 30), 3), ((16, 16), 1), ((9, 14), 2)]


def shapes(module):
    return jax.eval_shape(partial(init_variables, module, example_shape=(1, LATENT)), jax.random.key(0))


@pytest.mark.parametrize("image_size, channels", [*SIZES, ((32, 32), 3)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_any_size_and_number_of_channels(image_size, channels, dtype):
    module = Generator(image_size, channels, width=0.0625, dtype=dtype)
    images = jax.eval_shape(module.apply, shapes(module), jax.ShapeDtypeStruct((5, LATENT), jnp.float32))
    assert images.shape == (5, *image_size, channels) and images.dtype == jnp.float32


def test_parameters_of_the_full_network():
    """Linear 256 -> 256 * 8 * 8, convolutions 256 -> 128 -> 64 without and 64 -> 3 with bias, three batch norms."""
    module = Generator((32, 32), 3)
    variables = jax.eval_shape(partial(init_variables, module, example_shape=(1, 256)), jax.random.key(0))
    linear, convolutions = (256 + 1) * 256 * 64, 9 * (256 * 128 + 128 * 64 + 64 * 3) + 3
    norms = 2 * (256 + 128 + 64)
    assert sum(p.size for p in jax.tree.leaves(variables["params"])) == linear + convolutions + norms == 4_581_955
    assert set(variables["batch_stats"]) == {"bn0", "bn1", "bn2"}


@pytest.fixture(scope="module")
def example():
    """A generator in general position: images that are not grey all over."""
    module = Generator((10, 7), 2, width=0.0625)
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        return np.ones(leaf.shape) if path[-1].key in ("var", "scale") else 0.3 * rng.standard_normal(leaf.shape)

    variables = jax.tree.map(np.float32, jax.tree.map_with_path(draw, shapes(module)))
    z = rng.standard_normal((6, LATENT)).astype(np.float32)
    return module, variables, z


@partial(jax.jit, static_argnums=(0, 3))
def generate(module, variables, z, train):
    return module.apply(variables, z, train=train, mutable=["batch_stats"])


def test_values_lie_between_0_and_1(example):
    for train in (False, True):
        images, _ = generate(*example, train)
        assert images.min() >= 0 and images.max() <= 1
        assert images.min() < 0.3 and images.max() > 0.7


def by_hand(variables, z):
    """Eval mode with stock operations, for images of 10x7 cut from 12x8."""
    params, stats = variables["params"], variables["batch_stats"]

    def norm(x, name):
        return (x - stats[name]["mean"]) / jnp.sqrt(stats[name]["var"] + 1e-5) * params[name]["scale"] + params[name][
            "bias"
        ]

    def convolve(x, name):
        return lax.conv_general_dilated(
            x, params[name]["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    x = (z @ params["project"]["kernel"] + params["project"]["bias"]).reshape(-1, 3, 2, 16)
    x = norm(x, "bn0")
    for i in (1, 2):
        x = jax.image.resize(x, (len(z), 2 * x.shape[1], 2 * x.shape[2], x.shape[3]), "nearest")
        x = norm(convolve(x, f"conv{i}"), f"bn{i}")
        x = jnp.where(x > 0, x, 0.2 * x)
    return 1 / (1 + jnp.exp(-(convolve(x, "conv3") + params["conv3"]["bias"])))[:, :10, :7]


def test_forward_pass_is_the_one_written_by_hand(example):
    module, variables, z = example
    _, trained = generate(module, variables, z, True)
    variables = {**variables, **trained}  # statistics other than 0 and 1
    np.testing.assert_allclose(
        generate(module, variables, z, False)[0], jax.jit(by_hand)(variables, z), rtol=1e-4, atol=1e-5
    )


def test_only_train_mode_moves_the_statistics(example):
    module, variables, z = example
    _, same = generate(module, variables, z, False)
    jax.tree.map(np.testing.assert_array_equal, same["batch_stats"], variables["batch_stats"])
    _, new = generate(module, variables, z, True)
    project, old = variables["params"]["project"], variables["batch_stats"]["bn0"]["mean"]
    projected = (z @ project["kernel"] + project["bias"]).reshape(-1, 16)
    np.testing.assert_allclose(
        new["batch_stats"]["bn0"]["mean"], 0.9 * old + 0.1 * projected.mean(0), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(new["batch_stats"]["bn0"]["var"], 0.9 + 0.1 * projected.var(0, ddof=1), rtol=1e-4)
