"""docs/extending.md does what it says: its configuration, with a method, a network and a data set of its own, is run as it stands."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from ispf_jax import data
from ispf_jax.config import make_experiment
from ispf_jax.errors import UserError
from ispf_jax.interop import torch_file
from ispf_jax.models import CLASSIFIERS
from ispf_jax.telemetry import read_metrics
from tests.test_launch import ROOT, launch
from tests.test_pipeline import tiny


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("extended")
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "extending.md").read_text(), re.DOTALL)
    (folder / "mine.py").write_text(code)
    digits = data.load("digits")
    splits = {"train": digits.train, "test": digits.test}
    np.savez(folder / "arrays.npz", **{f"{name}_{what}": getattr(split, what) for name, split in splits.items() for what in ("images", "labels")})
    settings = {
        "stages": "original,unlearn,audit,report", "audit.metrics": "accuracy,features", "train.epochs": 10, "distill.epochs": 6, "distill.loops": 3,
        "model.width": 0.125, "generator.width": 0.125, "export": "pt",
    }  # fmt: skip
    done = launch("--config=mine.py", "--workdir=work", *(f"--config.{key}={value}" for key, value in settings.items()), cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "work"


def test_all_three_are_in_the_results(ran):
    rows = json.loads((ran / "results.json").read_text())["rows"]
    assert {(row["dataset"], row["arch"]) for row in rows} == {("arrays", "plain_cnn")}
    original, *_ = [row for row in rows if row["method"] == "original"]
    assert original["acc_overall"] > 80  # the images and labels are those of the file
    assert {row["method"] for row in rows} >= {"ispf", "ispf_sure"}
    assert "ispf_sure" in (ran / "report" / "index.html").read_text()


def test_the_rule_of_ones_own_decides_what_the_student_sees(ran):
    kept = {method: [r["kept"] for r in read_metrics(ran / f"unlearn/dfq/{method}/3/seed0/metrics.jsonl") if r.get("kept")] for method in ("ispf", "ispf_sure")}
    assert set(kept["ispf"]) == {128} and kept["ispf_sure"] and 0 < min(kept["ispf_sure"]) < 128


def test_files_have_the_names_that_were_entered(ran):
    tensors = torch_file.read((ran / "unlearn/dfq/ispf_sure/3/seed0/weights.pt").read_bytes())
    assert {"conv1.weight", "bn3.running_var", "fc.weight", "fc.bias"} <= set(tensors) and tensors["fc.weight"].shape == (10, 32)


@pytest.mark.parametrize("key, value", [("export", "pt"), ("model__checkpoint", "net.pt")])
def test_files_need_names(monkeypatch, key, value):
    monkeypatch.setitem(CLASSIFIERS, "nameless", None)
    with pytest.raises(UserError, match=f"config.{key.replace('__', '.')}='{value}'.*nameless.*allcnn, resnet18"):
        make_experiment(tiny(model__name="nameless", **{key: value}))
