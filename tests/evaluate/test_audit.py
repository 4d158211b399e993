"""The audit in memory on the small task: what hides a class is told from what removes it, and nothing is measured
twice."""

import json
import re
from dataclasses import dataclass, replace

import numpy as np
import pytest

from ispf_jax.classifier import Classifier
from ispf_jax.data.dataset import ArrayDataset, ImageData
from ispf_jax.errors import ArgumentError
from ispf_jax.evaluate import measure as measure_room
from ispf_jax.evaluate.audit import audit
from ispf_jax.evaluate.settings import FAMILIES, Audit
from ispf_jax.runtime import interruption
from ispf_jax.training import Split
from tests.evaluate.conftest import NETWORK, TINY, fresh

CONFIG = Audit(
    shadows=2,
    lira_shadows=4,
    relearn_steps=6,
    relearn_orders=2,
    mia1_draws=2,
    inverted_images=2,
    inversion_steps=3,
    relearn_batch=64,
    shots=(1,),
    layers=2,
    barrier_points=3,
    barrier_images=50,
    synthetic_images=24,
    embedding_images=16,
)
FIVE = replace(TINY, module=TINY.module.clone(num_classes=5))
QUICK = ("accuracy", "divergence")
HIDING = ("masked_head", "retrained_head", "synthetic_embedding")
SPLIT = Split(np.arange(256) < 200, np.arange(256) >= 200)


@dataclass
class Student:
    """A classifier with a generator, as unlearning returns it."""

    classifier: Classifier

    def sample(self, count, seed):
        return np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 1), np.uint8)


def classifier(variables, split=SPLIT):
    return Classifier.of(NETWORK, variables, origin={"split": split} if split else {})


@pytest.fixture(scope="module")
def values(world):
    """Arguments of an audit."""
    train, test = ArrayDataset(world.images, world.labels), ArrayDataset(world.test_images, world.test_labels)
    return {
        "models": {"new/dfq": Student(classifier(world.untrained)), "copy": classifier(world.original)},
        "data": ImageData(train, test, ("cat", "dog", "owl", "fox"), "patterns"),
        "forget": ["dog"],
        "original": classifier(world.original),
        "retrained": classifier(world.retrained),
        "config": CONFIG,
    }


def fit(name, given):
    """Shadow models that were never trained, but say that they were on three quarters of what they were given."""
    seen = given & (np.random.default_rng(len(name)).random(given.size) < 0.75)
    seed = sum(map(ord, name))
    return classifier(fresh(NETWORK, seed), Split(seen, given & ~seen))


@pytest.fixture(scope="module")
def finished(values, tmp_path_factory):
    directory = tmp_path_factory.mktemp("audit") / "dog"
    return directory, audit(**values, fit=fit, directory=directory)


def metrics_of(result, model):
    return {m.metric: m for m in result.measurements if m.model == model}


def test_all_models_are_measured_by_all_metrics(finished):
    _, result = finished
    models = ["original", "retrain", "masked_head", "retrained_head", "synthetic_embedding", "new/dfq", "copy"]
    assert result.content["models"] == models
    assert [entry["metric"] for entry in result.content["not_run"]] == ["KLoM, U-LiRA AUC"]
    expected = {
        "mass",
        "inversion",
        "leak",
        "agreement",
        "barrier_synthetic",
        "cmia",
        "accuracy",
        "mia1",
        "mia2",
        "lira",
        "relearn",
        "relearn_steps",
        "ain",
        "probe",
        "probe_shots1",
        "knn",
    }
    expected |= {"prototype", "cka_original", "cka_retrain", "kl_retrain", "tv_retrain", "l2_original", "barrier"}
    for model in models:
        families = {metric.split("/")[0] for metric in metrics_of(result, model)}
        families -= {"mia1_entropy", "mia1_mentropy", "mia1_correctness", "duplicates"}
        assert families == expected - ({"ain"} if model == "original" else set())  # compared with retraining
    assert {m.model for m in result.measurements if m.metric.startswith("duplicates/")} == {"new/dfq"}
    assert {c["kind"] for c in result.content["curves"]} == {
        f"relearn/{k}" for k in ("all", "forget", "retain", "shots1")
    }
    assert [p["title"] for p in result.content["embedding"]] == ["new/dfq"]
    pictures = {p["title"]: p for p in result.content["representation"]}
    assert set(pictures) == {"original", "retrain", "new/dfq", "copy"}
    assert all(len(p["points"]) == 16 and p["classes"].count(1) == 4 for p in pictures.values())


