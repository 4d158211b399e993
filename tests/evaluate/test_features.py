"""Features of all depths, their order, and linear CKA by hand."""

import jax
import numpy as np
import pytest

from ispf_jax.classifier import Network
from ispf_jax.errors import UserError
from ispf_jax.evaluate.features import PENULTIMATE, extract, layer_names, linear_cka
from ispf_jax.models import build_classifier
from tests.evaluate.conftest import NETWORK, TINY, fresh


def test_layers_come_in_network_order():
    allcnn = build_classifier("allcnn", 4, 0.05)
    assert layer_names(Network(allcnn, (8, 8, 1), (0.5,), (0.5,))) == (*(f"bn{i}" for i in range(1, 9)), PENULTIMATE)
    resnet = build_classifier("resnet18", 3, 0.05)
    names = layer_names(Network(resnet, (8, 8, 3), (0.5,), (0.5,)))
    assert names[:3] == ("bn_stem", "stage1_block1/bn1", "stage1_block1/bn2")
    assert names[5:8] == ("stage2_block1/bn1", "stage2_block1/bn2", "stage2_block1/bn_shortcut")
    assert names[-2:] == ("stage4_block2/bn2", PENULTIMATE) and len(names) == 1 + 16 + 3 + 1


def test_features_are_those_of_a_plain_pass(world):
    images = world.test_images[:21]  # more than a batch, and no multiple of it
    found = extract(NETWORK, world.original, images, ["bn2", "bn3", PENULTIMATE], batch_size=16)
    logits, penultimate = NETWORK.module.apply(world.original, NETWORK.normalise(images))
    np.testing.assert_allclose(found.logits, logits, atol=1e-4)
    np.testing.assert_allclose(found.layers[PENULTIMATE], penultimate, atol=1e-5)
    np.testing.assert_allclose(found.layers["bn3"], penultimate, atol=1e-5)
    assert list(found.layers) == ["bn2", "bn3", PENULTIMATE] and found.layers["bn2"].shape == (21, 8)


def test_a_layers_feature_is_the_rectified_output_averaged():
    variables = fresh(TINY, 0)
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1)).astype(np.uint8)
    kernel = np.asarray(variables["params"]["conv1"]["kernel"])
    x = np.pad(np.asarray(TINY.normalise(images)), ((0, 0), (1, 1), (1, 1), (0, 0)))[..., 0]
    maps = sum(x[:, i : i + 8, j : j + 8, None] * kernel[i, j, 0] for i in range(3) for j in range(3))
    expected = np.maximum(maps / np.sqrt(1 + 1e-5), 0).mean(axis=(1, 2))
    np.testing.assert_allclose(extract(TINY, variables, images).layers["bn1"], expected, atol=1e-5)


def test_cka_by_hand():
    x, y = np.array([[1.0], [-1.0], [0.0]]), np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    # X^T Y = (1, -1), ||.||^2 = 2; X^T X = 2; Y^T Y = ((2, 1), (1, 2)), norm sqrt 10.
    assert linear_cka(x, y) == pytest.approx(2 / (2 * np.sqrt(10)))


def test_cka_ignores_rotation_scale_and_shift_and_is_symmetric():
    rng = np.random.default_rng(0)
    x, other = rng.normal(size=(50, 4)), rng.normal(size=(50, 6))
    rotation, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    assert linear_cka(x, 3 * x @ rotation + 7) == pytest.approx(1)
    assert linear_cka(x, other) == pytest.approx(linear_cka(other, x)) and linear_cka(x, other) < 0.3


def test_cka_of_degenerate_features():
    x = np.random.default_rng(0).normal(size=(5, 2))
    assert linear_cka(x, np.ones((5, 3))) is None and linear_cka(np.zeros((5, 1)), x) is None
    assert linear_cka(np.full((5, 3), 0.1), x) is None


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_diverged_model_is_named(bad):
    """The first class would win every comparison of NaN logits, and its accuracy would look like a number."""
    diverged = jax.tree.map(lambda x: np.full_like(x, bad), fresh(TINY, 2))
    images = np.zeros((3, 8, 8, 1), np.uint8)
    with pytest.raises(UserError, match="12 of 12 logits or features of gkt are NaN or infinite"):
        extract(TINY, diverged, images, name="gkt")
    with pytest.raises(UserError, match="there are no logits"):
        extract(TINY, diverged, images[:0])
