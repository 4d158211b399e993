"""End to end on the small task: what is hidden is found, what was never learned is not."""

import numpy as np
import pytest

from ispf_jax.evaluate import baseline, divergence, features, probes, relearn, signals
from tests.evaluate.conftest import CLASSIFIER, MEAN, STD

RELEARN = relearn.RelearnSetup(
    CLASSIFIER, steps=60, augmentation="none", mean=MEAN, std=STD, batch_size=64, learning_rate=1e-2
)


def extract(variables, images):
    return features.extract(CLASSIFIER, variables, images, MEAN, STD, [features.PENULTIMATE], batch_size=64)


@pytest.fixture(scope="module")
def models(world):
    return {
        "original": world.original,
        "masked": baseline.masked_head(world.original, world.forget_mask),
        "retrained": world.retrained,
    }


def forget_accuracy(world, variables):
    predicted = np.argmax(extract(variables, world.test_images).logits, axis=-1)
    return probes.read(predicted, world.test_labels, world.forget_mask)


def test_all_models_but_the_original_look_as_if_they_had_forgotten(world, models):
    readings = {name: forget_accuracy(world, variables) for name, variables in models.items()}
    assert readings["original"].forget > 90 and readings["masked"].forget == readings["retrained"].forget == 0
    assert readings["masked"].retain >= readings["original"].retain


@pytest.mark.parametrize("reader", [probes.linear_probe, probes.nearest_neighbours, probes.nearest_mean])
def test_readers_of_the_last_features_rank_the_original_above_retraining(world, models, reader):
    found = {}
    for name, variables in models.items():
        train, test = extract(variables, world.images), extract(variables, world.test_images)
        layer = features.PENULTIMATE
        found[name] = reader(
            train.layers[layer], world.labels, test.layers[layer], world.test_labels, world.forget_mask
        )
    assert found["original"] == found["masked"]
    assert found["original"].forget > found["retrained"].forget + 10
    assert found["original"].detection > found["retrained"].detection + 5


def test_relearning_ranks_the_original_above_retraining(world, models):
    member = relearn.relearn_members("all", world.labels, np.ones(256, bool), world.forget_mask)
    curves = {
        name: relearn.relearn_curve(
            RELEARN,
            variables,
            world.images,
            world.labels,
            member,
            world.test_images,
            world.test_labels,
            world.test_labels == 1,
            seed=0,
        )
        for name, variables in models.items()
    }
    area = {name: relearn.mean_accuracy(curve) for name, curve in curves.items()}
    assert area["original"] > area["masked"] > area["retrained"] + 20
    index = relearn.anamnesis_index(
        curves["masked"], curves["retrained"], relearn.relearn_target(curves["original"].accuracy[0])
    )
    assert index.value < 1 and index.student.steps < index.gold.steps


def test_a_prototype_brings_the_masked_class_back(world, models):
    train = extract(models["masked"], world.images).layers[features.PENULTIMATE]
    restored = probes.prototype_head(models["masked"], train, world.labels, world.forget_mask)
    assert forget_accuracy(world, restored).forget > 80


def test_a_head_retrained_on_frozen_features_forgets_in_the_output_only(world):
    of_original = extract(world.original, world.images)
    target = np.where(world.forget_mask, -1e9, of_original.logits)
    fit = baseline.retrained_head(world.original, of_original.layers[features.PENULTIMATE], target, steps=50)
    reading = forget_accuracy(world, fit.variables)
    assert fit.loss < 0.02 and reading.forget == 0 and reading.retain > 90


def test_retraining_is_nearest_to_itself(world, models):
    logits = {name: extract(v, world.test_images[world.test_labels == 1]).logits for name, v in models.items()}
    distance = {name: divergence.predictive_divergence(logits["retrained"], z) for name, z in logits.items()}
    assert distance["retrained"].mean_kl == distance["retrained"].mean_tv == 0
    assert distance["original"].mean_tv > distance["masked"].mean_tv > 0
    assert np.all(
        signals.confidence(logits["masked"], np.ones(40, int))
        < signals.confidence(logits["original"], np.ones(40, int))
    )
