"""Two real processes that find each other through `jax.distributed`: one run spread over both, and jobs spread over both."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ispf_jax.config import make_experiment
from ispf_jax.errors import UserError
from ispf_jax.runtime import interruption
from ispf_jax.runtime.lock import locked
from ispf_jax.runtime.telemetry import read_metrics
from ispf_jax.sweep import pipeline
from tests.sweep.test_pipeline import lone_worker, results, tiny

ROOT = Path(__file__).resolve().parents[1]
METHODS = "gkt,ispf"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with a configuration file, and the same run on one device in `one`."""
    place = tmp_path_factory.mktemp("processes")
    (place / "tiny_config.py").write_text(
        "from tests.sweep.test_pipeline import tiny\n\n\n"
        f"def get_config(variant=''):\n    return tiny(methods={METHODS!r}, devices=0, checkpoint_seconds=0.0, "
        "stages='original,retrain,unlearn,audit,report', audit__shadows=1, audit__metrics='accuracy,mia2', audit__embedding_images=0)\n"
    )
    pipeline.run(tiny(methods=METHODS), str(place / "one"))
    return place


def start(place, workdir, *options, processes=2, devices=2, together=True):
    """Processes that run the configuration together."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    env = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "XDG_CACHE_HOME": str(place / "cache"),
    }
    command = [
        sys.executable,
        ROOT / "launch.py",
        f"--config={place}/tiny_config.py",
        f"--workdir={place / workdir}",
        *options,
    ]
    return [
        subprocess.Popen(
            [
                *command,
                *([f"--coordinator={address}", f"--processes={processes}", f"--process={i}"] if together else []),
            ],
            env=env,
            cwd=place,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(processes)
    ]


def finish(processes, code=0):
    """What they printed; they must all end with the code."""
    outputs = []
    try:
        for process in processes:
            outputs.append(process.communicate(timeout=400))
    finally:
        for process in processes:
            process.kill()
    assert [p.returncode for p in processes] == [code] * len(processes), "\n".join(o[1][-3000:] for o in outputs)
    return outputs


def variables(workdir, job):
    """The last variables of a job, as one flat vector."""
    worker = lone_worker(make_experiment(tiny()), workdir)
    found = worker.load(workdir / job, "last")[0]["params"]
    return np.concatenate([np.ravel(leaf) for name in sorted(found) for leaf in _leaves(found[name])])


def _leaves(tree):
    return [
        leaf
        for name in sorted(tree)
        for leaf in (_leaves(tree[name]) if isinstance(tree[name], dict) else [tree[name]])
    ]


JOBS = ("original/seed0", "retrain/1/seed0", "unlearn/dfq/gkt/1/seed0", "unlearn/dfq/ispf/1/seed0")


def test_one_run_over_two_processes_gives_the_numbers_of_one(place):
    """Four devices in two processes; only process 0 prints results and writes."""
    outputs = finish(start(place, "batch"))
    assert "masked_head" in outputs[0][0] and "masked_head" not in outputs[1][0]
    assert "steps/s" in outputs[0][1] and "steps/s" not in outputs[1][1]
    for job in JOBS:
        one, two = (variables(place / name, job) for name in ("one", "batch"))
        np.testing.assert_allclose(two, one, atol=2e-4 * np.abs(one).max(), err_msg=job)
        logs = [read_metrics(place / name / job / "metrics.jsonl") for name in ("one", "batch")]
        assert [r["epoch"] for r in logs[1]] == [r["epoch"] for r in logs[0]]
    audit = json.loads((place / "batch" / "audit" / "1" / "seed0" / "audit.json").read_text())
    assert {m["metric"] for m in audit["measurements"]} >= {"accuracy/forget", "mia2"} and "ispf/dfq" in audit["models"]
    # What two processes wrote goes on in one, on another number of devices.
    restored = variables(place / "batch", JOBS[-1])
    (place / "batch" / JOBS[-1] / "result.json").unlink()
    pipeline.run(tiny(methods=METHODS, devices=8), str(place / "batch"))
    np.testing.assert_array_equal(variables(place / "batch", JOBS[-1]), restored)
    assert len(results(place / "batch")) == len(results(place / "one"))


def test_jobs_over_two_processes_give_the_bits_of_one(place):
    """The same command twice, nothing more."""
    outputs = finish(start(place, "jobs", "--config.spread=jobs", devices=1, together=False))
    rows = [
        [{k: v for k, v in row.items() if k != "train_seconds"} for row in results(place / name)]
        for name in ("one", "jobs")
    ]
    assert rows[0] == rows[1]
    for job in JOBS:
        np.testing.assert_array_equal(variables(place / "jobs", job), variables(place / "one", job))
    began = [set(re.findall(r"(?m)^(\w+ .*?) \| 0/", error)) for _, error in outputs]
    assert (
        all(began)
        and not began[0] & began[1]
        and began[0] | began[1] >= {"original seed 0", "retrain without 1 seed 0"}
        and len(began[0] | began[1]) == len(JOBS) + 1
    )


def test_a_signal_to_one_process_stops_both_and_both_go_on(place):
    running = start(place, "stopped", "--config.progress_seconds=0")
    for line in running[0].stderr:
        if "train/loss" in line:
            running[1].send_signal(signal.SIGTERM)
            break
    finish(running, interruption.EXIT_CODE)
    done = max(r["epoch"] for log in (place / "stopped").rglob("metrics.jsonl") for r in read_metrics(log))
    assert done >= 1
    finish(start(place, "stopped"))
    assert len(results(place / "stopped")) == len(results(place / "one"))


def test_an_error_is_told_by_both_and_leaves_nobody_waiting(place):
    outputs = finish(start(place, "one", "--config.train.lr=0.07"), 2)
    assert all("train.lr differ(s)" in error for _, error in outputs)


def test_a_second_process_in_a_work_directory_is_refused(tmp_path):
    with locked(tmp_path):
        with pytest.raises(UserError, match=rf"{tmp_path} is in use by process {os.getpid()} on .*another --workdir"):
            pipeline.run(tiny(), str(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == [".lock"]
    with locked(tmp_path):  # and free again
        pass


def test_a_process_number_that_cannot_be(place):
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    command = [
        sys.executable,
        ROOT / "launch.py",
        f"--config={place}/tiny_config.py",
        "--coordinator=127.0.0.1:1",
        "--processes=2",
        "--process=2",
    ]
    done = subprocess.run(command, env=env, cwd=place, capture_output=True, text=True, timeout=100)
    assert (
        done.returncode == 2 and done.stderr == "error: --process=2 must be from 0 to 1: one less than --processes=2.\n"
    )
    assert json.loads((place / "one" / "results.json").read_text())["rows"]