def test_a_hidden_class_is_where_the_original_is(finished):
    _, result = finished
    assert result.value("masked_head", "accuracy/forget") == result.value("retrained_head", "accuracy/forget") == 0
    read = [name for name in metrics_of(result, "original") if name.startswith(("pro", "knn"))]
    assert result.value("synthetic_embedding", "accuracy/forget") == 0
    assert {name.split("/")[0] for name in read} == {"probe", "probe_shots1", "knn", "prototype"}
    for model in ("masked_head", "copy", "retrained_head", "synthetic_embedding"):
        same = [name for name in read if model in ("masked_head", "copy") or not name.startswith("prototype")]
        assert [result.value(model, name) for name in same] == [result.value("original", name) for name in same]
    assert result.value("masked_head", "cka_original/penultimate") == pytest.approx(1)
    assert result.value("retrain", "cka_original/penultimate") < 0.999


def test_places_run_from_the_retrained_model_to_the_original(finished):
    _, result = finished
    placed = [m for m in result.measurements if m.place is not None]
    assert {m.place for m in placed if m.model in ("original", "copy")} == {1.0}
    assert {abs(m.place) for m in placed if m.model == "retrain"} == {0.0}
    assert {"kl_retrain", "relearn/all", "probe/penultimate"} <= {m.metric for m in placed if m.model == "masked_head"}
    assert result.value("retrain", "kl_retrain") == pytest.approx(0, abs=1e-6)
    assert result.value("original", "l2_original") == 0


