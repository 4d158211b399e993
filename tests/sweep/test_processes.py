"""Two real processes that find each other through `jax.distributed` and share every run; and one run per directory."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from ispf_jax.config import make_experiment
from ispf_jax.errors import UserError
from ispf_jax.runtime import interruption
from ispf_jax.runtime.layout import job_at
from ispf_jax.runtime.lock import locked
from ispf_jax.runtime.telemetry import read_metrics
from ispf_jax.sweep import pipeline
from tests.sweep.test_pipeline import lone_worker, results, tiny

ROOT = Path(__file__).resolve().parents[2]
JOBS = ("original/seed0", "retrain/1/seed0", "unlearn/dfq/ispf/1/seed0")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with a configuration file, and the same run on one device in `one`."""
    place = tmp_path_factory.mktemp("processes")
    (place / "tiny_config.py").write_text(
        "from tests.sweep.test_pipeline import tiny\n\n\ndef get_config(variant=''):\n"
        "    return tiny(devices=0, checkpoint_seconds=0.0, progress_seconds=0.0, audit__shadows=1,\n"
        "                audit__metrics='accuracy,mia2', audit__embedding_images=0,\n"
        "                stages='original,retrain,unlearn,audit,report')\n"
    )
    pipeline.run(tiny(), str(place / "one"))
    return place


def start(place, workdir, *options):
    """Two processes with two devices each that run the configuration together."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2", "XDG_CACHE_HOME": str(place / "cache")}
    env["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, ROOT / "launch.py", f"--config={place}/tiny_config.py", f"--workdir={place / workdir}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    together = [[f"--coordinator={address}", "--processes=2", f"--process={i}"] for i in range(2)]
    return [subprocess.Popen([*command, *options, *mine], env=env, cwd=place, **pipes) for mine in together]


def finish(processes, code=0):
    """What they printed; they must all end with the code."""
    outputs = []
    try:
        for process in processes:
            outputs.append(process.communicate(timeout=400))
    finally:
        for process in processes:
            process.kill()
    assert [p.returncode for p in processes] == [code] * 2, "\n".join(o[1][-3000:] for o in outputs)
    return outputs


def variables(workdir, job):
    """The last variables of a job, as one flat vector."""
    network = lone_worker(make_experiment(tiny()), workdir).read(job_at(Path(job)), "last")
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(network.variables["params"])])


@pytest.mark.slow
def test_two_processes_stop_together_go_on_and_give_the_numbers_of_one(place):
    """Four devices in two processes, of which only the first prints results and writes; a signal to the second."""
    running = start(place, "two")
    for line in running[0].stderr:
        if "train/loss" in line:
            running[1].send_signal(signal.SIGTERM)
            break
    finish(running, interruption.EXIT_CODE)
    assert [log.parent.name for log in (place / "two").rglob("metrics.jsonl")] == ["seed0"]
    outputs = finish(start(place, "two"))
    assert "masked_head" in outputs[0][0] and "masked_head" not in outputs[1][0]
    assert "steps/s" in outputs[0][1] and "steps/s" not in outputs[1][1]
    for job in JOBS:
        one, two = (variables(place / name, job) for name in ("one", "two"))
        np.testing.assert_allclose(two, one, atol=2e-4 * np.abs(one).max(), err_msg=job)
        logs = [read_metrics(place / name / job / "metrics.jsonl") for name in ("one", "two")]
        assert [r["epoch"] for r in logs[1]] == [r["epoch"] for r in logs[0]]
    audit = json.loads((place / "two" / "audit" / "1" / "seed0" / "audit.json").read_text())
    assert {m["metric"] for m in audit["measurements"]} >= {"accuracy/forget", "mia2"} and "ispf/dfq" in audit["models"]
    # What two processes wrote goes on in one, on another number of devices.
    restored = variables(place / "two", JOBS[-1])
    (place / "two" / JOBS[-1] / "result.json").unlink()
    pipeline.run(tiny(devices=8), str(place / "two"))
    np.testing.assert_array_equal(variables(place / "two", JOBS[-1]), restored)
    assert len(results(place / "two")) == len(results(place / "one"))


@pytest.mark.slow
def test_an_error_is_reported_by_both_and_leaves_nobody_waiting(place):
    outputs = finish(start(place, "one", "--config.train.lr=0.07"), 2)
    assert all("train.lr differ(s)" in error for _, error in outputs)


def test_a_second_run_in_a_work_directory_is_refused(tmp_path):
    message = rf"{tmp_path} is in use by process {os.getpid()} on .*another directory"
    with locked(tmp_path), pytest.raises(UserError, match=message):
        pipeline.run(tiny(), str(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == [".lock"]
    with locked(tmp_path):  # and free again
        pass


def test_a_process_number_that_cannot_be(tmp_path):
    command = [sys.executable, ROOT / "launch.py", "--config=configs/digits_ispf.py", "--process=2", "--processes=2"]
    options = {"env": os.environ | {"JAX_PLATFORMS": "cpu"}, "cwd": tmp_path, "capture_output": True, "text": True}
    done = subprocess.run([*command, "--coordinator=127.0.0.1:1"], **options, timeout=100)
    message = "error: --process=2 must be from 0 to 1: one less than --processes=2.\n"
    assert (done.returncode, done.stderr) == (2, message)
