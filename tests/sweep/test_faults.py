"""A disk that is full, and settings that JAX wants early: the whole program in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from ispf_jax.config import make_experiment
from ispf_jax.sweep import pipeline
from tests.sweep.test_pipeline import results, snapshot, tiny

ROOT = Path(__file__).resolve().parents[2]
RUN = """
import resource, sys
from ispf_jax.sweep import pipeline
from ispf_jax.errors import UserError
from tests.sweep.test_pipeline import tiny
if len(sys.argv) > 2:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    pipeline.run(tiny(checkpoint_seconds=0.0), sys.argv[1])
except UserError as error:
    print(error, file=sys.stderr)
    sys.exit(2)
"""


def start(workdir, limit=None):
    """A run in which no file can grow beyond `limit` bytes."""
    return subprocess.run(
        [sys.executable, "-c", RUN, workdir, *([str(limit)] if limit else [])],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(workdir / "cache")},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
def test_a_file_that_cannot_grow_costs_nothing_that_was_saved(tmp_path):
    pipeline.run(tiny(stages="original"), str(tmp_path))
    before = snapshot(tmp_path / "original")
    done = start(tmp_path, limit=2000)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert "cannot " in last and str(tmp_path) in last and ("free space" in last or "writable" in last)
    assert snapshot(tmp_path / "original") == before
    done = start(tmp_path)
    assert done.returncode == 0, done.stderr
    assert {row["method"] for row in results(tmp_path)} == {"original", "masked_head", "retrain", "ispf"}


@pytest.mark.parametrize("key, place", [("auto", "cache/ispf_jax/compiled"), ("mine", "mine")])
def test_where_compiled_programs_are_kept(tmp_path, monkeypatch, key, place):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = jax.config.jax_compilation_cache_dir
    try:
        pipeline._prepare_jax(make_experiment(tiny(compilation_cache=key if key == "auto" else str(tmp_path / key))))
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / place)
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
