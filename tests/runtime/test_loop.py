"""Carrying a stage through its epochs: an interruption at any place leaves no trace in the result."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ispf_jax import devices
from ispf_jax.errors import UserError
from ispf_jax.runtime.loop import RunOptions, Task, run
from ispf_jax.runtime.store import Store
from ispf_jax.runtime.telemetry import read_metrics

ONE = devices.choose(1)
SCORES = (0.0, 3.0, 1.0, 3.0, 2.0, 0.5)  # best after epoch 2; the first of equals counts

AGREED = (0.0, 3.0, 1.0, 4.0, 2.0, 3.5)


class Interrupted(Exception):
    """Stands for whatever ends a process."""


def toy(epochs=6, stop_at=None, score=True, fail_with=None):
    """A random walk, and a list of the epochs that ran."""
    ran = []

    def run_epoch(state, epoch, meta):
        if epoch == stop_at:
            raise Interrupted
        ran.append(epoch)
        w = state["w"] + jax.random.normal(jax.random.fold_in(state["key"], epoch), (3,))
        loss = jnp.float32(jnp.nan) if epoch == fail_with else w.sum()
        return {**state, "w": w}, {
            "loss": loss,
            "counts": jnp.arange(2) + epoch,
            "agreed": AGREED[epoch],
            "laps": epoch,
        }

    def measure(variables, epoch):
        return {"score": SCORES[epoch - 1], "twice": 2 * SCORES[epoch - 1]} if score else {}

    def prepare(state):
        ran.append("prepared")
        return 0.0

    state = {"w": jnp.zeros(3), "key": jax.random.key(1)}
    return Task("toy", epochs, 2, prepare, run_epoch, lambda s: {"w": s["w"]}, measure, ("loss",)), state, ran


def train(task, state, directory=None, seconds=0.0):
    """What is saved last; with `seconds` of 0 every epoch is a checkpoint."""
    return run(task, state, RunOptions(checkpoints=directory, progress=False, checkpoint_seconds=seconds), ONE)[0]


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
    task, state, ran = toy()
    saved = train(task, state, tmp_path)
    assert ran == ["prepared", *range(6)]
    assert (saved.meta["epoch"], saved.meta["best_epoch"], saved.meta["best_score"]) == (6, 2, 3.0)
    records = read_metrics(tmp_path / "metrics.jsonl")
    assert [r["epoch"] for r in records] == [1, 2, 3, 4, 5, 6]
    assert [r["twice"] for r in records] == [2 * s for s in SCORES] and records[3]["counts"] == [3, 4]
    seconds = [r["seconds"] for r in records]
    assert seconds == sorted(seconds) and seconds[-1] == saved.meta["seconds"] > 0


def test_without_a_score_best_is_the_last(tmp_path):
    task, state, _ = toy(score=False)
    saved = train(task, state, tmp_path)
    assert_same(saved.best, saved.last)
    assert saved.meta["best_score"] is None


def test_a_finished_task_runs_and_compiles_nothing(tmp_path):
    task, state, _ = toy()
    first = train(task, state, tmp_path)
    before = (tmp_path / "metrics.jsonl").stat().st_mtime_ns
    task, state, ran = toy()
    assert_same_saved(train(task, state, tmp_path), first)
    assert ran == [] and (tmp_path / "metrics.jsonl").stat().st_mtime_ns == before


@pytest.mark.parametrize("stop_at", [0, 1, 3, 5])
@pytest.mark.parametrize("seconds", [0.0, 1e9], ids=["every epoch saved", "only the end saved"])
def test_an_interrupted_task_ends_bit_by_bit_as_an_undisturbed_one(tmp_path, stop_at, seconds):
    task, state, _ = toy()
    whole = train(task, state, tmp_path / "whole")
    task, state, _ = toy(stop_at=stop_at)
    with pytest.raises(Interrupted):
        train(task, state, tmp_path / "cut", seconds)
    task, state, ran = toy()
    again = train(task, state, tmp_path / "cut", seconds)
    assert ran == ["prepared", *range(0 if seconds else stop_at, 6)]
    assert_same_saved(again, whole)
    logs = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "cut")]
    assert without_time(logs[0]) == without_time(logs[1])
    with Store(tmp_path / "cut" / "checkpoints") as store:
        variables, meta = store.variables("best", whole.best)
    assert_same(variables, whole.best)
    assert meta["best_epoch"] == 2


def test_a_log_that_is_ahead_of_the_checkpoint_is_cut_back(tmp_path):
    """The process ended between writing an epoch's record and saving its checkpoint, in the middle of a line."""
    task, state, _ = toy(stop_at=3)
    with pytest.raises(Interrupted):
        train(task, state, tmp_path)
    with open(tmp_path / "metrics.jsonl", "a") as log:
        log.write(json.dumps({"epoch": 4, "loss": 99.0}) + "\n" + '{"epoch": 5, "lo')
    task, state, _ = toy()
    train(task, state, tmp_path)
    records = read_metrics(tmp_path / "metrics.jsonl")
    assert [r["epoch"] for r in records] == [1, 2, 3, 4, 5, 6] and records[3]["loss"] != 99.0


