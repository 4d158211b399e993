"""Atomic writing and strict JSON."""

import json
import math
import os

import numpy as np
import pytest

from ispf_jax.errors import UserError
from ispf_jax.runtime import atomic as files
from ispf_jax.runtime.schema import fit


def reject_constant(name):
    raise AssertionError(f"{name} is not JSON")


def test_plain_json_is_strict_and_comes_back():
    value = {
        "a": math.nan,
        "b": [math.inf, -math.inf, 1],
        "c": np.float32(0.5),
        "d": np.arange(3),
        4: (np.int64(7), True, None),
        "e": "text",
    }
    text = json.dumps(files.to_plain(value), allow_nan=False)
    assert json.loads(text, parse_constant=reject_constant)["b"] == ["inf", "-inf", 1]
    back = json.loads(text)
    assert back.pop("a") == "nan"
    assert back == {"b": ["inf", "-inf", 1], "c": 0.5, "d": [0, 1, 2], "4": [7, True, None], "e": "text"}
    assert math.isnan(fit(float, "nan")) and fit(list[float], ["inf", "-inf", 1]) == [math.inf, -math.inf, 1]


def test_nan_inside_an_array_is_strict_too():
    assert files.to_plain(np.array([1.0, np.nan, -np.inf])) == [1.0, "nan", "-inf"]


def test_atomic_write_replaces_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / "a.json"
    files.atomic_write_text(path, "old")
    files.atomic_write_json(path, {"x": np.float64(1.5), "ä": 1})
    assert json.loads(path.read_text(encoding="utf-8")) == {"x": 1.5, "ä": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_failed_write_keeps_the_old_content(tmp_path, monkeypatch):
    path = files.atomic_write_text(tmp_path / "a.txt", "old")

    def disk_full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", disk_full)
    with pytest.raises(UserError, match=r"a\.txt.*No space left"):
        files.atomic_write_text(path, "new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_ensure_writable_creates_parents_and_leaves_no_probe(tmp_path):
    made = files.ensure_writable(tmp_path / "x" / "y")
    assert made.is_dir() and os.listdir(made) == []


def test_ensure_writable_names_the_directory(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/below.*another work directory"):
        files.ensure_writable(tmp_path / "file" / "below")
