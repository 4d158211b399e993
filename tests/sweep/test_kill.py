"""SIGKILL at twenty random moments, each time continued: the last bit is as if nothing had happened."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from ispf_jax.runtime.telemetry import read_metrics

ROOT = Path(__file__).resolve().parents[1]
KILLS = 20

DRIVER = f"""
import json, os, random, signal, sys, time
import jax
from ispf_jax.sweep import pipeline
from tests.sweep.test_pipeline import tiny

def config(seconds):
    c = tiny(stages="original,unlearn,report", checkpoint_seconds=seconds, compilation_cache=sys.argv[1] + "/compiled")
    c.train.epochs = 20
    c.distill.epochs = 300
    c.evaluate.every = 50
    return c

def child(seconds, workdir):  # imported, but no device used yet, so that a start costs no import
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            sys.stdout = sys.stderr = open(sys.argv[1] + "/output.txt", "a")
            pipeline.run(config(seconds), workdir)
            code = 0
        finally:
            os._exit(code)
    return pid

def wait(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

began = time.monotonic()
assert wait(child(1e9, sys.argv[1] + "/warm")) == 0  # fills the compilation cache
began = time.monotonic()
assert wait(child(1e9, sys.argv[1] + "/whole")) == 0
whole = time.monotonic() - began
killed, moments, tries, cuts = 0, random.Random(0), 0, 1
while killed < {KILLS}:
    tries += 1
    assert tries < 100
    pid = child(0, sys.argv[1] + f"/cut{{cuts}}")
    time.sleep(moments.uniform(0, 0.6 * whole))
    os.kill(pid, signal.SIGKILL)
    code = wait(pid)
    if code == -signal.SIGKILL:
        killed += 1
    else:
        assert code == 0
        cuts += 1  # faster than its killers: another one
code = wait(child(0, sys.argv[1] + f"/cut{{cuts}}"))
print(json.dumps({{"killed": killed, "code": code, "cuts": cuts}}))
"""


def test_twenty_kills_leave_no_trace(tmp_path):
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, tmp_path], env=env, capture_output=True, text=True, timeout=1500
    )
    assert done.returncode == 0, done.stderr + (tmp_path / "output.txt").read_text()[-2000:]
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert (outcome["code"], outcome["killed"]) == (0, KILLS)
    for name in (f"cut{i + 1}" for i in range(outcome["cuts"])):
        assert_same_runs(tmp_path / "whole", tmp_path / name)


def assert_same_runs(whole, cut):
    for place in ("original/seed0", "unlearn/dfq/ispf/1/seed0"):
        jax.tree.map(np.testing.assert_array_equal, state(cut / place), state(whole / place))
        metrics = (read_metrics(directory / place / "metrics.jsonl") for directory in (whole, cut))
        records = [[{k: v for k, v in r.items() if k != "seconds"} for r in found] for found in metrics]
        assert records[0] == records[1] and [r["epoch"] for r in records[1]] == list(range(1, len(records[0]) + 1))
    rows = [json.loads((directory / "results.json").read_text())["rows"] for directory in (whole, cut)]
    timeless = [[{k: v for k, v in row.items() if k != "train_seconds"} for row in found] for found in rows]
    assert timeless[0] == timeless[1] and len(timeless[0]) == 4


def state(directory):
    """Everything in the newest checkpoint: both networks, optimisers, statistics, key, epoch; and both selected networks."""
    with ocp.CheckpointManager(directory / "checkpoints") as manager:
        step = manager.latest_step()
        items = {name: ocp.args.StandardRestore() for name in ("state", "last", "best")}
        return dict(manager.restore(step, args=ocp.args.Composite(**items))) | {"step": step}
