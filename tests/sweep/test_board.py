"""Jobs and how they are done: order, failures, several workers, a stop; and whole sweeps on tiny images."""

import threading
import time
from pathlib import Path

import jax
import pytest

from ispf_jax.config import make_experiment
from ispf_jax.devices import Devices
from ispf_jax.errors import StorageError, UserError
from ispf_jax.runtime import interruption
from ispf_jax.runtime.layout import job_at
from ispf_jax.runtime.provenance import weights_digest
from ispf_jax.sweep import board as sweep
from ispf_jax.sweep import pipeline, worker
from ispf_jax.sweep.jobs import Job, jobs
from tests.sweep.test_pipeline import lone_worker, results, tiny

A, B = Job("original", 0), Job("original", 1)
RETRAIN = Job("retrain", 0, (1,))
ISPF, GKT, OTHER = (
    Job("unlearn", seed, (1,), "dfq", method) for seed, method in ((0, "ispf"), (0, "gkt"), (1, "ispf"))
)
AUDIT = Job("audit", 0, (1,))


class Recorder:
    """A worker that notes what it is given; `broken` jobs raise what they are mapped to."""

    devices = Devices(())

    def __init__(self, workdir, broken=None):
        self.workdir, self.broken, self.did = workdir, broken or {}, []

    def do(self, job):
        self.did.append(job)
        if job in self.broken:
            raise self.broken[job]

    def must_stop(self):
        return interruption.requested()

    def memory_keys(self, job):
        return "config.distill.batch_size=256"


def test_the_jobs_of_an_experiment_in_order():
    e = make_experiment(
        tiny(methods="gkt,ispf", seeds="0,1", stages="original,retrain,unlearn,audit", audit__shadows=2)
    )
    found = jobs(e, ((1,), (0, 2)))
    assert len(found) == len(set(found)) == 2 + 4 + 8 + 2 + 4
    for job in found:
        assert all(found.index(other) < found.index(job) for other in found if job.needs(other))
    assert ISPF.needs(A) and not ISPF.needs(B) and not RETRAIN.needs(A) and not ISPF.needs(GKT)
    assert (
        AUDIT.needs(RETRAIN)
        and AUDIT.needs(ISPF)
        and AUDIT.needs(Job("shadow", 1, method="mia2"))
        and not AUDIT.needs(OTHER)
    )
    places = {str(job.place) for job in found}
    assert (
        len(places) == len(found)
        and {"original/seed0", "retrain/0-2/seed1", "unlearn/dfq/gkt/0-2/seed0", "shadows/mia2/shadow1"} <= places
    )


def test_a_failure_costs_its_own_job_and_those_that_need_it(tmp_path, caplog):
    worker = Recorder(tmp_path, {A: UserError("the original is unwell"), OTHER: ZeroDivisionError("by zero")})
    order = [A, B, RETRAIN, ISPF, GKT, OTHER, AUDIT]
    failed = sweep.work(order, sweep.Local([worker]))
    assert worker.did == [A, B, RETRAIN, OTHER, AUDIT]  # an audit measures what there is
    assert (
        failed[A] == "the original is unwell"
        and failed[ISPF] == failed[GKT] == "not run, because original seed 0 failed"
    )
    assert failed[OTHER].startswith("ZeroDivisionError: by zero (the traceback is in ") and set(failed) == {
        A,
        ISPF,
        GKT,
        OTHER,
    }
    assert "ZeroDivisionError: by zero" in (tmp_path / OTHER.place / "error.txt").read_text()
    assert "failed: original seed 0: the original is unwell" in caplog.messages
    text = sweep.failure_text(failed, len(order))
    assert text.startswith("4 of 7 jobs failed; the others are done.") and f"\n{OTHER}: ZeroDivisionError" in text
    assert sweep.failure_text({A: "alone"}, 1) == "alone"


def test_out_of_memory_names_the_batch_size(tmp_path):
    error = RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 12884901888 bytes.")
    (text,) = sweep.work([A], sweep.Local([Recorder(tmp_path, {A: error})])).values()
    assert text == "out of memory with config.distill.batch_size=256; set it to half, or use a smaller network."


