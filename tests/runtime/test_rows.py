"""Reading, ordering and writing result rows; finding run logs."""

import csv
import json
import math
import os
import random
from pathlib import Path

import pytest

from ispf_jax.methods import METHODS
from ispf_jax.report import write_report
from ispf_jax.runtime.rows import REFERENCES, RESULT_FIELDS, load_runs, read_rows, write_results


def test_rows_come_from_the_stage_folders_only(tmp_path, make_row, put_rows):
    put_rows("original/seed0/rows/3", [make_row("original"), make_row("masked_head")])
    put_rows("retrain/3/seed0", [make_row("retrain")])
    put_rows("unlearn/dfq/ispf/3/seed0", [make_row("ispf")])
    for place in ("elsewhere", "unlearn/dfq/gkt/3/seed00", "unlearn/dfq/gkt/x/seed0", "original/seed0"):
        put_rows(place, [make_row("gkt")])
    assert [row.method for row in read_rows(tmp_path)] == ["original", "retrain", "masked_head", "ispf"]


def test_order_is_that_of_the_methods_and_counts_numbers_as_numbers(tmp_path, make_row):
    rows = [
        make_row(m, forget=f, seed=s, selection=sel)
        for m in (*REFERENCES, *METHODS)
        for f in ("2", "10", "1,7")
        for s in (0, 1, 10)
        for sel in ("best_test_retain", "last")
    ]
    shuffled = random.Random(0).sample(rows, len(rows))
    write_results(tmp_path, shuffled)
    written = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [row["method"] for row in written[::18]] == [*REFERENCES, *METHODS]
    assert [row["forget"] for row in written[:18:6]] == ["1,7", "2", "10"]
    assert [row["seed"] for row in written[:6:2]] == [0, 1, 10]
    first = [(tmp_path / name).read_bytes() for name in ("results.json", "results.csv")]
    write_results(tmp_path, rows)
    assert first == [(tmp_path / name).read_bytes() for name in ("results.json", "results.csv")]


def test_json_and_csv_hold_the_same_and_extra_fields_come_last(tmp_path, make_row):
    rows = [make_row("gkt", acc_forget=math.nan), make_row("ispf", forget="1,7", access="weights only", epoch=100)]
    write_results(tmp_path, rows, {"command": "launch.py", "versions": {"jax": "1"}})
    whole = json.loads(
        (tmp_path / "results.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON")
    )
    assert whole["provenance"] == {"command": "launch.py", "versions": {"jax": "1"}}
    assert list(whole["rows"][1]) == [*RESULT_FIELDS, "access", "epoch"]
    with open(tmp_path / "results.csv", newline="") as file:
        gkt, ispf = csv.DictReader(file)
    assert list(gkt) == [*RESULT_FIELDS, "access", "epoch"]
    assert math.isnan(float(gkt["acc_forget"])) and gkt["access"] == ""
    assert (ispf["forget"], ispf["epoch"], float(ispf["acc_retain"])) == ("1,7", "100", 90.0)


