"""A real tiny sweep with the audit on, first stopped half-way: what its report says, against the files of its runs."""

import csv
import json
import re
import statistics
from dataclasses import replace

import pytest

from ispf_jax.report import workdir as reading
from ispf_jax.report import write_report
from ispf_jax.runtime import interruption
from ispf_jax.sweep import pipeline
from tests.evaluate.test_audit import audited

SETS, SEEDS = ("0,2", "1"), (0, 1)


def sweep(**values):
    return audited(
        forget=";".join(SETS),
        seeds=",".join(map(str, SEEDS)),
        methods="ispf",
        stages="original,retrain,unlearn,audit,report",
        audit__metrics="accuracy,mia1,divergence",
        audit__embedding_images=12,
        audit__barrier_points=0,
        **values,
    )


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """(work directory, its report's page, tables) of a sweep that a signal stopped in its third audit."""
    workdir = tmp_path_factory.mktemp("sweep")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interruption, "requested", (workdir / "audit" / "0-2" / "seed1" / "retrain.json").exists)
        with pytest.raises(interruption.Interrupted):
            pipeline.run(sweep(), str(workdir))
    write_report(workdir)
    return workdir, (workdir / "report" / "index.html").read_text(), (workdir / "tables.md").read_text()


@pytest.fixture(scope="module")
def finished(stopped):
    pipeline.run(sweep(), str(stopped[0]))
    return stopped[0]


def content(workdir, forget, seed):
    return json.loads((workdir / "audit" / forget.replace(",", "-") / f"seed{seed}" / "audit.json").read_text())


def value(audit, model, metric):
    return next(m["value"] for m in audit["measurements"] if (m["model"], m["metric"]) == (model, metric))


def test_the_report_of_a_stopped_sweep_says_what_is_missing(stopped):
    workdir, page, tables = stopped
    missing = reading.unfinished(reading.read(workdir)) + reading.unaudited(reading.read(workdir))
    said = re.sub(r"\s+", " ", page)
    assert missing and all(sentence in said and sentence in tables for sentence in missing)
    assert "Retrained: 1 of 4 runs without a result (class 1 (class1), seed 1)." in said
    assert "ISPF: 1 of 4 runs without a result (class 1 (class1), seed 1)." in said
    assert "2 of 4 trials without an audit (class 0 (class0), 2 (class2), seed 1; class 1 (class1), seed 1)." in said
    assert "The audit of class 0 (class0), 2 (class2), seed 1 was begun and is not finished" in said
    assert "2 of 4 trials" in said and "interrupted" in said


def test_a_start_for_the_report_alone_says_the_same(stopped):
    """The configuration of such a start asks for no other stage; what is there tells which were asked for."""
    workdir, page, _ = stopped
    contents = reading.read(workdir)
    alone = replace(contents, config=contents.config | {"stages": ["report"]})
    assert reading.unfinished(alone) == reading.unfinished(contents) and len(reading.unfinished(alone)) == 2


def test_averages_are_those_of_the_audits_of_the_runs(finished):
    """Mean over the forget sets of a seed, then over seeds, worked out here from the four files."""
    audits = {(forget, seed): content(finished, forget, seed) for forget in SETS for seed in SEEDS}
    with open(finished / "averages.csv", newline="") as file:
        lines = {(x["model"], x["metric"]): x for x in csv.DictReader(file)}
    checked = 0
    for model in ("original", "masked_head", "retrained_head", "retrain", "ispf/dfq"):
        for metric in ("accuracy/retain", "accuracy/class1", "mia1_correctness", "kl_retrain", "l2_original"):
            values = [[value(audits[forget, seed], model, metric) for forget in SETS] for seed in SEEDS]
            means = [sum(v) / 2 for v in values]
            line = lines[model, metric]
            assert float(line["mean"]) == pytest.approx(sum(means) / 2, abs=1e-9)
            assert float(line["population_std"]) == pytest.approx(statistics.pstdev(means), abs=1e-9)
            assert float(line["sample_std"]) == pytest.approx(statistics.stdev(means), abs=1e-9)
            assert (line["forget_sets"], line["seeds"], line["runs"], line["undefined"]) == ("2", "2", "4", "0")
            checked += float(line["sample_std"]) > 0
    assert checked > 5
    page = (finished / "report" / "index.html").read_text()
    line = lines["ispf/dfq", "kl_retrain"]
    assert (
        f"{float(line['mean']):.3f}" in page
        and f"sd {float(line['population_std']):.3f}, sample sd {float(line['sample_std']):.3f}, 2 x 2 runs"
        in re.sub("<[^>]*>|\\n", "", page)
    )
    assert "population standard deviation" in page and 'id="missing"' not in page


