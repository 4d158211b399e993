"""SIGKILL at twenty random moments, each time continued: the last bit is as if nothing had happened."""

import json
import multiprocessing
import random
import signal
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from ispf_jax.runtime.telemetry import read_metrics
from ispf_jax.sweep import pipeline
from tests.sweep.test_pipeline import tiny

KILLS = 20
JOBS = ("original/seed0", "unlearn/dfq/ispf/1/seed0")
FORKS = multiprocessing.get_context("forkserver")  # with what takes long to import, but no device in use yet
FORKS.set_forkserver_preload(["tests.sweep.test_pipeline"])


def run(workdir):
    c = tiny(stages="original,unlearn,report", checkpoint_seconds=0.0)
    c.train.epochs, c.distill.epochs, c.evaluate.every = 15, 45, 10
    c.compilation_cache = str(workdir.parent / "compiled")
    pipeline.run(c, str(workdir))


def start(workdir):
    process = FORKS.Process(target=run, args=(workdir,))
    process.start()
    return process


def epochs(workdir):
    logs = (workdir / place / "metrics.jsonl" for place in JOBS)
    return sum(log.read_bytes().count(b"\n") for log in logs if log.exists())


@pytest.mark.slow
def test_twenty_kills_leave_no_trace(tmp_path):
    """One kill in four comes at the start of a process, the others once it has begun to train."""
    whole, cuts, killed, moments = tmp_path / "whole", [tmp_path / "cut"], 0, random.Random(0)
    process = start(whole)
    process.join(600)
    assert process.exitcode == 0
    while killed < KILLS or process.exitcode:
        done = epochs(cuts[-1])
        process = start(cuts[-1])
        if killed == KILLS:
            process.join(600)
        elif killed % 4:
            while process.is_alive() and epochs(cuts[-1]) <= done:
                time.sleep(0.01)
        process.join(moments.uniform(0, 0.5 if killed % 4 else 3))
        process.kill()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        if process.exitcode:
            killed += 1
        elif killed < KILLS:  # faster than its killers: another one
            cuts.append(tmp_path / f"cut{len(cuts)}")
    for cut in cuts:
        if cut.exists():
            assert_same_runs(whole, cut)


def assert_same_runs(whole, cut):
    for place in JOBS:
        jax.tree.map(np.testing.assert_array_equal, state(cut / place), state(whole / place))
        metrics = (read_metrics(directory / place / "metrics.jsonl") for directory in (whole, cut))
        records = [[{k: v for k, v in r.items() if k != "seconds"} for r in found] for found in metrics]
        assert records[0] == records[1] and [r["epoch"] for r in records[1]] == list(range(1, len(records[0]) + 1))
    rows = [json.loads((directory / "results.json").read_text())["rows"] for directory in (whole, cut)]
    timeless = [[{k: v for k, v in row.items() if k != "train_seconds"} for row in found] for found in rows]
    assert timeless[0] == timeless[1] and len(timeless[0]) == 4


def state(directory):
    """All of the newest checkpoint: both networks, optimisers, statistics, key, epoch; and both selected networks."""
    with ocp.CheckpointManager(directory / "checkpoints") as manager:
        step = manager.latest_step()
        items = {name: ocp.args.StandardRestore() for name in ("state", "last", "best")}
        return dict(manager.restore(step, args=ocp.args.Composite(**items))) | {"step": step}
