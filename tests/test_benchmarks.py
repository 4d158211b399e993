"""The commands of the benchmarks run and print what their documents say; the figures themselves are not tested."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import regret
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
