"""End to end on the small task: what is hidden is found, what was never learned is not."""

import numpy as np
import pytest

from ispf_jax.evaluate import baseline, divergence, features, probes, relearn, signals
from tests.evaluate.conftest import NETWORK

RELEARN = relearn.RelearnSetup(NETWORK, steps=60, batch_size=64, learning_rate=1e-2)
LAYER = features.PENULTIMATE


def extract(variables, images):
    return features.extract(NETWORK, variables, images, [LAYER], batch_size=64)


@pytest.fixture(scope="module")
def models(world):
    return {
        "original": world.original,
        "masked": baseline.masked_head(world.original, world.forget_mask),
        "retrained": world.retrained,
    }


def shares(predicted, labels):
    """Shares of images of the forgotten class 1, and of the others, that get their class."""
    right = predicted == labels
    return right[labels == 1].mean(), right[labels != 1].mean()


def output_shares(world, variables):
    return shares(extract(variables, world.test_images).logits.argmax(axis=1), world.test_labels)


def test_all_models_but_the_original_look_as_if_they_had_forgotten(world, models):
    found = {name: output_shares(world, variables) for name, variables in models.items()}
    assert found["original"][0] > 0.9 and found["masked"][0] == found["retrained"][0] == 0
    assert found["masked"][1] >= found["original"][1]


@pytest.mark.parametrize("reader", [lambda *data: probes.linear_probe(*data)[0], probes.nearest_neighbours])
def test_readers_of_the_last_features_rank_the_original_above_retraining(world, models, reader):
    found = {}
    for name, variables in models.items():
        train, test = (extract(variables, images).layers[LAYER] for images in (world.images, world.test_images))
        found[name] = shares(reader(train, world.labels, test), world.test_labels)
    assert found["original"] == found["masked"]
    assert found["original"][0] > found["retrained"][0] + 0.1


def test_relearning_ranks_the_original_above_retraining(world, models):
    train = relearn.Subset(world.images, world.labels, np.ones(256, bool))
    test = relearn.Subset(world.test_images, world.test_labels, world.test_labels == 1)
    curves = {name: relearn.relearn_curve(RELEARN, v, train, test, seed=0) for name, v in models.items()}
    area = {name: np.mean(curve[1:]) for name, curve in curves.items()}
    assert area["original"] > area["masked"] > area["retrained"] + 20
    index, bound = relearn.anamnesis_index(curves["masked"], curves["retrained"], 0.95 * curves["original"][0])
    assert index < 1 and bound == "exact"


def test_a_prototype_brings_the_masked_class_back(world, models):
    train = extract(models["masked"], world.images).layers[LAYER]
    restored = probes.prototype_head(models["masked"], train, world.labels, world.forget_mask)
    assert output_shares(world, restored)[0] > 0.8


def test_a_head_retrained_on_frozen_features_forgets_in_the_output_only(world):
    of_original = extract(world.original, world.images)
    target = np.where(world.forget_mask, -1e9, of_original.logits)
    head = baseline.retrained_head(world.original, of_original.layers[LAYER], target, steps=50)
    forgotten, retained = output_shares(world, head)
    assert forgotten == 0 and retained > 0.9


def test_retraining_is_nearest_to_itself(world, models):
    logits = {name: extract(v, world.test_images[world.test_labels == 1]).logits for name, v in models.items()}
    distance = {name: divergence.predictive_divergence(logits["retrained"], z) for name, z in logits.items()}
    assert distance["retrained"] == (0, 0) and distance["original"][1] > distance["masked"][1] > 0
    confidence = {name: signals.confidence(z, np.ones(40, int)) for name, z in logits.items()}
    assert np.all(confidence["masked"] < confidence["original"])
