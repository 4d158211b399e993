"""Carrying a stage through its epochs: an interruption at any place leaves no trace in the result."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import default
from ispf_jax.config import make_experiment
from ispf_jax.devices import chosen_devices
from ispf_jax.errors import UserError
from ispf_jax.models import build_classifier
from ispf_jax.runtime import loop as training
from ispf_jax.runtime.store import Store
from ispf_jax.runtime.telemetry import read_metrics
from ispf_jax.training import SupervisedStage
from ispf_jax.unlearning import UnlearnStage

KEEPING = training.Keeping(checkpoint_seconds=0.0, progress_seconds=1e9, tensorboard=False)
(ONE,) = chosen_devices(1, "batch")
RARELY = training.Keeping(checkpoint_seconds=1e9, progress_seconds=1e9, tensorboard=False)
SCORES = (0.0, 3.0, 1.0, 3.0, 2.0, 0.5)  # best after epoch 2; the first of equals counts


class Interrupted(Exception):
    """Stands for whatever ends a process."""


def toy(directory, epochs=6, stop_at=None, score=True, fail_with=None):
    """A random walk, and a list of the epochs that ran."""
    ran = []

    def run_epoch(state, epoch):
        if epoch == stop_at:
            raise Interrupted
        ran.append(epoch)
        w = state["w"] + jax.random.normal(jax.random.fold_in(state["key"], epoch), (3,))
        loss = jnp.float32(jnp.nan) if epoch == fail_with else w.sum()
        return {**state, "w": w}, {"loss": loss, "counts": jnp.arange(2) + epoch}

    def measure(variables, epoch):
        return {"score": SCORES[epoch - 1]}, SCORES[epoch - 1]

    def prepare(state):
        ran.append("prepared")
        return 0.0

    state = {"w": jnp.zeros(3), "key": jax.random.key(1)}
    task = training.Task(
        "toy", directory, epochs, 2, prepare, run_epoch, lambda s: {"w": s["w"]}, measure if score else None, ("loss",)
    )
    return task, state, ran


def assert_same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def assert_same_saved(a, b):
    assert_same((a.state, a.last, a.best), (b.state, b.last, b.best))
    assert {**a.meta, "seconds": 0} == {**b.meta, "seconds": 0}


def without_time(records):
    return [{key: value for key, value in record.items() if key != "seconds"} for record in records]


def test_a_task_runs_to_its_end_and_keeps_the_first_best(tmp_path):
    task, state, ran = toy(tmp_path)
    saved = training.train(task, state, KEEPING, ONE)
    assert ran == ["prepared", *range(6)]
    assert (saved.meta["epoch"], saved.meta["best_epoch"], saved.meta["best_score"]) == (6, 2, 3.0)
    records = read_metrics(tmp_path / "metrics.jsonl")
    assert [r["epoch"] for r in records] == [1, 2, 3, 4, 5, 6]
    assert [r["score"] for r in records] == list(SCORES) and records[3]["counts"] == [3, 4]
    seconds = [r["seconds"] for r in records]
    assert seconds == sorted(seconds) and seconds[-1] == saved.meta["seconds"] > 0


def test_without_a_score_best_is_the_last(tmp_path):
    task, state, _ = toy(tmp_path, score=False)
    saved = training.train(task, state, KEEPING, ONE)
    assert_same(saved.best, saved.last)
    assert saved.meta["best_score"] is None


def test_a_finished_task_runs_and_compiles_nothing(tmp_path):
    task, state, _ = toy(tmp_path)
    first = training.train(task, state, KEEPING, ONE)
    before = (tmp_path / "metrics.jsonl").stat().st_mtime_ns
    task, state, ran = toy(tmp_path)
    assert_same_saved(training.train(task, state, KEEPING, ONE), first)
    assert ran == [] and (tmp_path / "metrics.jsonl").stat().st_mtime_ns == before


@pytest.mark.parametrize("stop_at", [0, 1, 3, 5])
@pytest.mark.parametrize("keeping", [KEEPING, RARELY], ids=["every epoch saved", "only the end saved"])
def test_an_interrupted_task_ends_bit_by_bit_as_an_undisturbed_one(tmp_path, stop_at, keeping):
    task, state, _ = toy(tmp_path / "whole")
    whole = training.train(task, state, KEEPING, ONE)
    task, state, _ = toy(tmp_path / "cut", stop_at=stop_at)
    with pytest.raises(Interrupted):
        training.train(task, state, keeping, ONE)
    task, state, ran = toy(tmp_path / "cut")
    again = training.train(task, state, keeping, ONE)
    assert ran == ["prepared", *range(stop_at if keeping is KEEPING else 0, 6)]
    assert_same_saved(again, whole)
    logs = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "cut")]
    assert without_time(logs[0]) == without_time(logs[1])
    with Store(tmp_path / "cut" / "checkpoints") as store:
        variables, meta = store.variables("best", whole.best)
    assert_same(variables, whole.best)
    assert meta["best_epoch"] == 2


def test_a_log_that_is_ahead_of_the_checkpoint_is_cut_back(tmp_path):
    """The process ended between writing an epoch's record and saving its checkpoint, in the middle of a line."""
    task, state, _ = toy(tmp_path, stop_at=3)
    with pytest.raises(Interrupted):
        training.train(task, state, KEEPING, ONE)
    with open(tmp_path / "metrics.jsonl", "a") as log:
        log.write(json.dumps({"epoch": 4, "loss": 99.0}) + "\n" + '{"epoch": 5, "lo')
    task, state, _ = toy(tmp_path)
    training.train(task, state, KEEPING, ONE)
    records = read_metrics(tmp_path / "metrics.jsonl")
    assert [r["epoch"] for r in records] == [1, 2, 3, 4, 5, 6] and records[3]["loss"] != 99.0