def test_what_cannot_be_written_stops_everything(tmp_path):
    worker = Recorder(tmp_path, {A: StorageError("no space")})
    with pytest.raises(StorageError, match="no space"):
        sweep.work([A, B], sweep.Local([worker]))
    assert worker.did == [A]


def test_what_cannot_be_written_stops_all_workers_and_is_what_is_told(tmp_path, monkeypatch):
    """The first worker is only asked to stop; the second is why."""
    monkeypatch.setattr(interruption, "_requested", [])

    class Worker(Recorder):
        def do(self, job):
            if job == B:
                raise StorageError("no space")
            while not interruption.requested():
                time.sleep(0.01)
            raise interruption.Interrupted("saved")

    with pytest.raises(StorageError, match="no space"):
        sweep.work([A, B, ISPF], sweep.Local([Worker(tmp_path), Worker(tmp_path)]))


def test_several_workers_share_the_jobs_and_wait_for_what_they_need(tmp_path):
    both, seen = threading.Barrier(2, timeout=20), []

    class Worker(Recorder):
        def do(self, job):
            if job.kind == "original":
                both.wait()  # the two originals really run at the same time
            seen.append(job)

    order = [A, B, ISPF, GKT, OTHER]
    assert sweep.work(order, sweep.Local([Worker(tmp_path), Worker(tmp_path)])) == {}
    assert sorted(map(str, seen)) == sorted(map(str, order))
    assert all(seen.index(needed) < seen.index(job) for job in order for needed in order if job.needs(needed))


def test_a_stop_is_honoured_between_jobs(tmp_path, monkeypatch):
    monkeypatch.setattr(interruption, "_requested", [])

    class Stopping(Recorder):
        def do(self, job):
            super().do(job)
            interruption.request()

    worker = Stopping(tmp_path)
    with pytest.raises(interruption.Interrupted):
        sweep.work([A, B], sweep.Local([worker]))
    assert worker.did == [A]


# Whole sweeps


def test_a_failing_job_of_a_real_sweep_is_named_and_tried_again(tmp_path, monkeypatch):
    unlearn = worker.unlearn

    def failing(teacher, forget, method, **options):
        if method == "pf":
            raise UserError("pf is unwell")
        return unlearn(teacher, forget, method, **options)

    config = tiny(methods="pf,ispf", stages="original,unlearn,report")
    with monkeypatch.context() as patch:
        patch.setattr(worker, "unlearn", failing)
        with pytest.raises(
            UserError,
            match=r"^1 of 3 jobs failed; the others are done(.|\n)*unlearn pf \(dfq\) forget 1 seed 0: pf is unwell",
        ):
            pipeline.run(config, str(tmp_path))
    assert "ispf" in {row["method"] for row in results(tmp_path)} and "pf" not in {
        row["method"] for row in results(tmp_path)
    }
    (tmp_path / "unlearn" / "dfq" / "ispf" / "1" / "seed0" / "result.json").write_text(
        "[{"
    )  # and this one was damaged meanwhile
    pipeline.run(config, str(tmp_path))
    assert {"ispf", "pf"} <= {row["method"] for row in results(tmp_path)}