def test_without_a_directory_nothing_is_written_and_all_is_the_same(finished, values, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    directory, result = finished
    again = audit(**values, fit=fit)
    assert again.content == result.content == json.loads((directory / "audit.json").read_text())
    assert list(tmp_path.iterdir()) == []


def test_a_second_start_measures_nothing_and_other_settings_measure_again(finished, values, caplog):
    directory, result = finished
    before = {p: p.stat().st_mtime_ns for p in directory.glob("*.json") if p.name != "audit.json"}
    assert len(before) == 7
    assert audit(**values, fit=fit, directory=directory).content == result.content
    # A start that asks for less takes nothing away.
    assert audit(**values, fit=fit, directory=directory, metrics=QUICK).content == result.content
    assert {p: p.stat().st_mtime_ns for p in before} == before

    # With other settings everything is measured again, and what there was is kept.
    less = audit(**values, fit=fit, directory=directory, metrics=QUICK, barrier_points=5)
    assert {entry["metric"] for entry in less.content["not_run"]} == set(FAMILIES) - set(QUICK)
    assert less.value("copy", "accuracy/retain") == result.value("copy", "accuracy/retain")
    assert json.loads((directory / "earlier1" / "audit.json").read_text()) == result.content
    assert f"are in {directory / 'earlier1'} now" in caplog.text

    # A start that asks for more adds to it.
    more = audit(**values, fit=fit, directory=directory, metrics="features", barrier_points=5)
    features = ("probe", "knn", "cka", "prototype")
    assert [m for m in more.measurements if not m.metric.startswith(features)] == less.measurements
    assert len(more.measurements) > len(less.measurements) and not (directory / "earlier2").exists()


def test_an_interrupted_audit_goes_on(values, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(interruption, "requested", (tmp_path / "retrain.json").exists)
        with pytest.raises(interruption.Interrupted, match="audit 1 seed 0: saved after retrain"):
            audit(**values, directory=tmp_path, metrics=QUICK)
    assert {p.name for p in tmp_path.iterdir()} == {"original.json", "retrain.json"}
    before = (tmp_path / "retrain.json").stat().st_mtime_ns
    assert audit(**values, directory=tmp_path, metrics=QUICK).content == audit(**values, metrics=QUICK).content
    assert (tmp_path / "retrain.json").stat().st_mtime_ns == before


def test_without_a_retrained_model_nothing_is_placed_until_there_is_one(values, tmp_path):
    options = {"metrics": ("accuracy", "features", "divergence"), "directory": tmp_path}
    result = audit(**values | {"retrained": None}, **options)
    assert result.content["models"] == ["original", *HIDING, "new/dfq", "copy"]
    assert all(m.place is None for m in result.measurements)
    assert any("need a retrained model" in entry["why"] for entry in result.content["not_run"])
    added = audit(**values, **options)
    assert {"kl_retrain", "tv_retrain", "cka_retrain/penultimate"} <= set(metrics_of(added, "original"))


def test_a_single_retained_class_has_no_masked_head(values):
    result = audit(**values | {"forget": [0, "owl", "fox"]}, metrics="accuracy,mia1")
    assert result.content["models"] == ["original", "retrain", "retrained_head", "new/dfq", "copy"]
    (missing,) = [entry for entry in result.content["not_run"] if entry["metric"] not in FAMILIES]
    assert missing["metric"] == "masked_head" and "single retained class" in missing["why"]


def test_several_classes_are_counted_one_by_one(values):
    result = audit(**values | {"forget": [0, 2]}, metrics=("accuracy", "mia1"))
    assert (result.content["forget"], result.content["forget_names"]) == ("0,2", ["cat", "owl"])
    for model in result.content["models"]:
        found = metrics_of(result, model)
        classes = [found[f"accuracy/class{c}"] for c in range(4)]
        assert all(m.low <= m.value <= m.high and m.n == 40 for m in classes)
        assert (classes[0].value + classes[2].value) / 2 == pytest.approx(found["accuracy/forget"].value)
        confusion = result.content["confusion"][model]
        assert [100 * confusion[i][c] / 40 for i, c in enumerate((0, 2))] == [classes[0].value, classes[2].value]
        parts = [found["mia1/class0"], found["mia1/class2"]]
        if parts[0].value is not None:
            whole = sum(m.value * m.n for m in parts) / sum(m.n for m in parts)
            assert whole == pytest.approx(found["mia1"].value) and found["mia1"].n == 100


def test_the_split_of_the_original_says_what_attacks_look_at(values, world):
    """50 of the 200 training images are dogs; without a split all 64 of 256 are."""
    whole = audit(**values | {"original": classifier(world.original, None)}, metrics="mia1")
    split = audit(**values, metrics="mia1")
    assert (whole.value("copy", "mia1"), split.value("copy", "mia1")) != (None, None)
    assert [metrics_of(r, "copy")["mia1"].n for r in (whole, split)] == [64, 50]


@pytest.mark.parametrize(
    "change", [{"retrained": None}, {"original": "untrained"}, {"fit": lambda name, given: fit(name + "0", given)}]
)
def test_models_are_measured_again_exactly_when_what_they_are_compared_with_changed(
    values, world, tmp_path, monkeypatch, change
):
    measured = []

    def measure(context, subject):
        measured.append(subject.name)
        return {"measurements": [], "curves": [], "confusion": [], "mean_prediction": [], "representation": None}

    def start(**changed):
        measured.clear()
        audit(**values | {"models": {"copy": classifier(world.original)}, "fit": fit, "directory": tmp_path} | changed)
        return measured.copy()

    monkeypatch.setattr(measure_room, "measure", measure)
    assert start() == ["original", "retrain", "masked_head", "synthetic_embedding", "copy"] and start() == []
    if change.get("original"):
        change = {"original": classifier(world.untrained)}
    assert start(**change) == [
        "original",
        *(["retrain"] * ("retrained" not in change)),
        "masked_head",
        "synthetic_embedding",
        "copy",
    ]
    assert start(**change) == []
    kept = json.loads((tmp_path / "copy.json").read_text())
    (tmp_path / "copy.json").write_text(json.dumps({name: v for name, v in kept.items() if name != "inputs"}))
    assert start(**change) == ["copy"]


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"forget": ["wolf"]}, "forget=.*wolf"),
        ({"metrics": "accuracy,mia2"}, "fit=None must be a function"),
        ({"metrics": "speed"}, "metrics=.*speed"),
        ({"models": {"retrain": classifier({})}}, "models: 'retrain' is one of original, .*; take another name"),
        (
            {"models": {"gkt": Classifier.of(FIVE, {"params": {}})}},
            "models: 'gkt' is .*; it must have the original's classes",
        ),
        ({"retrained": Classifier.of(TINY, {})}, r"retrained: 'retrained\[0\]' must have the original's network"),
        ({"original": classifier({}, Split(np.ones(3, bool), np.ones(3, bool)))}, "split of 3 images, not of 256"),
    ],
)
def test_arguments_that_do_not_fit(values, change, sentence):
    with pytest.raises(ArgumentError, match=sentence):
        audit(**values | change)


def test_data_that_do_not_fit(values):
    data = values["data"]
    with pytest.raises(ArgumentError, match="the data have 5 classes"):
        audit(**values | {"data": replace(data, class_names=(*data.class_names, "wolf"))})


