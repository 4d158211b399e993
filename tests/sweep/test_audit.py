"""A real tiny sweep with the audit on, first stopped half-way: what its report says, against the files of its runs."""

import csv
import json
import re
import shutil
import statistics
from dataclasses import replace

import pytest

from ispf_jax.errors import UserError
from ispf_jax.report import workdir as reading
from ispf_jax.report import write_report
from ispf_jax.runtime import interruption
from ispf_jax.sweep import pipeline
from tests.sweep.test_pipeline import tiny

pytestmark = pytest.mark.slow
SETS, SEEDS = ("0,2", "1"), (0, 1)


def audited(**values):
    """An audit of little: tiny networks, few images and steps."""
    small = {"shadows": 1, "relearn_steps": 6, "relearn_batch": 16, "shots": "1", "layers": 2, "barrier_points": 0}
    small |= {"synthetic_images": 32, "embedding_images": 12, "metrics": "accuracy,mia1,divergence"}
    keys = {f"audit__{key}": value for key, value in small.items()} | {"train__epochs": 4, "methods": "ispf"}
    return tiny(**keys | {"stages": "original,retrain,unlearn,audit,report"} | values)


def sweep():
    return audited(forget=";".join(SETS), seeds=",".join(map(str, SEEDS)))


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
    workdir, _, _ = stopped
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


def test_a_student_whose_checkpoints_are_gone_is_named(tmp_path):
    pipeline.run(audited(stages="original,unlearn"), str(tmp_path))
    shutil.rmtree(tmp_path / "unlearn/dfq/ispf/1/seed0/checkpoints")
    with pytest.raises(UserError, match=r"there is no checkpoint in .*unlearn/dfq/ispf/1/seed0/checkpoints"):
        pipeline.run(audited(stages="audit"), str(tmp_path))


def test_shadow_models_are_trained_by_jobs_and_found_by_the_audit(tmp_path):
    config = {"audit__metrics": "mia2,lira", "audit__lira_shadows": 4, "audit__embedding_images": 0}
    pipeline.run(audited(stages="original,unlearn,audit", **config), str(tmp_path))
    (audit,) = tmp_path.glob("audit/1/seed0/audit.json")
    found = {m["metric"]: m for m in json.loads(audit.read_text())["measurements"] if m["model"] == "ispf/dfq"}
    assert 0 <= found["mia2"]["value"] <= 100 and 0 <= found["lira/auc"]["value"] <= 1
    assert "4 shadow models" in found["lira/auc"]["note"]
    splits = sorted(tmp_path.glob("shadows/*/shadow*/split.npz"))
    assert len(splits) == 5
    before = [path.stat().st_mtime_ns for path in tmp_path.glob("shadows/*/shadow*/checkpoints/*")]
    pipeline.run(audited(stages="audit", **config | {"audit__layers": 1}), str(tmp_path))
    assert [path.stat().st_mtime_ns for path in tmp_path.glob("shadows/*/shadow*/checkpoints/*")] == before