DAMAGE = {  # what stands in the place of the row of GKT without class 3, seed 0
    "cut": lambda row: json.dumps([row])[:50],
    "an object": lambda row: {"rows": 3},
    "nothing": lambda row: [],
    "deep": lambda row: "[" * 100_000,
    "bytes": lambda row: b"\x00\xff",
    "a field": lambda row: [{k: v for k, v in row.items() if k != "acc_retain"}],
    "another method": lambda row: [row | {"method": "ispf"}],
    "another base": lambda row: [row | {"base": "zskt"}],
    "another forget set": lambda row: [row | {"forget": "zebra"}],
    "another seed": lambda row: [row | {"seed": 1}],
    "a list": lambda row: [row | {"base": [1]}],
    "null": lambda row: [row | {"forget": None}],
    "half a character": lambda row: [row | {"dataset": "\ud800"}],
    "a line end": lambda row: [row | {"dataset": "a\nb"}],
    "text": lambda row: [row | {"acc_retain": "much"}],
    "nan": lambda row: [row | {"acc_forget": "nan"}],
    "too much": lambda row: [row | {"acc_retain": 100.1}],
    "negative": lambda row: [row | {"student_steps": -1}],
    "huge": lambda row: [row | {"student_steps": 10**400}],
    "true": lambda row: [row | {"seed": False}],
    "contradiction": lambda row: [row | {"acc_overall": 99.0}],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_set_aside(tmp_path, make_row, put_rows, caplog, damage):
    put_rows("unlearn/dfq/ispf/3/seed0", [make_row("ispf")])
    content = DAMAGE[damage](vars(make_row("gkt")))
    path = put_rows("unlearn/dfq/gkt/3/seed0", "")
    path.write_bytes(
        content
        if isinstance(content, bytes)
        else (content if isinstance(content, str) else json.dumps(content)).encode()
    )
    before = path.read_bytes()
    assert [row.method for row in read_rows(tmp_path)] == ["ispf"]
    assert not path.exists() and path.with_name("result.json.damaged").read_bytes() == before
    (message,) = caplog.messages
    assert message.startswith(f"{path} is damaged (") and "\n" not in message
    assert len(read_rows(tmp_path)) == 1 and len(caplog.messages) == 1


def test_nothing_that_was_set_aside_is_lost(tmp_path, make_row, put_rows):
    for i in range(3):
        put_rows("unlearn/dfq/gkt/3/seed0", f"[{i}")
        assert read_rows(tmp_path) == []
    path = put_rows("unlearn/dfq/gkt/3/seed0", [make_row("gkt")])
    assert len(read_rows(tmp_path)) == 1
    names = ["result.json", "result.json.2.damaged", "result.json.3.damaged", "result.json.damaged"]
    assert sorted(os.listdir(path.parent)) == names
    assert [path.with_name(name).read_text() for name in names[1:]] == ["[1", "[2", "[0"]


def test_what_is_no_file_or_cannot_be_read(tmp_path, make_row, put_rows, caplog):
    path = put_rows("unlearn/dfq/gkt/3/seed0", [make_row("gkt")])
    for make in (Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        path.unlink()
        make(path)
        assert read_rows(tmp_path) == [] and not path.exists()
        path.write_text("[]")
    assert len(caplog.messages) == 3


def test_runs_are_found_with_their_names(tmp_path):
    for base, method, forget, seed in (
        ("dfq", "ispf", "10", 0),
        ("dfq", "gkt", "2", 1),
        ("dfq", "ispf", "2", 1),
        ("dfq", "dfkd", "1-7", 0),
    ):
        folder = tmp_path / "unlearn" / base / method / forget / f"seed{seed}"
        folder.mkdir(parents=True)
        (folder / "metrics.jsonl").write_text(f'{{"epoch": 1, "seconds": {seed}.5}}\n{{"epoch": 2, "sec')
    empty = tmp_path / "unlearn/dfq/pf/2/seed0"
    empty.mkdir(parents=True)
    (empty / "metrics.jsonl").write_text("")
    runs = load_runs(tmp_path)
    assert [(r.method, r.forget, r.seed) for r in runs] == [
        ("dfkd", "1,7", 0),
        ("gkt", "2", 1),
        ("ispf", "2", 1),
        ("ispf", "10", 0),
    ]
    assert runs[1].records == [{"epoch": 1, "seconds": 1.5}]
    assert runs[0].slug == "dfq_1-7_seed0"


def test_report_of_a_half_finished_work_directory(tmp_path, make_row, put_rows):
    put_rows("original/seed0/rows/3", [make_row("original", acc_forget=99.0)])
    run = tmp_path / "unlearn/dfq/ispf/3/seed0"
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text('{"epoch": 1, "generator_step": 1, "generator/total": 2.0, "seconds": 1.0}\n')
    table = write_report(tmp_path, {"command": "x"})
    assert "original" in table and "99.00" in table
    assert {p.name for p in tmp_path.iterdir() if p.is_file()} == {"results.json", "results.csv", "tables.md"}
    assert {p.stem for p in (tmp_path / "figures").iterdir()} == {
        "accuracy_digits_allcnn",
        "training_dfq_3_seed0",
        "losses_dfq_ispf_3_seed0",
    }
    assert (tmp_path / "report" / "index.html").exists()
