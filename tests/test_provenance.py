"""Hashes of weights and the journal of jobs."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from ispf_jax.provenance import JOURNAL, journalled, weights_digest


def test_the_hash_is_of_names_and_bits():
    weights = {"params": {"conv": np.arange(4, dtype=np.float32)}}
    same = {"params": {"conv": np.arange(8, dtype=np.float32)[:4]}}
    digest = weights_digest(weights)
    assert digest == weights_digest(same) and len(digest) == 32
    changed = np.arange(4, dtype=np.float32)
    changed[3] = np.nextafter(np.float32(3), np.float32(4))
    assert len({digest, weights_digest({"params": {"conv": changed}}), weights_digest({"params": {"head": same["params"]["conv"]}})}) == 3


class Jobs:
    """A pipeline whose job takes as long as it is told, by a clock that only it moves."""

    def __init__(self, workdir, clock):
        self.workdir, self._clock, self.devices = workdir, clock, SimpleNamespace(devices=[SimpleNamespace(device_kind="toy")] * 2)

    @journalled("unlearn")
    def unlearn(self, seed, forget, seconds):
        self._clock[0] += seconds
        if seconds == 7:
            raise RuntimeError("stopped")
        return seconds


def test_jobs_that_did_something_are_written_down(tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("ispf_jax.provenance.time.perf_counter", lambda: clock[0])
    jobs = Jobs(tmp_path, clock)
    assert jobs.unlearn(0, (1, 2), 5) == 5
    jobs.unlearn(0, (1, 2), 0.01)  # finished before
    with pytest.raises(RuntimeError):
        jobs.unlearn(1, (3,), 7)
    lines = [json.loads(line) for line in (tmp_path / JOURNAL).read_text().splitlines()]
    assert [(j["stage"], j["job"], j["seconds"], j["finished"], j["devices"]) for j in lines] == [
        ("unlearn", [0, [1, 2], 5], 5.0, True, ["toy", "toy"]), ("unlearn", [1, [3], 7], 7.0, False, ["toy", "toy"])]


def test_a_directory_that_cannot_be_written_costs_the_line_only(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("ispf_jax.provenance.time.perf_counter", lambda: clock[0])
    assert Jobs(tmp_path / "gone", clock).unlearn(0, (1,), 5) == 5
