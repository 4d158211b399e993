"""Modules that know nothing of this package against networks of this package with the same variables."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ispf_jax
from ispf_jax.distill import distill_epoch
from ispf_jax.models import adapt
from tests import tiny


class Stock(nn.Module):
    """`tiny.TinyNet` of Flax's layers alone, with a dropout that must not count."""

    @nn.compact
    def __call__(self, x, train: bool = True):
        for i, stride in enumerate((1, 2), start=1):
            x = nn.Conv(8, (3, 3), (stride, stride), [(1, 1), (1, 1)], use_bias=False, name=f"conv{i}")(x)
            x = nn.relu(nn.BatchNorm(not train, momentum=0.9, name=f"bn{i}")(x))
        x = nn.Dropout(0.5, deterministic=not train)(x.mean(axis=(1, 2)))
        return nn.Dense(tiny.CLASSES, name="classifier")(x)


class WithoutNorm(nn.Module):
    """Logits and something else; no batch norm, no argument for training, a hidden dense layer."""

    classes: int = 3

    @nn.compact
    def __call__(self, images):
        x = nn.relu(nn.Conv(4, (3, 3), 2)(images)).reshape(len(images), -1)
        return nn.Dense(self.classes)(nn.relu(nn.Dense(5)(x))), {"more": x}


def test_logits_features_and_variables_are_those_of_the_same_network_made_here():
    module, (teacher, _) = adapt(Stock(), (8, 8, 3)), tiny.networks()
    assert module.num_classes == tiny.CLASSES
    shapes = lambda m: jax.tree.map(jnp.shape, tiny.shapes(m, 8, 8, 3))
    assert shapes(module) == shapes(tiny.CLASSIFIER)
    images = np.random.default_rng(0).random((5, 8, 8, 3), np.float32)
    for got, want in zip(module.apply(teacher, images), tiny.CLASSIFIER.apply(teacher, images), strict=True):
        np.testing.assert_array_equal(got, want)
    np.testing.assert_allclose(Stock().apply(teacher, images, False), module.apply(teacher, images)[0], rtol=1e-4)


@pytest.mark.parametrize("method", ["ispf", "gkt"])
@pytest.mark.parametrize("count", [1, 8])
def test_an_epoch_is_that_of_the_same_network_made_here(method, count):
    network = dataclasses.replace(tiny.NETWORK, module=adapt(Stock(), (8, 8, 3)))
    setup, (teacher, state), ask = tiny.distill_setup(network), tiny.networks(), tiny.request(method)
    got = tiny.traced(distill_epoch, setup, count)[0](state, teacher, ask)
    tiny.assert_identical(got, tiny.run_epoch(state, ask, count=count))


def test_a_network_without_batch_norm_learns_and_unlearns():
    data = ispf_jax.data.load("synthetic", classes=3, image_size=8, channels=1, max_train=120, max_test=60)
    recipe = ispf_jax.Train(epochs=8, batch_size=32, decay_epochs=(6,), lr=0.1)
    teacher = ispf_jax.train(data, WithoutNorm(), config=recipe, devices=1, progress=False)
    assert (teacher(data.test.images).argmax(1) == data.test.labels).mean() > 0.9
    settings = ispf_jax.Distill(epochs=2, loops=2, student_steps=3, batch_size=8, generator_width=0.04)
    out = ispf_jax.unlearn(teacher, [1], config=settings, devices=1, progress=False)
    assert np.isfinite(out.classifier(data.test.images)).all()
    assert out.history[-1]["generator/bn"] == 0 and out.history[-1]["kept"] == 8
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), teacher.variables, out.classifier.variables)
    assert min(jax.tree.leaves(moved)) > 0
    logits, features = teacher.module.apply(teacher.variables, np.zeros((2, 8, 8, 1)))
    assert (logits.shape, features.shape) == ((2, 3), (2, 5))


def test_a_module_made_elsewhere_is_audited_with_its_head_found():
    data = ispf_jax.data.load("synthetic", classes=4, image_size=8, channels=1, max_train=200, max_test=80)
    recipe = ispf_jax.Train(epochs=8, batch_size=32, decay_epochs=(6,), lr=0.1)
    module = WithoutNorm(4)
    teacher = ispf_jax.train(data, module, config=recipe, devices=1, progress=False)
    assert teacher.network.head == ("Dense_0",)  # the outer one is made first
    settings = ispf_jax.Distill(epochs=2, loops=2, student_steps=3, batch_size=8, generator_width=0.04)
    out = ispf_jax.unlearn(teacher, [1], config=settings, devices=1, progress=False)
    wanted = {"metrics": ("accuracy", "features"), "synthetic_images": 64, "embedding_images": 0}
    result = ispf_jax.audit({"mine": out}, data, [1], original=teacher, **wanted)
    found = {(m.model, m.metric): m.value for m in result.measurements}
    assert found["masked_head", "accuracy/forget"] == 0 == found["retrained_head", "accuracy/forget"]
    for head in ("masked_head", "retrained_head"):  # the class is still in the features
        assert found[head, "probe/penultimate"] == found["original", "probe/penultimate"] > 50


class Heights(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x.mean(axis=(2, 3))[..., None]


@pytest.mark.parametrize(
    ("module", "words"), [("resnet", "must be a flax.linen.Module"), (Heights(), r"logits \[N, C\], not \[1, 8, 1\]")]
)
def test_what_is_no_classifier_is_refused(module, words):
    with pytest.raises(ValueError, match=words):
        ispf_jax.Classifier(module, {}, image_shape=(8, 8, 1))


def test_variables_of_another_network_are_refused():
    variables = dict(tiny.networks()[0])
    ispf_jax.Classifier(Stock(), variables, image_shape=(8, 8, 3))
    broken = jax.tree.map(lambda leaf: leaf * np.nan, variables)
    with pytest.raises(ValueError, match="variables have numbers that are not finite at batch_stats/bn1/mean"):
        ispf_jax.Classifier(Stock(), broken, image_shape=(8, 8, 3))
    variables["params"] = variables["params"] | {"classifier": {"kernel": np.zeros((8, 7)), "bias": np.zeros(7)}}
    with pytest.raises(ValueError, match=r"variables have \[7\] at params/classifier/bias, where .* \[6\]"):
        ispf_jax.Classifier(Stock(), variables, image_shape=(8, 8, 3))
