"""The main job end to end: all methods on tiny images, starts that continue, errors that leave everything as it was."""

import hashlib
import itertools
import json
import os
import shutil

import jax
import numpy as np
import pytest

from configs import digits_ispf
from ispf_jax import data as data_room
from ispf_jax.config import default_config, make_experiment
from ispf_jax.errors import UserError
from ispf_jax.experiment import flatten
from ispf_jax.methods import METHODS
from ispf_jax.runtime import loop
from ispf_jax.runtime.atomic import atomic_write_json
from ispf_jax.runtime.layout import Job
from ispf_jax.runtime.provenance import weights_digest
from ispf_jax.runtime.rows import RESULT_FIELDS, read_rows
from ispf_jax.runtime.telemetry import progress, read_metrics
from ispf_jax.state import split_seed
from ispf_jax.sweep import pipeline, worker

ALL = list(METHODS)
REFERENCES = ("original", "masked_head", "retrain")
SETS = ("1", "0,2")
STUDENT_STEPS, GENERATOR_STEPS, BATCH, WARMUP = 3, 1, 8, 1


def tiny(**values):
    """A pipeline of a second per stage once it is compiled: 5 classes, 8x8 grey images, a handful of filters."""
    c = default_config()
    c.data.update(name="synthetic", classes=5, image_size=8, channels=1, max_train=100, max_test=50, cache_dir="off")
    c.model.width = c.generator.width = 0.04
    c.train.update(epochs=2, batch_size=32, decay_epochs="1", lr=0.05)
    c.distill.update(epochs=2, loops=2, student_steps=STUDENT_STEPS, warmup_epochs=WARMUP, batch_size=BATCH)
    c.update(forget="1", methods="ispf", tensorboard=False, progress_seconds=1e9, devices=1, export_floor=0.0)
    for path, value in values.items():
        *groups, key = path.split("__")
        group = c
        for name in groups:
            group = group[name]
        group[key] = value
    return c


def lone_worker(experiment, workdir):
    """What does the jobs of an experiment on the devices it names."""
    return pipeline.Run(experiment, workdir).workers[0]


def results(workdir):
    return json.loads((workdir / "results.json").read_text())["rows"]


