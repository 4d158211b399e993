"""SIGTERM and SIGINT: the epoch they come in is finished and saved, and the next start continues it bit by bit."""

import dataclasses
import os
import signal
import subprocess
import sys

import pytest

from ispf_jax.runtime import interruption
from ispf_jax.runtime.telemetry import read_metrics
from tests.runtime.test_loop import assert_same, toy, train
from tests.test_launch import DIGITS, ROOT


@pytest.fixture
def listening(monkeypatch):
    monkeypatch.setattr(interruption, "_requested", [])
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    interruption.listen()
    yield
    signal.set_wakeup_fd(-1)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_epoch_it_comes_in(number, listening, tmp_path):
    undisturbed = train(*toy()[:2], tmp_path / "a", 1e9)
    task, state, ran = toy()

    def run_epoch(state, epoch, meta):
        if epoch == 3:
            os.kill(os.getpid(), number)
        return task.run_epoch(state, epoch, meta)

    with pytest.raises(interruption.Interrupted, match="after epoch 4 of 6"):
        train(dataclasses.replace(task, run_epoch=run_epoch), state, tmp_path / "b", 1e9)
    assert ran == ["prepared", 0, 1, 2, 3]
    interruption._requested.clear()

    task, state, ran = toy()
    assert_same(train(task, state, tmp_path / "b", 1e9).state, undisturbed.state)
    assert ran == ["prepared", 4, 5]
    assert [r["epoch"] for r in read_metrics(tmp_path / "b" / "metrics.jsonl")] == [1, 2, 3, 4, 5, 6]


def test_a_second_interrupt_stops_at_once(listening):
    with interruption.finishing():
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.requested()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


WAITING = {  # what a process does before its first epoch
    "importing": "",
    "reading": "import time\nfor _ in range(600): time.sleep(0.1)",
    "swallowing": "import time\nfor _ in range(600):\n    try: time.sleep(0.1)\n    except BaseException: pass",
    "in C": "import ctypes\nctypes.CDLL(None).sleep(60)",
    "in a thread": "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\ntime.sleep(60)",
}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("what", WAITING)
def test_before_there_is_anything_to_lose_a_signal_ends_the_process(what, number):
    code = "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # under nohup it would be ignored
    code += f"from ispf_jax.runtime import interruption\ninterruption.listen()\nprint(flush=True)\n{WAITING[what]}"
    code += "\nimport ispf_jax.sweep.pipeline\n" if what == "importing" else ""
    command = [sys.executable, "-c", code]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=ROOT, **pipes)
    process.stdout.readline()
    process.send_signal(number)
    _, said = process.communicate(timeout=50)  # those that do not end by themselves last for 60 s
    assert process.returncode == interruption.EXIT_CODE and "the same command continues" in said.splitlines()[0]
    assert "Traceback" not in said or what == "importing"


def test_an_ignored_hangup_stays_ignored():
    code = "import os, signal\nfrom ispf_jax.runtime import interruption\nsignal.signal(1, signal.SIG_IGN)\n"
    code += "interruption.listen()\nos.kill(os.getpid(), 1)\nprint(interruption.requested())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "False\n")


def test_the_process_ends_with_its_own_exit_code(tmp_path):
    command = [
        sys.executable,
        ROOT / "launch.py",
        f"{DIGITS}:smoke",
        "--config.train.epochs=100000",
        "--config.progress_seconds=0",
    ]
    process = subprocess.Popen(
        command, cwd=tmp_path, env={**os.environ, "JAX_PLATFORMS": "cpu"}, stderr=subprocess.PIPE, text=True
    )
    for line in process.stderr:
        if "train/loss" in line:
            process.send_signal(signal.SIGTERM)
            break
    rest = process.stderr.read()
    assert process.wait(timeout=60) == interruption.EXIT_CODE
    assert "the same command continues" in rest and "Traceback" not in rest
    assert list((tmp_path / "runs").rglob("checkpoints/*/state")), rest
