"""Jobs over Ray: two nodes on this machine, a process that is killed, jobs that fail, a stop."""

import logging
import os
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from ispf_jax.config import make_experiment
from ispf_jax.errors import ArgumentError, StorageError, UserError
from ispf_jax.runtime import interruption
from ispf_jax.runtime.telemetry import read_metrics
from ispf_jax.sweep import pipeline
from ispf_jax.sweep.board import work
from ispf_jax.sweep.cluster import Cluster, connected
from tests.sweep.test_board import AUDIT, GKT, ISPF, OTHER, RETRAIN, A, B, Recorder, weights
from tests.sweep.test_pipeline import tiny

ray = pytest.importorskip("ray", reason="needs the extra ray")
pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
KILLED = A


@pytest.fixture(scope="module")
def nodes():
    """A cluster of two nodes with a processor core each."""
    from ray.cluster_utils import Cluster as Nodes

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("RAY_memory_monitor_refresh_ms", "0")  # others may use the machine's memory up
        small = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
        nodes = Nodes(initialize_head=True, head_node_args=small | {"include_dashboard": False})
        nodes.add_node(**small)
        patch.setenv("RAY_ADDRESS", nodes.address)
        yield nodes
        nodes.shutdown()


def config(tmp_path):
    """An original and a student, saved after every epoch."""
    c = tiny(seeds="0", stages="original,unlearn", checkpoint_seconds=0.0)
    c.train.epochs, c.distill.epochs, c.compilation_cache = 40, 5, str(tmp_path / "compiled")
    return c


def make_worker(c, workdir):
    """The worker of a process; its first attempt at a job is noted in `started`, and at one of them it kills itself."""
    worker = pipeline.make_worker(make_experiment(c), workdir)
    do = worker.do

    def noted(job):
        place = workdir / job.place
        with open(workdir / "started", "a") as file:
            file.write(f"{job}|{os.getpid()}|{ray.get_runtime_context().get_node_id()}\n")
        if job == KILLED and not (place / "killed").exists():
            threading.Thread(target=kill, args=(place,), daemon=True).start()
        do(job)

    worker.do = noted
    return worker


def kill(place):
    while not saved(place):
        time.sleep(0.001)
    (place / "killed").write_text("in the middle")
    os.kill(os.getpid(), signal.SIGKILL)


def saved(place):
    """The last epoch of which there is a checkpoint."""
    return max((int(step.name) for step in (place / "checkpoints").glob("*") if step.name.isdigit()), default=0)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The same jobs without Ray."""
    workdir = tmp_path_factory.mktemp("alone")
    pipeline.run(config(workdir.parent), str(workdir))
    return workdir


def same_as(alone, workdir):
    for job in (A, ISPF):
        digests = [weights(d, job.place, config(d.parent)) for d in (workdir, alone)]
        assert digests[0] == digests[1]
        epochs, expected = (
            [r["epoch"] for r in read_metrics(d / job.place / "metrics.jsonl")] for d in (workdir, alone)
        )
        assert epochs == expected


def test_a_job_whose_process_is_killed_is_tried_again_and_all_have_the_bits_of_a_run_alone(
    nodes, alone, tmp_path, caplog
):
    caplog.set_level(logging.INFO, "ispf_jax")
    make = partial(make_worker, config(tmp_path.parent), tmp_path)
    with connected():
        assert work([A, ISPF, B, RETRAIN], Cluster(make, tmp_path), retries=1) == {}
    same_as(alone, tmp_path)
    started = [line.split("|") for line in (tmp_path / "started").read_text().splitlines()]
    jobs = [job for job, _, _ in started]
    assert sorted(jobs) == sorted(map(str, (KILLED, A, B, RETRAIN, ISPF)))
    assert len({process for job, process, _ in started if job == str(KILLED)}) == 2
    assert len({node for _, _, node in started}) == 2
    assert jobs.index(str(ISPF)) > max(i for i, job in enumerate(jobs) if job == str(A))
    told = caplog.messages
    assert (
        f"{KILLED}: its process or machine was lost (WorkerCrashedError), often for want of memory; "
        "trying again (1 of 1)" in told
    )
    assert any(": 2 of 4 jobs done, " in line and line.endswith(" left") for line in told)


def test_a_signal_to_the_program_saves_the_running_jobs_and_the_next_start_goes_on(nodes, alone, tmp_path, monkeypatch):
    monkeypatch.setattr(interruption, "_requested", [])
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    c = config(tmp_path.parent)
    c.spread = "ray"

    def stop():
        while not saved(tmp_path / A.place):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    try:
        interruption.listen()
        threading.Thread(target=stop, daemon=True).start()
        with pytest.raises(interruption.Interrupted, match="original seed 0: saved after epoch "):
            pipeline.run(c, str(tmp_path))
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    epochs = [r["epoch"] for r in read_metrics(tmp_path / A.place / "metrics.jsonl")]
    assert 0 < len(epochs) < c.train.epochs and saved(tmp_path / A.place) == epochs[-1]
    assert not (tmp_path / ISPF.place / "metrics.jsonl").exists()
    monkeypatch.setattr(interruption, "_requested", [])
    pipeline.run(c, str(tmp_path))
    same_as(alone, tmp_path)


class Noting(Recorder):
    """Notes the jobs in a file, which outlives its process."""

    def do(self, job):
        with open(self.workdir / "did", "a") as file:
            file.write(f"{job}\n")
        super().do(job)


def test_a_failure_is_tried_again_where_that_may_help_and_costs_what_needs_it(tmp_path, monkeypatch):
    """Ray on this machine only."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    order = [A, B, RETRAIN, ISPF, GKT, OTHER, AUDIT]
    make = partial(Noting, tmp_path, {A: UserError("the original is unwell"), OTHER: ZeroDivisionError("by zero")})
    with connected():
        failed = work(order, Cluster(make, tmp_path), retries=2)
        with pytest.raises(
            StorageError, match=r"has no directory /nowhere; the work directory must be on a file system"
        ):
            work(order, Cluster(make, Path("/nowhere")))
        (text,) = work([A], Cluster(partial(broken, "no images here"), tmp_path), retries=2).values()
        assert text == "no images here"
    assert failed[A] == "the original is unwell" and failed[ISPF] == failed[GKT] == f"not run, because {A} failed"
    assert failed[OTHER].startswith("ZeroDivisionError: by zero (the traceback is in ") and len(failed) == 4
    assert "ZeroDivisionError: by zero" in (tmp_path / OTHER.place / "error.txt").read_text()
    did = (tmp_path / "did").read_text().splitlines()
    assert sorted(did) == sorted(map(str, (A, B, RETRAIN, OTHER, OTHER, OTHER, AUDIT)))


def broken(text):
    raise UserError(text)


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(ArgumentError, match=r"spread='ray' needs the package ray: pip install 'ispf-jax\[ray\]'"),
        connected(),
    ):
        pass