def test_damage_in_the_last_checkpoint_costs_only_the_epochs_after_the_one_before(tmp_path):
    task, state, _ = toy(tmp_path)
    whole = training.train(task, state, KEEPING, ONE)
    for path in (tmp_path / "checkpoints" / "6").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    task, state, ran = toy(tmp_path)
    assert_same_saved(training.train(task, state, KEEPING, ONE), whole)
    assert ran == ["prepared", 5]
    task, state, ran = toy(tmp_path)
    assert_same_saved(training.train(task, state, KEEPING, ONE), whole)
    assert ran == []


def test_numbers_that_are_not_finite_stop_the_run_and_keep_the_last_good_state(tmp_path):
    task, state, _ = toy(tmp_path, fail_with=4)
    with pytest.raises(UserError, match=r"toy: loss became nan in epoch 5; .*checkpoints.*lower the learning rate"):
        training.train(task, state, KEEPING, ONE)
    with Store(tmp_path / "checkpoints") as store:
        assert store.variables("last", {"w": jnp.zeros(3)})[1]["epoch"] == 4
    assert [r["epoch"] for r in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4]


# The two real stages, stopped by an exception and by nothing: donated buffers, schedules, selection and random streams included.


@pytest.fixture(scope="module")
def experiment():
    c = default.get_config()
    c.data.update(mean="0.5", std="0.5")
    c.model.width = c.generator.width = 0.04
    c.train.update(epochs=4, batch_size=16, decay_epochs="2", augment="crop_flip")
    c.distill.update(epochs=3, loops=1, student_steps=2, warmup_epochs=1, batch_size=8, lr=0.1)
    return make_experiment(c)


@pytest.fixture(scope="module")
def classifier():
    return build_classifier("allcnn", 3, 0.04)


def stopping(stage, monkeypatch, after):
    """Let the stage's program raise in place of its call number `after`, counted from 0."""
    program, calls = stage._program, []

    class Stopping:
        prepare = staticmethod(program.prepare)

        def __call__(self, *args):
            calls.append(None)
            if len(calls) == after + 1:
                raise Interrupted
            return program(*args)

    monkeypatch.setattr(stage, "_program", Stopping())


