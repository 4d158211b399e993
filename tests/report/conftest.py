"""Made-up rows and logs with which the report's tests work."""

import json

import pytest

from ispf_jax.report.results import RunLog


@pytest.fixture
def make_row():
    """A function that makes one result row; every field can be given."""

    def make(method, forget="3", seed=0, **fields):
        row = dict(
            method=method, base="dfq", dataset="digits", arch="allcnn", forget=forget, seed=seed, selection="last", acc_forget=0.0,
            acc_retain=90.0, acc_overall=81.0, train_seconds=10.0, student_steps=1000, generator_steps=100, images_synthesised=140800,
        )
        return row | fields

    return make


@pytest.fixture
def make_run():
    """A function that makes the log of one run: one warm-up epoch, evaluation every second epoch, no `bn` for ZSKT."""

    def make(method, base="dfq", forget="3", seed=0, epochs=6):
        records = []
        for epoch in range(1, epochs + 1):
            record = {"epoch": epoch, "student_step": 10 * (epoch - 1), "generator_step": epoch, "seconds": 1.5 * epoch,
                      "generator/total": 5.0 / epoch, "generator/adv": -0.1 * epoch, "class_counts": [1, 2]}
            if base == "dfq":
                record["generator/bn"] = 9.0 / epoch
            if epoch > 1:
                record |= {"student/loss": 1.0 / epoch, "kept": 100, "filtered": 28 - epoch, "forget_samples": 20.0, "retain_samples": 108.0,
                           "entropy": 60.0 + epoch}
            if epoch % 2 == 0:
                record |= {"test/acc_retain": 90.0 + epoch, "test/acc_forget": 0.0}
            records.append(record)
        return RunLog(method, base, forget, seed, records)

    return make


@pytest.fixture
def put_rows(tmp_path):
    """A function that writes `result.json` with rows into a folder of the work directory `tmp_path`."""

    def put(folder, rows):
        path = tmp_path / folder / "result.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(rows if isinstance(rows, str) else json.dumps(rows))
        return path

    return put
