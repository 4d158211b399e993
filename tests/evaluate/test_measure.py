"""All measurements of one small model at once: what breaks, what is undefined, and that nothing is silent."""

from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import default
from ispf_jax.config import make_experiment
from ispf_jax.data.dataset import ArrayDataset
from ispf_jax.errors import UserError
from ispf_jax.evaluate import measure
from ispf_jax.evaluate.accuracy import Evaluator
from tests.evaluate.conftest import MEAN, STD, TINY, fresh, make_images


@pytest.fixture(scope="module")
def context():
    config = default.get_config()
    config.audit.update(metrics="accuracy,mia1,features,divergence", shots="1", layers=1, barrier_points=0, embedding_images=0, synthetic_images=16)
    rng = np.random.default_rng(0)
    train, test = (ArrayDataset(*make_images(rng, n)) for n in (64, 40))
    return measure.Context(
        TINY, Evaluator(TINY, MEAN, STD, 20), "none", train, test, jnp.asarray(train.images), jnp.asarray(test.images), np.arange(64) < 48,
        np.arange(4) == 1, {"original": fresh(TINY, 1)}, make_experiment(config).audit, 0,
    )  # fmt: skip


def subject(variables, name="gkt/dfq", synthetic=None):
    return SimpleNamespace(name=name, variables=variables, member=np.arange(64) < 48, synthetic=synthetic)


def found(part):
    return {m["metric"]: m for m in part["measurements"]}


def test_constant_predictions_have_defined_values_or_none(context):
    """All logits 0: class 0 wins every tie, no attack learns anything, the entropy is log 4 everywhere."""
    constant = jax.tree.map(np.zeros_like, fresh(TINY, 2))
    numbers = found(measure.model(context, subject(constant), measure.Attackers(), {}))
    assert [numbers[f"accuracy/class{c}"]["value"] for c in range(4)] == [100, 0, 0, 0]
    assert numbers["accuracy/overall"]["value"] == 25 and numbers["accuracy/forget"]["high"] > 0
    assert [numbers[name]["value"] for name in ("mia1", "mia1_entropy", "mia1_mentropy", "mia1_correctness")] == [None, None, None, 100]
    assert "no threshold" in numbers["mia1_entropy"]["note"]
    assert numbers["cka_original/penultimate"]["value"] is None
    assert all(m["value"] is None or np.isfinite(m["value"]) for m in numbers.values())


def test_copies_are_counted_among_the_models_synthetic_images(context):
    images = np.random.default_rng(1).integers(0, 256, (10, 8, 8, 1), np.uint8)
    images[3] = images[7]
    numbers = found(measure.model(context, subject(fresh(TINY, 2), synthetic=images), measure.Attackers(), {}))
    assert numbers["duplicates/exact"]["value"] == numbers["duplicates/pixels"]["value"] == 20
    assert numbers["duplicates/exact"]["note"] == "of 16 real training images: 0.0 %"
    assert numbers["duplicates/features"]["value"] >= 20 and numbers["duplicates/features"]["tier"] == "weights only"


def test_a_class_without_test_images_is_named(context):
    few = context.test.labels != 2
    labels, images = context.test.labels[few], context.test.images[few]
    numbers = found(measure.model(replace(context, test=ArrayDataset(images, labels), test_images=jnp.asarray(images)), subject(fresh(TINY, 2)),
                                  measure.Attackers(), {}))
    assert (numbers["accuracy/class2"]["value"], numbers["accuracy/class2"]["note"]) == (None, "no test images")


def test_without_forgotten_test_images_nothing_is_measured(context):
    few = context.test.labels != 1
    test = ArrayDataset(context.test.images[few], context.test.labels[few])
    with pytest.raises(UserError, match="test images belongs to a forgotten class"):
        measure.model(replace(context, test=test, test_images=jnp.asarray(test.images)), subject(fresh(TINY, 2)), measure.Attackers(), {})


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_diverged_model_is_refused_before_anything_is_counted(context, bad):
    """The first class would win every comparison of NaN logits, and its accuracy would look like a number."""
    diverged = jax.tree.map(lambda x: np.full_like(x, bad), fresh(TINY, 2))
    with pytest.raises(UserError, match="gkt/dfq are NaN or infinite"):
        measure.model(context, subject(diverged), measure.Attackers(), {})
