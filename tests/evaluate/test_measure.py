"""All measurements of one small model at once: what breaks, what is undefined, and that nothing is silent."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from scipy.stats import binomtest, norm
from sklearn.metrics import roc_auc_score

from ispf_jax.classifier import Classifier
from ispf_jax.data.dataset import ArrayDataset, ImageData
from ispf_jax.evaluate import lira
from ispf_jax.evaluate.context import Attackers, Context, Subject
from ispf_jax.evaluate.measure import measure
from ispf_jax.evaluate.settings import Audit
from tests.evaluate.conftest import TINY, fresh, make_images

CONFIG = Audit(
    metrics=("accuracy", "mia1", "features", "divergence"),
    shots=(1,),
    layers=1,
    barrier_points=0,
    embedding_images=0,
    synthetic_images=16,
)
SEEN = np.arange(64) < 48


@pytest.fixture(scope="module")
def context():
    rng = np.random.default_rng(0)
    train, test = (ArrayDataset(*make_images(rng, n)) for n in (64, 40))
    data = ImageData(train, test, tuple("0123"), "patterns")
    return Context(
        TINY, data, SEEN, np.arange(4) == 1, {"original": Classifier.of(TINY, fresh(TINY, 1))}, CONFIG, batch_size=20
    )


def found(context, variables=None, images=None):
    """Measurements of a model by name."""
    model = Classifier.of(TINY, fresh(TINY, 2) if variables is None else variables)
    subject = Subject("gkt/dfq", model, SEEN, images)
    if images is not None:
        context = replace(context, synthetic=images)
        subject.synthetic_pass = context.extract(context.references["original"], images)
    return {m["metric"]: m for m in measure(context, subject)["measurements"]}


def with_test(context, kept):
    test = context.test.take(kept)
    return replace(context, data=replace(context.data, test=test))


def test_constant_predictions_have_defined_values_or_none(context):
    """All logits 0: class 0 wins every tie, no attack learns anything, the entropy is log 4 everywhere."""
    constant = jax.tree.map(np.zeros_like, fresh(TINY, 2))
    numbers = found(context, constant)
    assert [numbers[f"accuracy/class{c}"]["value"] for c in range(4)] == [100, 0, 0, 0]
    assert numbers["accuracy/overall"]["value"] == 25 and numbers["accuracy/forget"]["high"] > 0
    attacks = [numbers[name]["value"] for name in ("mia1", "mia1_entropy", "mia1_mentropy", "mia1_correctness")]
    assert attacks == [None, None, None, 100]
    assert "no threshold" in numbers["mia1_entropy"]["note"]
    assert numbers["cka_original/penultimate"]["value"] is None
    assert all(m["value"] is None or np.isfinite(m["value"]) for m in numbers.values())


def test_copies_are_counted_among_the_models_synthetic_images(context):
    images = np.random.default_rng(1).integers(0, 256, (10, 8, 8, 1), np.uint8)
    images[3] = images[7]
    numbers = found(context, images=images)
    assert numbers["duplicates/exact"]["value"] == numbers["duplicates/pixels"]["value"] == 20
    assert numbers["duplicates/exact"]["note"] == "of 16 real training images: 0.0 %"
    assert numbers["duplicates/features"]["value"] >= 20 and numbers["duplicates/features"]["tier"] == "weights only"


def test_readers_of_few_images_have_intervals(context):
    """A prototype head's is that of its share; a mean over draws has one that is at least as wide as a single
    share's."""
    numbers = found(context)
    prototype = next(m for name, m in numbers.items() if name.startswith("prototype/"))
    exact = binomtest(round(prototype["value"] * prototype["n"] / 100), prototype["n"]).proportion_ci(0.95, "wilson")
    np.testing.assert_allclose([prototype["low"], prototype["high"]], [100 * exact.low, 100 * exact.high], atol=1e-9)
    shots = numbers["probe_shots1/penultimate"]
    assert shots["n"] == prototype["n"] == 10 and 0 <= shots["low"] < shots["value"] < shots["high"] <= 100
    nearest = binomtest(round(shots["value"] / 10), 10).proportion_ci(0.95, "wilson")
    assert shots["high"] - shots["low"] > 0.95 * 100 * (nearest.high - nearest.low)


@pytest.fixture
def lira_context(context):
    return replace(context, config=replace(context.config, metrics=("accuracy", "lira")))


def test_lira_leaves_out_images_that_too_few_shadows_saw(lira_context):
    """Eight shadows that hold a fifth of their half back for validation, against a slow loop over the images that are
    left."""
    rng = np.random.default_rng(2)
    member = lira.halves(64, 8, seed=3) & (rng.random((8, 64)) < 0.8)
    member[2:, 1] = False  # image 1, of the forgotten class: at most two shadows
    member[0, 1], member[1, 1] = True, False
    statistic = rng.normal(size=(8, 64))
    variables = fresh(TINY, 2)
    numbers = found(replace(lira_context, attackers=Attackers(lira=(statistic, member))), variables)

    forgotten = [i for i in range(64) if i % 4 == 1]
    rows = [i for i in forgotten if min(member[:, i].sum(), (~member[:, i]).sum()) >= 2]
    logits = lira_context.extract(Classifier.of(TINY, variables), lira_context.train.images[rows]).logits
    target = [z[1] - np.log(np.sum(np.exp(np.delete(z, 1)))) for z in logits.astype(np.float64)]
    sides = [{i: statistic[member[:, i] == side, i] for i in rows} for side in (True, False)]
    squares = (sum(np.sum((x - x.mean()) ** 2) for x in side.values()) for side in sides)
    pooled = [np.sqrt(s / sum(len(x) - 1 for x in side.values())) for s, side in zip(squares, sides)]
    densities = [
        [norm.logpdf(t, side[i].mean(), std) for side, std in zip(sides, pooled)] for i, t in zip(rows, target)
    ]
    scores = np.subtract(*zip(*densities))
    assert 0 < len(rows) < len(forgotten)
    assert numbers["lira/auc"]["value"] == pytest.approx(roc_auc_score([i < 48 for i in rows], scores))
    assert numbers["lira/auc"]["n"] == sum(i < 48 for i in rows)
    assert f"{len(forgotten) - len(rows)} of {len(forgotten)} left out" in numbers["lira/auc"]["note"]


@pytest.mark.parametrize(
    "change, reason", [({"member": np.ones(64, bool)}, "0 forgotten images outside"), ({}, "16 of 16 left out")]
)
def test_lira_without_images_of_both_kinds_has_no_value(lira_context, change, reason):
    member = np.arange(4)[:, None] < (2 if change else 1) * np.ones(64)
    attackers = Attackers(lira=(np.zeros((4, 64)), member))
    numbers = found(replace(lira_context, attackers=attackers, **change))
    for name in ("lira/auc", "lira/tpr1", "lira/tpr0.1"):
        note = numbers[name]["note"]
        assert numbers[name]["value"] is None and reason in note and "both kinds are needed" in note


def test_a_class_without_test_images_is_named(context):
    numbers = found(with_test(context, context.test.labels != 2))
    assert (numbers["accuracy/class2"]["value"], numbers["accuracy/class2"]["note"]) == (None, "no test images")