WEIGHTS, MADE = "mass inversion leak l2_original", "agreement barrier_synthetic duplicates"
TESTED, GOLD = "accuracy cka_original barrier", "cka_retrain kl_retrain tv_retrain cmia"
ATTACKED = "mia1 mia1_entropy mia1_mentropy mia1_correctness"
TRAINED = "probe probe_shots1 knn prototype relearn relearn_steps"
THERE = {  # what there is besides the original and a model, in words: families that are measured
    "": (WEIGHTS,),
    "generator": (WEIGHTS, MADE),
    "generator test": (WEIGHTS, MADE, TESTED),
    "test forgotten": (WEIGHTS, TESTED),
    "test train": (WEIGHTS, TESTED, ATTACKED),
    "test forgotten train": (WEIGHTS, TESTED, ATTACKED, TRAINED),
    "generator retrained": (WEIGHTS, MADE),
    "test forgotten train retrained oracles": (WEIGHTS, TESTED, ATTACKED, TRAINED, GOLD, "ain klom ulira"),
}


@pytest.mark.parametrize("there", THERE)
def test_an_audit_measures_whatever_its_inputs_allow(values, world, there, tmp_path):
    data, student = values["data"], values["models"]["new/dfq"]
    chosen = np.full(160, "test" in there) & (("forgotten" in there) | (data.test.labels != 1))
    less = replace(data, test=data.test.take(chosen), train=data.train.take(np.full(256, "train" in there)))
    gold = [values["retrained"], classifier(world.untrained)][: ("retrained" in there) + ("oracles" in there)]
    given = {"data": less if "test" in there else None, "forget": 1, "retrained": gold}
    given["models"] = {"new": student if "generator" in there else classifier(world.original)}
    config = replace(CONFIG, relearn_alpha=0.9)
    result = audit(**values | given | {"config": config})
    found = {m.metric: m for m in result.measurements if m.model == "new"}
    assert {name.split("/")[0] for name in found} == set(" ".join(THERE[there]).split())
    undefined = {name for name, m in found.items() if m.value is None and "class" not in name}
    assert undefined <= ({"accuracy/forget"} if "forgotten" not in there else {"ain", "mia1_entropy", "mia1_mentropy"})
    exact = {"l2_original", "relearn_steps"}  # nothing is drawn, or one curve only
    without = {name.split("/")[0] for name, m in found.items() if m.value is not None and m.low is None}
    assert without <= exact, without
    why = " ".join(entry["why"] for entry in result.content["not_run"])
    assert ("test images of the forgotten" in why) == ("forgotten" not in there) and "needs" in why
    assert "Not tested" in result.report(tmp_path / "page.html").read_text()


def test_a_student_of_another_network_is_measured_but_for_weights_and_inner_layers(values):
    """Its numbers are those of an audit in which it is the original; what cannot be compared says why."""
    other = Classifier.of(TINY, fresh(TINY, 3), origin={"split": SPLIT})
    changed = values | {"models": {"other": Student(other)}, "config": CONFIG}
    found = metrics_of(audit(**changed), "other")
    undefined = {name for name, m in found.items() if m.value is None and "mia1" not in name}
    assert undefined - {"ain"} == {"l2_original", "barrier", "barrier_synthetic", "leak/weights"}
    assert all("another network" in found[name].note for name in undefined - {"ain"})
    assert {name for name in found if name.startswith(("probe/", "cka_original/"))} == {
        "probe/penultimate",
        "cka_original/penultimate",
    }
    alone = metrics_of(audit(**changed | {"models": {}, "original": other, "retrained": ()}), "original")
    for name in ("accuracy/forget", "accuracy/retain", "knn/penultimate", "probe/penultimate", "mia1", "relearn/all"):
        assert found[name].value == alone[name].value, name


def test_shadow_models_are_left_out_without_a_function_that_trains_them(values):
    result = audit(**values | {"config": replace(CONFIG, metrics=("accuracy", "mia2", "lira"))})
    assert {m.metric.split("/")[0] for m in result.measurements} == {"accuracy", "duplicates"}
    assert any("MIA-II" in e["metric"] and "needs shadow models" in e["why"] for e in result.content["not_run"])


def test_a_result_shows_itself(finished, tmp_path):
    _, result = finished
    title, head, *lines = repr(result).splitlines()
    assert title == "Audit: forgetting dog, seed 0"
    assert [line.split()[0] for line in lines] == result.content["models"]
    assert head.split("  ")[-1].strip() and "Linear probe" in head and "probe/bn" not in head
    assert lines[2].split()[1] == "0.0"  # the masked head's accuracy on dogs
    page = result._repr_html_()
    assert page.count("<tr>") == 8 and "<td>Linear probe</td>" in page
    assert re.sub("<[^>]*>", " ", page).split() == " ".join([head, *lines]).split()

    assert "MIA-II" in result.report(tmp_path / "page.html").read_text()