def snapshot(workdir):
    """{file: digest of its content} of everything below but the lock and the journal, which every start changes."""
    return {
        str(path.relative_to(workdir)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(workdir.rglob("*"))
        if path.is_file() and path.name not in (".lock", "jobs.jsonl")
    }


def finished(workdir):
    """{result file: time of change}: what a start that repeats nothing leaves alone."""
    return {path: path.stat().st_mtime_ns for path in workdir.rglob("result.json")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A work directory in which every method, both bases and two forget sets have run."""
    workdir = tmp_path_factory.mktemp("whole")
    config = tiny(methods=",".join(ALL), base="dfq,zskt", forget="1;0,2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "matplotlib.figure.Figure.savefig", lambda *_, **__: None
        )  # 32 runs' pictures take longer than the runs
        table = pipeline.run(config, str(workdir))
    return config, workdir, table


def test_every_row_is_there_with_its_fields(whole):
    _, workdir, table = whole
    rows = results(workdir)
    found = {(r["method"], r["base"], r["forget"], r["seed"], r["selection"]) for r in rows}
    expected = {(m, "", f, 0, "best_validation") for m in REFERENCES for f in SETS}
    expected |= {
        (m, b, f, 0, s) for m in ALL for b in ("dfq", "zskt") for f in SETS for s in ("last", "best_test_retain")
    }
    assert found == expected and len(rows) == len(expected)
    for row in rows:
        assert set(RESULT_FIELDS) <= set(row)
        assert (row["dataset"], row["arch"]) == ("synthetic", "allcnn")
        assert all(0 <= row[key] <= 100 for key in ("acc_forget", "acc_retain", "acc_overall"))
        share = len(row["forget"].split(",")) / 5  # test images are balanced
        assert row["acc_overall"] == pytest.approx(share * row["acc_forget"] + (1 - share) * row["acc_retain"])
    assert all(method in table for method in (*METHODS, *REFERENCES))
    header, *lines = (workdir / "results.csv").read_text().splitlines()
    assert header.split(",")[: len(RESULT_FIELDS)] == list(RESULT_FIELDS) and len(lines) == len(rows)


def test_counts_and_what_was_used(whole):
    _, workdir, _ = whole
    for row in results(workdir):
        if row["method"] in REFERENCES:
            assert (row["student_steps"], row["generator_steps"], row["images_synthesised"]) == (0, 0, 0)
            assert row["access"] == {"masked_head": "weights only"}.get(row["method"], "training data")
            continue
        epoch = row["epoch"]  # warm-up included
        assert epoch == 3 if row["selection"] == "last" else 2 <= epoch <= 3
        assert row["student_steps"] == (epoch - WARMUP) * 2 * STUDENT_STEPS
        assert row["generator_steps"] == epoch * 2 * GENERATOR_STEPS
        assert row["images_synthesised"] == BATCH * (row["student_steps"] + row["generator_steps"])
        assert row["access"] == ("weights only" if row["selection"] == "last" else "test images")
        assert row["train_seconds"] > 0


def test_references_have_rows_for_every_forget_set(whole):
    _, workdir, _ = whole
    rows = {(r["method"], r["forget"]): r for r in results(workdir) if r["method"] in REFERENCES}
    assert rows.keys() == set(itertools.product(REFERENCES, SETS))
    for forget in SETS:
        assert rows["masked_head", forget]["acc_forget"] == 0
        assert rows["masked_head", forget]["train_seconds"] == 0
        assert rows["masked_head", forget]["acc_retain"] >= rows["original", forget]["acc_retain"]
        assert rows["retrain", forget]["acc_forget"] == 0
    assert rows["original", "1"]["acc_overall"] == pytest.approx(rows["original", "0,2"]["acc_overall"])
    assert not (workdir / "original" / "seed0" / "result.json").exists()


def test_the_files_of_a_job(whole):
    _, workdir, _ = whole
    for base, method, forget in itertools.product(("dfq", "zskt"), ALL, ("1", "0-2")):
        directory = workdir / "unlearn" / base / method / forget / "seed0"
        assert {"checkpoints", "metrics.jsonl", "result.json", "samples.png"} <= {p.name for p in directory.iterdir()}
        records = read_metrics(directory / "metrics.jsonl")
        assert [r["epoch"] for r in records] == [1, 2, 3]
        assert "generator/adv" in records[0] and "kept" not in records[0] and len(records[0]["class_counts"]) == 5
        for r in records[1:]:
            assert r["forget_samples"] + r["retain_samples"] == pytest.approx(BATCH)
            assert r["kept"] + r["filtered"] == pytest.approx(BATCH)
            assert r["entropy"] >= 0 and 0 <= r["teacher_forget_probability"] <= 1 and "test/acc_retain" in r
            if METHODS[method].keep == "all":
                assert r["kept"] == BATCH and r["skipped_steps"] == 0
    for directory in (
        workdir / "original" / "seed0",
        workdir / "retrain" / "1" / "seed0",
        workdir / "retrain" / "0-2" / "seed0",
    ):
        assert {"checkpoints", "metrics.jsonl", "split.npz"} <= {p.name for p in directory.iterdir()}


def test_the_zskt_base_trains_by_the_adversarial_term_alone(whole):
    _, workdir, _ = whole
    for base in ("dfq", "zskt"):
        for r in read_metrics(workdir / "unlearn" / base / "gkt" / "1" / "seed0" / "metrics.jsonl"):
            alone = r["generator/total"] == pytest.approx(r["generator/adv"], abs=1e-6)
            assert alone == (base == "zskt")


def test_a_second_start_repeats_nothing(whole, monkeypatch):
    config, workdir, _ = whole
    before, saved = finished(workdir), snapshot(workdir)

    def refuse(*args, **kwargs):
        raise AssertionError("something was started again")

    monkeypatch.setattr(worker, "fit", refuse)
    monkeypatch.setattr(worker, "unlearn", refuse)
    again = config.copy_and_resolve_references()
    again.stages = "original,retrain,unlearn"  # the report is written again at every start
    pipeline.run(again, str(workdir))
    assert finished(workdir) == before
    assert {name: digest for name, digest in snapshot(workdir).items() if name != "config.json"} == {
        name: digest for name, digest in saved.items() if name != "config.json"
    }


def test_an_extended_start_runs_only_what_is_new(started, monkeypatch):
    ran = []
    monkeypatch.setattr(
        loop, "progress", lambda title, *args, **kwargs: ran.append(title) or progress(title, *args, **kwargs)
    )
    stages = "original,unlearn,report"
    before, log = finished(started), (started / "original" / "seed0" / "metrics.jsonl").read_bytes()
    pipeline.run(tiny(stages=stages, methods="ispf,gkt", forget="1;3,4"), str(started))
    assert ran == [
        f"unlearn {words} seed 0" for words in ("gkt (dfq) forget 1", "ispf (dfq) forget 3,4", "gkt (dfq) forget 3,4")
    ]
    assert {path: finished(started)[path] for path in before} == before
    assert (started / "original" / "seed0" / "metrics.jsonl").read_bytes() == log
    new = {(r["method"], r["forget"]) for r in results(started) if r["method"] not in REFERENCES}
    assert new == set(itertools.product(("ispf", "gkt"), ("1", "3,4")))
    assert {r["forget"] for r in results(started) if r["method"] == "masked_head"} == {"1", "0,2", "3,4"}

    # A start with less to do takes nothing away.
    ran.clear()
    rows = results(started)
    pipeline.run(tiny(stages="report"), str(started))
    assert ran == [] and results(started) == rows

    # The original's checkpoints were lost, its rows were not: a new job finds a teacher all the same, and the same one.
    experiment = make_experiment(tiny())
    teacher = lone_worker(experiment, started).teacher(0).variables
    shutil.rmtree(started / "original" / "seed0" / "checkpoints")
    again = lone_worker(experiment, started).teacher(0).variables
    jax.tree.map(np.testing.assert_array_equal, again, teacher)
    assert ran == ["original seed 0"]


def test_results_of_two_originals_are_not_mixed(tmp_path):
    pipeline.run(tiny(stages="original,unlearn", methods="gkt"), str(tmp_path / "a"))
    old = next(r.weights for r in read_rows(tmp_path / "a") if r.method == "original")
    elsewhere = tiny(stages="original", train__lr=0.06)  # stands for the same one, trained on another machine
    pipeline.run(elsewhere, str(tmp_path / "b"))
    checkpoints = [tmp_path / name / "original" / "seed0" / "checkpoints" for name in ("a", "b")]
    shutil.rmtree(checkpoints[0])
    shutil.copytree(checkpoints[1], checkpoints[0])
    new = weights_digest(
        lone_worker(make_experiment(elsewhere), tmp_path / "b").read(Job("original", 0), "best").variables
    )
    before = finished(tmp_path / "a")
    for values in (
        {"stages": "original,unlearn"},
        {"stages": "unlearn"},
        {"stages": "audit"},
        {"stages": "original", "forget": "2"},
    ):
        with pytest.raises(UserError) as caught:
            pipeline.run(tiny(methods="gkt,ispf", **values), str(tmp_path / "a"))
        assert all(part in str(caught.value) for part in (old, new, "seed 0", "another --workdir")), caught.value
    assert finished(tmp_path / "a") == before


def test_without_an_original_the_next_action_is_named(tmp_path):
    with pytest.raises(UserError, match=r"there is no checkpoint in .*original/seed0/checkpoints"):
        pipeline.run(tiny(stages="unlearn"), str(tmp_path))
    assert not (tmp_path / "original").exists()  # looking for it makes nothing


# Bad input: one sentence, and everything on disk as it was. A finished work directory is at stake in each.


@pytest.fixture
def started(tmp_path, whole):
    """A copy of a work directory that holds the original, its rows and one finished student."""
    _, source, _ = whole
    workdir = tmp_path / "started"
    for part in ("original", "unlearn/dfq/ispf/1", "retrain/1"):
        shutil.copytree(source / part, workdir / part)
    config = json.loads((source / "config.json").read_text())
    atomic_write_json(workdir / "config.json", {**config, "config": flatten(make_experiment(tiny()))})
    return workdir


def check_refused(config, workdir, parts):
    before = snapshot(workdir) if workdir.is_dir() else None
    with pytest.raises(UserError) as caught:
        pipeline.run(config, str(workdir))
    message = str(caught.value)
    assert "\n" not in message and all(str(part) in message for part in parts), message
    if before is not None:
        assert snapshot(workdir) == before


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize(
    "values, parts",
    [
        ({"methods": "gtk"}, ["config.methods", "'gtk'", "ispf"]),
        ({"forget": "5"}, ["config.forget='5'", "0 to 4"]),
        ({"forget": "0,1,2,3,4"}, ["config.forget", "all 5 classes"]),
        ({"forget": "1,1"}, ["config.forget='1,1'", "twice"]),
        ({"forget": "horse"}, ["config.forget='horse'", "class0"]),
        ({"forget": ""}, ["config.forget=''", "0 (class0)"]),
        ({"devices": 3}, ["config.train.batch_size=32", "3 devices", "multiple of 3"]),
        ({"devices": 99}, ["config.devices=99", "this machine has", "0 is all"]),
        (
            {"train__lr": 0.06, "distill__loops": 3, "methods": "pf"},
            ["started", "distill.loops, train.lr", "another --workdir"],
        ),
        ({"data__name": "digits"}, ["started", "data.name", "another --workdir"]),
        ({"data__image_size": -1}, ["config.data.image_size=-1"]),
    ],
)
def test_bad_values_for_a_started_work_directory(started, values, parts, dry_run):
    check_refused(tiny(**values, dry_run=dry_run), started, parts)


@pytest.mark.parametrize(
    "values, parts",
    [
        ({"data__name": "mnist"}, ["data.name", "'mnist'", "cifar10", "svhn"]),
        ({"devices": 3, "train__batch_size": 33}, ["config.distill.batch_size=8", "3 devices"]),
        ({"data__max_train": 3}, ["data.max_train", "3", "5"]),
        ({"data__mean": "0.1,0.2,0.3"}, ["config.data.mean", "3 numbers", "1 channel"]),
    ],
)
def test_bad_values_for_a_new_work_directory(tmp_path, values, parts):
    check_refused(tiny(**values), tmp_path, parts)


@pytest.mark.parametrize("dry_run", [False, True])
def test_other_data_in_the_same_work_directory(started, monkeypatch, dry_run):
    load = data_room.load

    def other(request):
        return load(request, seed=1)

    monkeypatch.setattr(data_room, "load", other)
    check_refused(tiny(dry_run=dry_run), started, ["data.name='synthetic'", started, "another --workdir"])


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"config": 3}', '{"config": [], "data_fingerprint": ""}', "\x00\xff"]
)
def test_a_damaged_config_file(started, content):
    (started / "config.json").write_bytes(content.encode("latin1"))
    check_refused(tiny(), started, [started / "config.json", "another --workdir"])


def test_a_work_directory_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("mine")
    check_refused(tiny(), tmp_path / "file", [tmp_path / "file", "another work directory"])
    check_refused(tiny(), tmp_path / "file" / "below", [tmp_path / "file" / "below", "another work directory"])
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("place", ["original", "original/seed0/checkpoints"])
def test_a_file_in_the_place_of_a_stage(tmp_path, place):
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).write_text("mine")
    with pytest.raises(UserError, match=place):
        pipeline.run(tiny(), str(tmp_path))
    assert (tmp_path / place).read_text() == "mine"


def damage(checkpoints):
    for path in checkpoints.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:3])


@pytest.mark.parametrize("stage", ["original", "unlearn/dfq/ispf/1"])
def test_damaged_checkpoints_are_set_aside_and_made_again(started, stage):
    """The student's rows are missing, so that it and its teacher are wanted; the same weights come out again."""
    (row, *_) = [r for r in read_rows(started) if (r.method, r.selection) == ("ispf", "last")]
    (started / "unlearn/dfq/ispf/1/seed0/result.json").unlink()
    checkpoints = started / stage / "seed0" / "checkpoints"
    damage(checkpoints)
    pipeline.run(tiny(), str(started))
    assert row.weights in [r.weights for r in read_rows(started) if r.method == "ispf"]
    assert [p.name for p in checkpoints.iterdir() if p.name.endswith(".damaged")]


def test_a_checkpoint_of_another_method_is_not_taken(started, whole, caplog):
    """GKT's in the place of ISPF's."""
    place = started / "unlearn/dfq/ispf/1/seed0"
    (row, *_) = [r for r in read_rows(started) if (r.method, r.selection) == ("ispf", "last")]
    (place / "result.json").unlink()
    shutil.rmtree(place / "checkpoints")
    shutil.copytree(whole[1] / "unlearn/dfq/gkt/1/seed0/checkpoints", place / "checkpoints")
    pipeline.run(tiny(), str(started))
    assert "its run is 'unlearn gkt (dfq) forget 1', not 'unlearn ispf (dfq) forget 1'" in caplog.text
    assert row.weights in [r.weights for r in read_rows(started) if r.method == "ispf"]


def test_times_of_files_decide_nothing(started):
    """A clock that was ahead: what is missing is made, and exports are those of the results."""
    config = tiny(export="safetensors", stages="original,unlearn")
    pipeline.run(config, str(started))
    place = started / "unlearn/dfq/ispf/1/seed0"
    exported = (place / "weights.safetensors").read_bytes()
    for path in started.rglob("*"):
        os.utime(path, (4e9, 4e9))
    (place / "result.json").unlink()
    (place / "weights.safetensors").write_bytes((started / "original/seed0/weights.safetensors").read_bytes())
    os.utime(place / "weights.safetensors", (5e9, 5e9))
    pipeline.run(config, str(started))
    assert (place / "result.json").exists() and (place / "weights.safetensors").read_bytes() == exported
    assert (place / "weights.safetensors.damaged").exists()


def test_the_split_that_is_checked_is_the_one_that_is_trained_on(whole):
    config, workdir, _ = whole
    labels = data_room.load(make_experiment(config).data).train.labels
    for place, stream, forget in (("original", "original", ()), ("retrain/0-2", "retrain 0-2", (0, 2))):
        train, val = data_room.train_val_split(
            ~np.isin(labels, forget), config.data.val_fraction, split_seed(0, stream)
        )
        with np.load(workdir / place / "seed0" / "split.npz") as kept:
            np.testing.assert_array_equal(kept["train"], train)
            np.testing.assert_array_equal(kept["validation"], val)


# The real thing, reduced.


def test_handwritten_digits_are_unlearned(tmp_path):
    c = digits_ispf.get_config()
    c.data.cache_dir = "off"
    c.data.image_size = 8  # as they are
    c.model.width = c.generator.width = 0.125
    c.train.update(epochs=8, batch_size=64, decay_epochs="6")
    c.distill.update(batch_size=64, lr=0.2)
    c.evaluate.every = 0
    c.update(stages="original,unlearn,report", methods="ispf", tensorboard=False, devices=1)
    pipeline.run(c, str(tmp_path))
    rows = {r["method"]: r for r in results(tmp_path)}
    assert [r["selection"] for r in results(tmp_path) if r["method"] == "ispf"] == [
        "last"
    ]  # the test images were not looked at
    assert rows["original"]["acc_overall"] > 90 and rows["original"]["acc_forget"] > 80
    assert rows["masked_head"]["acc_forget"] == 0
    assert (rows["ispf"]["acc_forget"], rows["ispf"]["access"]) == (0, "weights only")
    assert rows["ispf"]["acc_retain"] > 70