def test_damage_in_the_last_checkpoint_costs_only_the_epochs_after_the_one_before(tmp_path):
    task, state, _ = toy()
    whole = train(task, state, tmp_path)
    for path in (tmp_path / "checkpoints" / "6").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    task, state, ran = toy()
    assert_same_saved(train(task, state, tmp_path), whole)
    assert ran == ["prepared", 5]
    task, state, ran = toy()
    assert_same_saved(train(task, state, tmp_path), whole)
    assert ran == []


def test_numbers_that_are_not_finite_stop_the_run_and_keep_the_last_good_state(tmp_path):
    task, state, _ = toy(fail_with=4)
    with pytest.raises(UserError, match=r"toy: loss became nan in epoch 5; .* is kept; lower the learning rate"):
        train(task, state, tmp_path)
    with Store(tmp_path / "checkpoints") as store:
        assert store.variables("last", {"w": jnp.zeros(3)})[1]["epoch"] == 4
    assert [r["epoch"] for r in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4]


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    """The last update of the last epoch spoils them, which no loss has seen."""
    task, state, _ = toy()

    def run_epoch(state, epoch, meta):
        state, metrics = task.run_epoch(state, epoch, meta)
        return ({**state, "w": state["w"].at[1].set(jnp.inf)} if epoch == 5 else state), metrics

    with pytest.raises(
        UserError, match=r"toy: the weights \(state\['w'\]\) became inf in epoch 6; the last good checkpoint is kept"
    ):
        train(dataclasses.replace(task, run_epoch=run_epoch), state, tmp_path)
    with Store(tmp_path / "checkpoints") as store:
        assert store.variables("last", {"w": jnp.zeros(3)})[1]["epoch"] == 5


def test_a_warning_is_logged_once(tmp_path, caplog):
    task, state, _ = toy()
    warn = lambda record: {"high": f"loss is {record['loss']:.0f}"} if record["epoch"] in (2, 4) else {}
    train(dataclasses.replace(task, warn=warn), state, tmp_path)
    (message,) = caplog.messages
    assert message.startswith("toy: in epoch 2 loss is ")


def test_without_a_directory_a_run_lives_in_memory(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    task, state, _ = toy()
    saved, history = run(task, state, RunOptions(progress=False), ONE)
    assert_same_saved(saved, train(*toy()[:2], tmp_path / "kept"))
    assert [(r["epoch"], r["twice"]) for r in history] == [(i + 1, 2 * s) for i, s in enumerate(SCORES)]
    assert [path.name for path in tmp_path.iterdir()] == ["kept"] and capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("patience", "ran_for"), [(0, 6), (1, 3), (2, 6), (3, 6)])
def test_a_metric_can_choose_the_result_and_end_the_run(tmp_path, patience, ran_for):
    """Of AGREED the highest value is the fourth, and up to the third epoch the second; interrupted or not."""
    chosen = 4 if ran_for == 6 else 2
    by_metric = {"carried": ("laps",), "chosen_by": "agreed", "patience": patience}
    task, state, _ = toy()
    saved = train(dataclasses.replace(task, **by_metric), state, tmp_path / "a")
    assert (saved.meta["epoch"], saved.meta["chosen_epoch"], saved.meta["laps"]) == (ran_for, chosen, ran_for - 1)
    assert_same(saved.last, train(toy(chosen)[0], state).last)
    for stop in range(1, ran_for):
        task = dataclasses.replace(toy(stop_at=stop)[0], **by_metric)
        with pytest.raises(Interrupted):
            train(task, state, tmp_path / str(stop))
        again = train(dataclasses.replace(toy()[0], **by_metric), state, tmp_path / str(stop))
        assert_same_saved(again, saved)
    done, state, ran = toy()
    assert_same_saved(train(dataclasses.replace(done, **by_metric), state, tmp_path / "a"), saved)
    assert not ran