@pytest.fixture
def compilations():
    """Counts what XLA compiles."""
    counted = []

    def listener(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            counted.append(event)

    jax.monitoring.register_event_duration_secs_listener(listener)
    yield counted
    jax.monitoring.clear_event_listeners()


@pytest.mark.slow
def test_compilations_do_not_grow_with_classes_seeds_methods_or_thresholds(tmp_path, compilations):
    """A sweep six times as large compiles nothing that the small one has not; parts have programs in common."""
    small = tiny(stages="original,retrain,unlearn", compilation_cache="off")
    pipeline.run(small, str(tmp_path / "warm"))
    compilations.clear()
    pipeline.run(small, str(tmp_path / "small"))
    base = len(compilations)
    large = tiny(
        stages="original,retrain,unlearn", forget="each", seeds="0,1", methods="gkt,ispf", compilation_cache="off"
    )
    large.parts = {"low": {"distill": {"threshold": 0.01}}, "high": {"distill": {"threshold": 0.2}}}
    compilations.clear()
    pipeline.run(large, str(tmp_path / "large"))
    print(f"compilations: {base} for 3 jobs, {len(compilations)} for 64 jobs")
    assert len(compilations) <= 2 * base + 2  # what every part builds for itself; nothing per job


def test_parts_have_directories_of_their_own_and_one_table(tmp_path):
    config = tiny(stages="original,unlearn,report")
    config.parts = {"one": {}, "wide": {"model": {"width": 0.06}}}
    table = pipeline.run(config, str(tmp_path))
    assert table.startswith("one\n") and "\n\nwide\n" in table
    rows = [[row | {"part": part} for row in results(tmp_path / part)] for part in ("one", "wide")]
    combined = results(tmp_path)
    assert len(combined) == len(rows[0]) + len(rows[1]) and all(row in combined for part in rows for row in part)
    tables = (tmp_path / "tables.md").read_text()
    assert "one/report/index.html" in tables and "wide/report/index.html" in tables
    for directory in (tmp_path, tmp_path / "one", tmp_path / "wide"):
        assert "masked head" in (directory / "report" / "index.html").read_text().lower()
    with pytest.raises(UserError, match=r"part 'bad': config.model.width=-1"):
        config.parts = {"bad": {"model": {"width": -1.0}}}
        pipeline.run(config, str(tmp_path))


@pytest.mark.slow
def test_jobs_spread_over_eight_devices_give_the_bits_of_one(tmp_path):
    """Two originals and two students at a time, and one after the other."""
    common = {"seeds": "0,1", "stages": "original,unlearn,report"}
    pipeline.run(tiny(**common), str(tmp_path / "one"))
    pipeline.run(tiny(**common, spread="jobs", devices=8), str(tmp_path / "eight"))
    one, eight = ({key(r): value(r) for r in results(tmp_path / name)} for name in ("one", "eight"))
    assert one == eight and len(one) == 8
    for place in ("original/seed1", "unlearn/dfq/ispf/1/seed0", "unlearn/dfq/ispf/1/seed1"):
        assert weights(tmp_path / "one", place) == weights(tmp_path / "eight", place)


def key(row):
    return row["method"], row["seed"], row["selection"]


def value(row):
    return {name: v for name, v in row.items() if name != "train_seconds"}


def weights(workdir, place, config=None):
    """Digest of the last variables of a job."""
    found = lone_worker(make_experiment(config or tiny()), workdir).read(job_at(Path(place)), "last")
    return weights_digest(found.variables)


def test_the_same_configuration_gives_the_same_bits(tmp_path):
    for name in ("a", "b"):
        pipeline.run(tiny(stages="original,retrain,unlearn"), str(tmp_path / name))
    for place in ("original/seed0", "retrain/1/seed0", "unlearn/dfq/ispf/1/seed0"):
        assert weights(tmp_path / "a", place) == weights(tmp_path / "b", place)
    pipeline.run(tiny(stages="original", seeds="7"), str(tmp_path / "c"))
    assert weights(tmp_path / "c", "original/seed7") != weights(tmp_path / "a", "original/seed0")


def test_a_dry_run_names_the_jobs_and_touches_nothing(tmp_path):
    config = tiny(methods="gkt,ispf", seeds="0,1", dry_run=True)
    text = pipeline.run(config, str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()
    told, *lines = text.splitlines()
    assert told == "to forget: 1 (class1)"
    assert lines[0].split() == ["job", "state", "steps", "time", "left"] and len(lines) == 1 + 8 + 2
    assert lines[1].split()[:5] == ["original", "seed", "0", "to", "do"]
    assert "unlearn gkt (dfq) forget 1 seed 1" in text and lines[-2].startswith("8 of 8 jobs to do, ")
    pipeline.run(tiny(stages="original,unlearn", methods="gkt"), str(tmp_path / "new"))
    again = pipeline.run(config, str(tmp_path / "new")).splitlines()[1:]
    states = {line.split("  ")[0]: "finished" in line for line in again[1:9]}
    assert [job for job, done in states.items() if done] == ["original seed 0", "unlearn gkt (dfq) forget 1 seed 0"]
    assert again[-2].startswith("6 of 8 jobs to do, ")
