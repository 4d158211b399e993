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
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    interruption.listen()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_epoch_it_comes_in(number, listening, tmp_path):
    undisturbed = train(*toy()[:2], tmp_path / "a", 1e9)
    task, state, ran = toy()

    def run_epoch(state, epoch):
        if epoch == 3:
            os.kill(os.getpid(), number)
        return task.run_epoch(state, epoch)

    with pytest.raises(interruption.Interrupted, match="after epoch 4 of 6"):
        train(dataclasses.replace(task, run_epoch=run_epoch), state, tmp_path / "b", 1e9)
    assert ran == ["prepared", 0, 1, 2, 3]
    interruption._requested.clear()

    task, state, ran = toy()
    assert_same(train(task, state, tmp_path / "b", 1e9).state, undisturbed.state)
    assert ran == ["prepared", 4, 5]
    assert [r["epoch"] for r in read_metrics(tmp_path / "b" / "metrics.jsonl")] == [1, 2, 3, 4, 5, 6]


def test_a_second_interrupt_stops_at_once(listening):
    os.kill(os.getpid(), signal.SIGINT)
    assert interruption.requested()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


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
    assert list((tmp_path / "runs").rglob("checkpoints/*/state"))