def test_supervised_stage_goes_on_bit_by_bit(tmp_path, experiment, classifier, monkeypatch):
    rng = np.random.default_rng(0)
    labels = np.arange(60, dtype=np.int32) % 3
    images = np.clip(80 * labels[:, None, None, None] + rng.normal(0, 40, (60, 8, 8, 1)), 0, 255).astype(np.uint8)
    devices = ONE
    stage = SupervisedStage(experiment, classifier, devices, jnp.asarray(images), jnp.asarray(labels), KEEPING)
    member = np.ones(60, bool)

    def run(name):
        return stage.run("original", tmp_path / name, 0, "original", member)

    whole = run("whole")
    with monkeypatch.context() as patch:
        stopping(stage, patch, after=2)
        with pytest.raises(Interrupted):
            run("cut")
    assert_same_saved(run("cut"), whole)
    logs = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "cut")]
    assert without_time(logs[0]) == without_time(logs[1]) and [r["epoch"] for r in logs[1]] == [1, 2, 3, 4]
    assert [r["learning_rate"] for r in logs[1]] == pytest.approx([0.1, 0.1, 0.01, 0.01])
    best = max(logs[0], key=lambda r: r["validation/accuracy"])  # the first of equals
    assert (whole.meta["best_epoch"], whole.meta["best_score"]) == (best["epoch"], best["validation/accuracy"])
    splits = [np.load(tmp_path / name / "split.npz") for name in ("whole", "cut")]
    for part, count in (("train", 48), ("validation", 12)):
        np.testing.assert_array_equal(splits[0][part], splits[1][part])
        assert splits[0][part].sum() == count
    assert not np.any(splits[0]["train"] & splits[0]["validation"])


def test_unlearning_stage_goes_on_bit_by_bit(tmp_path, experiment, classifier, monkeypatch):
    stage = UnlearnStage(experiment, "dfq", classifier, (8, 8, 1), ONE, KEEPING)
    teacher = stage.fresh_state(5).student.variables

    def observe(variables, epoch):
        return ({}, None) if epoch < 2 else ({"test/acc_retain": float(10 - epoch)}, float(10 - epoch))

    def run(name, method="ispf"):
        return stage.run("unlearn", tmp_path / name, 0, method, (1,), teacher, observe)

    whole = run("whole")
    for after in (1, 3):  # at the end of the warm-up, and before the last epoch
        with monkeypatch.context() as patch:
            stopping(stage, patch, after)
            with pytest.raises(Interrupted):
                run(f"cut{after}")
        assert_same_saved(run(f"cut{after}"), whole)
        logs = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", f"cut{after}")]
        assert without_time(logs[0]) == without_time(logs[1])
    assert whole.meta["best_epoch"] == 2 and whole.meta["best_score"] == 8.0
    assert [(r["student_step"], r["generator_step"]) for r in logs[0]] == [(0, 1), (2, 2), (4, 3), (6, 4)]
    assert "student/loss" not in logs[0][0] and logs[0][1]["kept"] == 8


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    """The last update of the last epoch spoils them, which no loss has seen."""
    task, state, _ = toy(tmp_path)

    def run_epoch(state, epoch):
        state, metrics = task.run_epoch(state, epoch)
        return ({**state, "w": state["w"].at[1].set(jnp.inf)} if epoch == 5 else state), metrics

    with pytest.raises(
        UserError,
        match=r"toy: the weights \(state\['w'\]\) became inf in epoch 6; the last good state is kept in .*checkpoints",
    ):
        training.train(dataclasses.replace(task, run_epoch=run_epoch), state, KEEPING, ONE)
    with Store(tmp_path / "checkpoints") as store:
        assert store.variables("last", {"w": jnp.zeros(3)})[1]["epoch"] == 5


def test_what_a_task_warns_of_is_told_once(tmp_path, capsys):
    task, state, _ = toy(tmp_path)
    warn = lambda record: {"high": f"loss is {record['loss']:.0f}"} if record["epoch"] in (2, 4) else {}
    training.train(dataclasses.replace(task, warn=warn), state, KEEPING, ONE)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert line.startswith("warning: toy: in epoch 2 loss is ")
