"""The commands of the benchmarks run and print what their documents say; the figures themselves are not tested."""

import csv
import importlib.util
import json
import re
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from benchmarks import evidence, regret
from benchmarks.measure import Isolated

SMALL = ("--width=0.1", "--batch=4")


def printed(name, *arguments):
    command = [sys.executable, "-m", f"benchmarks.{name}", *SMALL, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_regret_of_choosing_without_test_images(tmp_path, capsys):
    """Epochs that were not looked at cannot be chosen; by hand from four that were."""
    looked = zip((10, 40, 30, 20), (50.0, 80.0, 85.0, 82.0))
    records = [{"epoch": 2 * i + 2, "agreement": a, "test/acc_retain": r} for i, (a, r) in enumerate(looked)]
    records += [{"epoch": 2 * i + 1, "agreement": 99.0} for i in range(4)]
    place = tmp_path / "unlearn" / "dfq" / "ispf"
    place.mkdir(parents=True)
    lines = [json.dumps(record) + "\n" for record in sorted(records, key=lambda record: record["epoch"])]
    (place / "metrics.jsonl").write_text("".join(lines))
    regret.main([str(tmp_path)])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "| dfq/ispf | 4 | 82.00 | 80.00 | 85.00 | 3.00 | 5.00 | 0.40 |"


@pytest.mark.slow
def test_the_table_of_evidence_has_every_model_and_the_interval_of_its_images(tmp_path, capsys, monkeypatch):
    """Of the digits' 360 test images, 323 are of retained classes; the interval against scipy's."""
    flags = "--config=configs/digits_ispf.py:smoke --config.data.name=digits --config.data.channels=1"
    flags += " --config.data.image_size=8 --config.data.max_train=0 --config.data.max_test=0 --config.model.width=0.25"
    flags += " --config.stages=original,retrain,unlearn --config.methods=ispf --config.base=dfq,remix --config.forget=3"
    monkeypatch.setitem(evidence.EXPERIMENTS, "digits", [flags])
    evidence.main(["run", "digits", f"--work={tmp_path}"])
    evidence.main(["table", f"--work={tmp_path}", f"--out={tmp_path / 'evidence.csv'}", f"--pictures={tmp_path}"])
    printed = capsys.readouterr().out
    with open(tmp_path / "evidence.csv") as file:
        rows = {(row["base"], row["method"]): row for row in csv.DictReader(file)}
    assert set(rows) == {*product([""], ["original", "retrain", "masked_head"]), ("dfq", "ispf"), ("remix", "ispf")}
    assert float(rows["", "original"]["acc_retain"]) > 50
    with Image.open(tmp_path / "evidence_digits.png") as picture:
        assert len(picture.getcolors(1 << 20)) > 10  # bars of three colours, points, text
    for (base, method), row in rows.items():
        hits = round(323 * float(row["acc_retain"]) / 100)
        low, high = stats.binomtest(hits, 323).proportion_ci(method="wilson")
        np.testing.assert_allclose([float(row["low"]), float(row["high"])], [100 * low, 100 * high], atol=0.01)
        assert (row["testbed"], row["width"], row["forget"]) == ("digits", "0.25", "3")
        assert (int(row["steps"]) > 0) == bool(base)
        assert f"| digits | 0.25 | {base} | {method} | 1 | {float(row['acc_forget']):.1f} |" in printed


@pytest.mark.slow
@pytest.mark.parametrize("over, values", [("batch", "2,4"), ("classes", "4,5"), ("devices", "1,2"), ("jobs", "1,2")])
def test_scaling(over, values):
    out = printed("scaling", f"--over={over}", f"--values={values}", "--size=8", "--rounds=1")
    assert re.findall(rf"{over} +(\d+): [\d.e+]+ \(", out) == values.split(",")
    assert re.search(r"slope \S+ ms per unit, intercept \S+ ms", out)


def test_a_whole_run():
    out = printed("runs", "--size_of=svhn", "--epochs=2")
    assert "2 epochs of 1 x (1 generator + 10 student steps)" in out
    whole, compiling = map(float, re.search(r"whole run ([\d.]+) s, of which compiling ([\d.]+) s", out).groups())
    assert whole > compiling > 0


@pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="the extra bench is not installed")
def test_steps_have_pytorchs_losses_and_every_contestant_is_in_the_table():
    problem = ("--size=8", "--against=authors,eager channels_last")
    assert printed("steps", *problem, "--check").endswith("equal\n")
    table = printed("steps", *problem, "--step=student", "--rounds=1", "--alone").splitlines()[5:]
    assert [re.split(r"  +", line)[0] for line in table] == [
        "ours",
        "ours, one by one",
        "authors' way",
        "eager channels_last",
    ]


def test_a_failing_contestant_ends_a_benchmark():
    with pytest.raises(EOFError):
        Isolated(divide, 1, 0)


def divide(a, b):
    return a / b
