"""Processes that find each other, and those that do not: one sentence, within the time that was given."""

import socket
import subprocess
import sys
import time

import pytest

from ispf_jax.runtime import interruption
from tests.test_launch import ROOT

PROGRAM = """
import sys, time
from ispf_jax.errors import UserError
from ispf_jax.runtime import rendezvous
address, processes, process, wait, code = sys.argv[1], *map(float, sys.argv[2:])
try:
    rendezvous.gather(address, int(processes), int(process), wait)
except UserError as error:
    sys.exit(f"error: {error}")
print("together", flush=True)
time.sleep(60 if code < 0 else 0.5)
rendezvous.leave(int(code))
"""


@pytest.fixture
def address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def start(address, processes, process, wait=60, code=0):
    """One process, which ends with the code after it has found the others; with -1 it goes on for a minute."""
    command = [sys.executable, "-c", PROGRAM, address, *map(str, (processes, process, wait, code))]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, **pipes)


def ends(*processes):
    """(exit code, last line) of each."""
    said = [process.communicate(timeout=50) for process in processes]
    return [(process.returncode, (err or out).splitlines()[-1]) for process, (out, err) in zip(processes, said)]


def test_all_find_each_other(address):
    last, *others = (start(address, 3, process) for process in (2, 0, 1))
    assert ends(last, *others) == [(0, "together")] * 3


def test_a_missing_process_is_named(address):
    found = ends(start(address, 3, 0, 3), start(address, 3, 2, 30))
    text = f"error: process 1 of 3 did not come to {address} within 3 s; start all of them, or wait longer."
    assert found == [(1, text), (1, text)]


def test_a_missing_first_process(address):
    ((code, said),) = ends(start(address, 2, 1, 1))
    assert code == 1 and f"process 0 did not answer at {address} within 1 s" in said


def test_strangers_and_wrong_numbers(address):
    first = start(address, 2, 0)

    def stranger(words):
        host, port = address.split(":")
        for _ in range(200):
            try:
                with socket.create_connection((host, int(port))) as line:
                    line.sendall(words)
                return
            except ConnectionRefusedError:
                time.sleep(0.1)

    for words in (b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 1000, b"ispf 2 x\n", b""):
        stranger(words)
    ((_, said),) = ends(start(address, 4, 1))
    assert "process 0 was started as one of 2 processes, this one as one of 4" in said
    ((_, said),) = ends(start(address, 2, 2))
    assert "give each its own number" in said
    assert ends(first, start(address, 2, 1)) == [(0, "together")] * 2


@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize(
    "code, expected, words",
    [
        (None, 2, "is gone"),
        (2, 2, "ended with an error"),
        (interruption.EXIT_CODE, interruption.EXIT_CODE, "was stopped"),
    ],
)
def test_a_lost_process_ends_the_other(address, lost, code, expected, words):
    processes = [start(address, 2, process, code=code if code and process == lost else -1) for process in (0, 1)]
    for process in processes:
        process.stdout.readline()
    if code is None:
        processes[lost].kill()
    ((found, said),) = ends(processes[1 - lost])
    assert found == expected and f"process {lost} {words}" in said and "the same command in every" in said
    ends_with = processes[lost].wait(50)
    assert ends_with == (-9 if code is None else code)
