"""The library as people import it: in memory, without a configuration or a directory."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ispf_jax
from ispf_jax import filters, methods
from ispf_jax.config import default_config
from ispf_jax.runtime.layout import Job
from ispf_jax.sweep import pipeline

TINY = {"epochs": 2, "loops": 2, "student_steps": 3, "warmup_epochs": 1, "batch_size": 8, "generator_width": 0.04}
COUNTS = ("new_counts", "agreed_counts")
TRAIN = {"epochs": 2, "batch_size": 32, "decay_epochs": (1,), "lr": 0.05}


@pytest.fixture(scope="module")
def data():
    return ispf_jax.data.load(
        "synthetic", classes=5, image_size=8, channels=1, max_train=100, max_test=50, cache_dir="off"
    )


@pytest.fixture(scope="module")
def teacher(data):
    return ispf_jax.train(data, width=0.04, config=ispf_jax.Train(**TRAIN), devices=1, progress=False)


def unlearn(teacher, forget=(1,), method="ispf", **options):
    config = ispf_jax.Distill(**TINY | options.pop("config", {}))
    return ispf_jax.unlearn(teacher, forget, method, config=config, **{"devices": 1, "progress": False} | options)


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_from_data_to_an_unlearned_classifier_without_a_file(data, teacher, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    out = unlearn(teacher, ["class1", 3])
    logits = out.classifier(data.test.images)
    assert logits.shape == (50, 5) and logits.dtype == np.float32 and np.isfinite(logits).all()
    assert out.forget == (1, 3) and out.access == "weights only" and out.best is None
    assert [r["epoch"] for r in out.history] == [1, 2, 3] and out.history[-1]["kept"] == 8
    assert out.sample(3).shape == (3, 8, 8, 1) and out.sample(3).dtype == np.uint8
    assert np.array_equal(out.sample(3), out.generator(3, 0)) and not np.array_equal(out.sample(3), out.sample(3, 1))
    gold = ispf_jax.train(
        data, width=0.04, without=["class1", 3], config=ispf_jax.Train(**TRAIN), devices=1, progress=False
    )
    assert not np.isin(data.train.labels[gold.origin["split"].train], (1, 3)).any()
    assert list(tmp_path.iterdir()) == [] and capfd.readouterr() == ("", "")


def test_the_program_gives_the_same_bits(data, teacher, tmp_path):
    c = default_config()
    c.data.update(name="synthetic", classes=5, image_size=8, channels=1, max_train=100, max_test=50, cache_dir="off")
    c.model.width = c.generator.width = 0.04
    c.train.update(epochs=2, batch_size=32, decay_epochs="1", lr=0.05)
    c.distill.update(epochs=2, loops=2, student_steps=3, warmup_epochs=1, batch_size=8)
    c.update(forget="1", methods="ispf", stages="original,retrain,unlearn", tensorboard=False, devices=1)
    pipeline.run(c, str(tmp_path))
    worker = pipeline.Run(pipeline.make_experiments(c)[""], tmp_path).workers[0]
    assert same(worker.read(Job("original", 0), "best").variables, teacher.variables)
    student = worker.read(Job("unlearn", 0, (1,), "dfq", "ispf"), "last")
    assert same(student.variables, unlearn(teacher).classifier.variables)


def test_the_same_seed_gives_the_same_bits_and_others_do_not(teacher):
    first = unlearn(teacher).classifier.variables
    assert same(first, unlearn(teacher).classifier.variables)
    assert not same(first, unlearn(teacher, seed=1).classifier.variables)


@pytest.mark.parametrize("base", ["dfq", "remix"])
def test_a_run_in_a_directory_is_continued_and_equals_one_in_memory(teacher, tmp_path, base):
    class Stop(Exception):
        pass

    def stop(student, record):
        if record["epoch"] == 2:
            raise Stop

    with pytest.raises(Stop):
        unlearn(teacher, base=base, checkpoints=tmp_path, checkpoint_seconds=0.0, callback=stop)
    out = unlearn(teacher, base=base, checkpoints=tmp_path)
    assert same(out.classifier.variables, unlearn(teacher, base=base).classifier.variables)
    assert [r["epoch"] for r in out.history] == [1, 2, 3]


def test_a_callback_sees_every_epoch_and_chooses_the_best(teacher, data):
    seen = []

    def score(student, record):
        seen.append((record["epoch"], student(data.test.images[:2]).shape))
        return {"score": -record["epoch"], "mine": 7.0}

    out = unlearn(teacher, callback=score)
    assert seen == [(1, (2, 5)), (2, (2, 5)), (3, (2, 5))]
    assert out.meta["best_epoch"] == 1 and [r["mine"] for r in out.history] == [7.0] * 3
    assert same(out.classifier.variables, unlearn(teacher).classifier.variables)
    assert not same(out.best.variables, out.classifier.variables)


def nothing(teacher_logits, forget_mask, threshold):
    return jnp.zeros(teacher_logits.shape[0], bool)


def test_a_rule_that_is_passed_after_a_compilation_is_used(teacher):
    assert unlearn(teacher, method="dfkd").history[-1]["kept"] == 8
    out = unlearn(teacher, method=ispf_jax.Method(inhibit=False, keep=nothing, target="teacher"))
    assert out.history[-1]["kept"] == 0 and out.history[-1]["skipped_steps"] == 6
    assert unlearn(teacher, method="dfkd").history[-1]["kept"] == 8


def test_a_rule_that_is_entered_after_a_compilation_is_used(teacher, monkeypatch):
    unlearn(teacher, method="gkt")
    monkeypatch.setitem(filters.KEEP, "nothing", nothing)
    monkeypatch.setitem(methods.METHODS, "mine", ispf_jax.Method(False, "nothing", "teacher"))
    assert unlearn(teacher, method="mine").history[-1]["kept"] == 0
    monkeypatch.setitem(filters.KEEP, "nothing", filters.keep_all)  # another rule under the same name
    assert unlearn(teacher, method="mine").history[-1]["kept"] == 8


def test_a_target_of_your_own(teacher):
    def uniform(teacher_logits, forget_mask, threshold):
        return jnp.where(forget_mask > 0, -1e9, jnp.zeros_like(teacher_logits))

    out = unlearn(teacher, method=ispf_jax.Method(True, "all", uniform), config={"epochs": 30, "lr": 0.2})
    probability = jax.nn.softmax(out.classifier(out.sample(64)))
    assert probability[:, 1].max() < 0.1 and abs(probability.mean(0)[0] - 0.25) < 0.1


@pytest.mark.parametrize(
    "options, message",
    [
        ({"forget": 7}, "forget=7: there is no class '7'; allowed are 0 to 4"),
        ({"forget": "horse"}, "forget='horse': there is no class"),
        ({"method": "gtk"}, "method='gtk' is unknown"),
        ({"method": ispf_jax.Method(True, "al", "teacher")}, "keep='al' is unknown; use a function, or one of all"),
        ({"base": "cmi"}, "base='cmi' is unknown; allowed are dfq, zskt, remix"),
        ({"devices": 99}, "devices=99, but this machine has 8"),
        ({"devices": 3}, "batch_size=8 does not divide evenly over 3 devices"),
        ({"config": {"lr": -1.0}}, "lr=-1.0 must be greater than 0"),
        ({"config": {"epochs": 2.5}}, "epochs=2.5 must be a whole number"),
        ({"seed": -1}, "seed=-1 must be"),
        ({"seed": "a"}, "seed='a' must be"),
        ({"checkpoints": 5}, "checkpoints=5 must be a directory, or None"),
        ({"checkpoints": "~nosuchuser/x"}, "checkpoints='~nosuchuser/x' begins with ~ and a user"),
        ({"callback": 5}, "callback=5 must be a function, or None"),
        ({"progress": "bar"}, "progress='bar' must be True, False or 'lines'"),
        ({"checkpoint_seconds": "a"}, "checkpoint_seconds='a' must be a finite number"),
        ({"config": {"replay": 0.99}}, "replay=0.99 leaves no new image in a batch of 8"),
        ({"epochs": 3}, "epochs is no option of a run; options are devices, checkpoints"),
    ],
)
def test_errors_are_value_errors_that_name_the_argument(teacher, options, message):
    with pytest.raises(ValueError) as caught:
        unlearn(teacher, **options)
    assert message in str(caught.value) and "config." not in str(caught.value)


def test_what_goes_on_is_logged_and_not_printed(teacher, capfd, caplog):
    with caplog.at_level(logging.INFO, "ispf_jax"):
        unlearn(teacher, method=ispf_jax.Method(False, nothing, "teacher"))
    assert any("had every image filtered out" in message for message in caplog.messages)
    assert capfd.readouterr() == ("", "")


def one_class(teacher):
    """A teacher that gives every image one class."""
    variables = jax.tree.map(np.asarray, teacher.variables)
    variables["params"]["classifier"]["bias"] = np.where(np.arange(5) == 2, 50.0, 0.0).astype(np.float32)
    return teacher.replace(variables=variables)


def test_a_generator_that_collapsed_is_reported_with_the_number(teacher, caplog):
    unlearn(one_class(teacher), config={"loops": 5, "warmup_epochs": 2})
    assert any("assigns 100.0 % of the synthetic images to one class, class2" in text for text in caplog.messages)


def test_before_the_generator_has_learned_anything_no_collapse_is_reported(teacher, caplog):
    unlearn(one_class(teacher), config={"epochs": 1, "loops": 1})
    assert not any("synthetic images" in text for text in caplog.messages)


def test_epochs_of_a_collapsed_generator_are_undone(teacher, caplog, tmp_path):
    """Every epoch collapses: the first two are undone, the third is kept, at a quarter of the learning rate."""
    settings = {"loops": 10, "warmup_epochs": 0, "epochs": 3, "select": "agreement"}
    out = unlearn(one_class(teacher), config=settings | {"rollbacks": 2})
    over_eight = unlearn(one_class(teacher), config=settings | {"rollbacks": 2}, devices=8)
    for history in (out.history, over_eight.history):
        assert [r["rollbacks"] for r in history] == [1, 2, 2] and [r["undone"] for r in history] == [1, 1, 0]
    assert any("halved (rollback 2 of at most 2)" in text for text in caplog.messages)
    one, two, never = (
        unlearn(one_class(teacher), config=settings | {"epochs": epochs, "rollbacks": most}).classifier.variables
        for epochs, most in ((1, 2), (2, 2), (1, 0))
    )
    assert same(one, two) and not same(one, never)

    def stop(student, record):
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    options = {"checkpoints": tmp_path, "checkpoint_seconds": 0.0, "config": settings | {"rollbacks": 2}}
    with pytest.raises(KeyboardInterrupt):
        unlearn(one_class(teacher), callback=stop, **options)
    assert same(unlearn(one_class(teacher), **options).generator.variables, out.generator.variables)


def test_agreement_counts_every_retained_class(data):
    """By hand from the counts in the history: classes with fewer than 20 images count 0, and so does the past."""
    teacher = ispf_jax.train(
        data, width=0.04, config=ispf_jax.Train(**TRAIN | {"epochs": 8}), devices=1, progress=False
    )
    settings = {"epochs": 5, "loops": 4, "batch_size": 64, "select": "agreement"}
    found, mean = {}, 0.0
    look = lambda student, record: found.update({record["epoch"]: student.variables})
    out = unlearn(teacher, config=settings, callback=look)
    for record in out.history[1:]:
        shares = [a / n if n >= 20 else 0 for c, (n, a) in enumerate(zip(*(record[k] for k in COUNTS))) if c != 1]
        mean = 0.8 * mean + 0.2 * 100 * sum(shares) / 4
        assert record["agreement"] == pytest.approx(mean, rel=1e-6)
    agreement = [r["agreement"] for r in out.history]
    assert max(agreement) > 0 and out.meta["epoch"] == 1 + int(np.argmax(agreement))
    assert same(out.classifier.variables, found[out.meta["epoch"]])


def test_classifiers_say_what_they_are_and_check_what_they_get(teacher, data):
    assert repr(teacher).startswith("Classifier(AllCNN, 5 classes, 8x8x1 images, ")
    assert "class4" in teacher._repr_html_() and "<table>" in unlearn(teacher)._repr_html_()
    assert repr(unlearn(teacher)).startswith("Unlearned(ispf (dfq), forgot 1 (class1), 12 student steps")
    for images in (data.test.images.astype(np.float32), data.test.images[:, :4]):
        with pytest.raises(ispf_jax.ArgumentError, match=r"images are .* but must be uint8 \[N, 8, 8, 1\]"):
            teacher(images)
    assert np.array_equal(teacher(data.test.images, batch_size=7), teacher(data.test.images))
    assert teacher(data.test.images[:0]).shape == (0, 5)
    for change, message in (
        ({"mean": 125.0}, "mean=125 must be from 0 to 1"),
        ({"std": 0.0}, "std=0 must be greater than 0"),
        ({"mean": (0.1, 0.2)}, "mean has 2 numbers, but the images have 1"),
        ({"image_shape": (8, 8)}, "image_shape=(8, 8) must be (height, width, channels)"),
        ({"class_names": ["a", "a", "b", "c", "d"]}, "class_names[1]='a' must be text"),
    ):
        with pytest.raises(ispf_jax.ArgumentError) as caught:
            ispf_jax.Classifier(teacher.module, teacher.variables, **{"image_shape": (8, 8, 1)} | change)
        assert message in str(caught.value)
