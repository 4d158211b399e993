"""Where results come from: hashes of weights, and a journal of what every job of every start took."""

import hashlib
import json
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from absl import logging

JOURNAL = "jobs.jsonl"
"""In the work directory, one line per job that was worked on: {"stage", "job", "seconds", "cpu_seconds", "finished",
"ended", "devices"}."""

_NOTHING_TO_DO = 0.1
"""Seconds that no training or audit can do with: a job that took less had been finished before, and is not written
down again."""


def weights_digest(variables) -> str:
    """A hash of a network's variables, the same for the same names and bits."""
    import jax  # the report, which needs none of it, reads the journal through this file

    digest = hashlib.blake2b(digest_size=16)
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


@contextmanager
def journalled(workdir: Path, stage: str, job: str, devices: list[str]):
    """Write the wall time of the block, one job of a stage, into the journal of the work directory.

    The time is the whole job's: compilation, training, evaluation and pictures. The entry also has the time of this
    process's processor cores, which other work on the machine does not lengthen (jobs side by side in one process
    lengthen each other's). A job that is interrupted or fails is written down with "finished" false, so times of
    several starts add up; only what ran when a process was killed outright is lost.
    """
    began, busy, finished = time.perf_counter(), time.process_time(), False
    try:
        yield
        finished = True
    finally:
        seconds = time.perf_counter() - began
        if seconds > _NOTHING_TO_DO:
            _append(workdir / JOURNAL, stage, job, seconds, time.process_time() - busy, finished, devices)


def _append(path: Path, stage, job, seconds, busy, finished, devices):
    entry = {
        "stage": stage,
        "job": job,
        "seconds": round(seconds, 3),
        "cpu_seconds": round(busy, 3),
        "finished": finished,
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "devices": devices,
    }
    line = (json.dumps(entry) + "\n").encode()
    try:
        with open(path, "ab", buffering=0) as file:
            file.write(line)  # one write: lines of processes that share the directory do not mix
    except OSError as error:  # the job itself is done and saved
        logging.warning("cannot write %s (%s); the time of this job is not in the report", path, error)