def test_classes_are_counted_one_by_one(finished):
    audit = content(finished, "0,2", 0)
    for model in audit["models"]:
        found = {
            m["metric"]: m for m in audit["measurements"] if m["model"] == model and m["metric"].startswith("accuracy/")
        }
        classes = [found[f"accuracy/class{c}"] for c in range(5)]
        assert (
            all(m["low"] <= m["value"] <= m["high"] for m in classes)
            and sum(m["n"] for m in classes) == found["accuracy/overall"]["n"]
        )
        forgotten = [classes[0], classes[2]]
        hits = sum(m["value"] * m["n"] for m in forgotten) / sum(m["n"] for m in forgotten)
        assert hits == pytest.approx(found["accuracy/forget"]["value"])
        confusion = audit["confusion"][model]
        assert [100 * confusion[i][c] / sum(confusion[i]) for i, c in enumerate((0, 2))] == pytest.approx(
            [m["value"] for m in forgotten]
        )


def test_membership_of_several_classes_is_told_apart(finished):
    audit = content(finished, "0,2", 0)
    for model in audit["models"]:
        parts = [m for m in audit["measurements"] if m["model"] == model and m["metric"].startswith("mia1/class")]
        assert [m["metric"] for m in parts] == ["mia1/class0", "mia1/class2"]
        if parts[0]["value"] is not None:
            whole = sum(m["value"] * m["n"] for m in parts) / sum(m["n"] for m in parts)
            assert whole == pytest.approx(value(audit, model, "mia1"))


def test_representations_and_duplicates_are_recorded(finished):
    audit = content(finished, "1", 0)
    assert [p["title"] for p in audit["representation"]] == ["original", "retrain", "ispf/dfq"]
    assert all(
        len(p["points"]) == len(p["classes"]) == 12 and sum(c == 1 for c in p["classes"]) == 3
        for p in audit["representation"]
    )
    copies = {m["metric"]: m for m in audit["measurements"] if m["metric"].startswith("duplicates/")}
    assert set(copies) == {"duplicates/exact", "duplicates/pixels", "duplicates/features"}
    assert all(
        m["model"] == "ispf/dfq" and m["n"] == 32 and "32 real training images" in m["note"] for m in copies.values()
    )
    assert copies["duplicates/exact"]["value"] <= copies["duplicates/pixels"]["value"]


def test_weights_of_rows_and_audits_are_the_same(finished):
    rows = json.loads((finished / "results.json").read_text())["rows"]
    for forget, seed in ((f, s) for f in SETS for s in SEEDS):
        hashes = content(finished, forget, seed)["weights"]
        mine = {(r["method"], r["selection"]): r for r in rows if (r["forget"], r["seed"]) == (forget, seed)}
        assert (
            mine["original", "best_validation"]["weights"]
            == mine["masked_head", "best_validation"]["teacher"]
            == hashes["original"]
        )
        assert mine["retrain", "best_validation"]["weights"] == hashes["retrain"]
        student = mine["ispf", "last"]
        assert (student["weights"], student["teacher"]) == (hashes["ispf/dfq"], hashes["original"])
        assert len(set(hashes.values())) == len(hashes)


def test_the_journal_adds_up_over_both_starts(finished):
    jobs = reading.read(finished).jobs
    assert {j["stage"] for j in jobs} == {"original", "retrain", "unlearn", "audit"}
    assert [j["job"] for j in jobs if not j["finished"]] == ["audit 0,2 seed 1"]
    assert sum(j["stage"] == "unlearn" for j in jobs) == 4 and sum(j["stage"] == "original" for j in jobs) == 2
