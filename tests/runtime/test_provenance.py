"""Hashes of weights and the journal of jobs."""

import json

import numpy as np
import pytest

from ispf_jax.runtime.provenance import JOURNAL, journalled, weights_digest


def test_the_hash_is_of_names_and_bits():
    weights = {"params": {"conv": np.arange(4, dtype=np.float32)}}
    same = {"params": {"conv": np.arange(8, dtype=np.float32)[:4]}}
    digest = weights_digest(weights)
    assert digest == weights_digest(same) and len(digest) == 32
    changed = np.arange(4, dtype=np.float32)
    changed[3] = np.nextafter(np.float32(3), np.float32(4))
    assert (
        len(
            {
                digest,
                weights_digest({"params": {"conv": changed}}),
                weights_digest({"params": {"head": same["params"]["conv"]}}),
            }
        )
        == 3
    )


@pytest.fixture
def take(monkeypatch):
    """A job that takes as long as it is told, by a clock that only it moves."""
    clock = [100.0]
    monkeypatch.setattr("ispf_jax.runtime.provenance.time.perf_counter", lambda: clock[0])

    def take(workdir, job, seconds):
        with journalled(workdir, "unlearn", job, ["toy", "toy"]):
            clock[0] += seconds
            if seconds == 7:
                raise RuntimeError("stopped")

    return take


def test_jobs_that_did_something_are_written_down(tmp_path, take):
    take(tmp_path, "a", 5)
    take(tmp_path, "a", 0.01)  # finished before
    with pytest.raises(RuntimeError):
        take(tmp_path, "b", 7)
    lines = [json.loads(line) for line in (tmp_path / JOURNAL).read_text().splitlines()]
    assert [(j["stage"], j["job"], j["seconds"], j["finished"], j["devices"]) for j in lines] == [
        ("unlearn", "a", 5.0, True, ["toy", "toy"]),
        ("unlearn", "b", 7.0, False, ["toy", "toy"]),
    ]


def test_a_directory_that_cannot_be_written_costs_the_line_only(tmp_path, take):
    take(tmp_path / "gone", "a", 5)
    assert not (tmp_path / "gone").exists()
