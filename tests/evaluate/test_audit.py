"""The audit end to end on a tiny run: what hides a class is told from what removes it, and nothing is measured twice."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from ispf_jax.config import AUDIT_METRICS, make_experiment
from ispf_jax.errors import UserError
from ispf_jax.evaluate import measure
from ispf_jax.evaluate.audit import Subject
from ispf_jax.evaluate.audit import audit as run_audit
from ispf_jax.evaluate.lira import lira_members
from ispf_jax.evaluate.shadow_models import train_shadow
from ispf_jax.sweep import pipeline
from tests.sweep.test_pipeline import tiny

STAGES = "original,retrain,unlearn,audit"


def audited(**values):
    values = {
        "stages": STAGES,
        "methods": "gkt,ispf",
        "audit__shadows": 1,
        "audit__relearn_steps": 6,
        "audit__relearn_batch": 16,
        "audit__shots": "1",
        "audit__layers": 2,
        "audit__barrier_points": 3,
        "audit__synthetic_images": 32,
        "audit__embedding_images": 20,
        "train__epochs": 4,
        **values,
    }
    return tiny(**values)


def content(workdir):
    return json.loads((workdir / "audit" / "1" / "seed0" / "audit.json").read_text())


def value(audit, model, metric):
    return next(m for m in audit["measurements"] if (m["model"], m["metric"]) == (model, metric))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("audit")
    pipeline.run(audited(), str(workdir))
    return workdir, content(workdir)


def test_all_models_are_measured_by_all_metrics(finished):
    _, audit = finished
    assert audit["models"] == ["original", "masked_head", "retrained_head", "retrain", "gkt/dfq", "ispf/dfq"]
    families = {m["metric"].split("/")[0] for m in audit["measurements"]}
    expected = {
        "accuracy",
        "mia1",
        "mia2",
        "relearn",
        "relearn_steps",
        "probe",
        "probe_shots1",
        "knn",
        "prototype",
        "cka_original",
        "cka_retrain",
        "kl_retrain",
        "tv_retrain",
        "l2_original",
        "barrier",
    }
    assert expected <= families
    assert [entry["metric"] for entry in audit["not_run"]] == ["lira"]
    assert {c["kind"] for c in audit["curves"]} == {f"relearn/{kind}" for kind in ("all", "forget", "retain", "shots1")}


def test_a_hidden_class_is_where_the_original_is(finished):
    _, audit = finished
    assert value(audit, "masked_head", "accuracy/forget")["value"] == 0
    read = [
        m["metric"]
        for m in audit["measurements"]
        if m["model"] == "original" and m["metric"].startswith(("pro", "knn"))
    ]
    assert {metric.split("/")[0] for metric in read} == {"probe", "probe_shots1", "knn", "prototype"}
    for metric in read:
        for model in ("masked_head", "retrained_head"):
            assert value(audit, model, metric)["value"] == value(audit, "original", metric)["value"]
    assert value(audit, "masked_head", "cka_original/penultimate")["value"] == pytest.approx(1)
    assert value(audit, "ispf/dfq", "cka_original/penultimate")["value"] < 0.999


def test_places_run_from_the_retrained_model_to_the_original(finished):
    _, audit = finished
    placed = [m for m in audit["measurements"] if m["place"] is not None]
    assert {m["place"] for m in placed if m["model"] == "original"} == {1.0}
    assert {abs(m["place"]) for m in placed if m["model"] == "retrain"} == {0.0}
    assert any(m["metric"] == "kl_retrain" for m in placed)
    assert value(audit, "retrain", "kl_retrain")["value"] == pytest.approx(0, abs=1e-6)
    assert value(audit, "original", "l2_original")["value"] == 0


def test_a_second_start_measures_nothing_and_other_settings_measure_again(finished, capsys):
    workdir, audit = finished
    parts = workdir / "audit" / "1" / "seed0"
    before = {p: p.stat().st_mtime_ns for p in parts.glob("*_*.json")}
    pipeline.run(audited(), str(workdir))
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert content(workdir)["measurements"] == audit["measurements"]

    # A start that asks for less takes nothing away.
    pipeline.run(audited(audit__metrics="accuracy,features", methods="gkt", base="zskt", stages="audit"), str(workdir))
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert content(workdir) == audit

    # With other settings everything is measured again, and what there was is kept.
    pipeline.run(audited(audit__metrics="accuracy,features", audit__train_images=30), str(workdir))
    less = content(workdir)
    assert {m["metric"].split("/")[0] for m in less["measurements"]}.isdisjoint(
        {"mia1", "mia2", "relearn", "kl_retrain"}
    )
    assert {entry["metric"] for entry in less["not_run"]} == set(AUDIT_METRICS) - {"accuracy", "features"}
    assert (
        json.loads((parts / "earlier1" / "audit.json").read_text()) == audit
        and f"are in {parts / 'earlier1'} now" in capsys.readouterr().err
    )

    # A start that asks for more adds to it.
    pipeline.run(audited(audit__metrics="divergence", audit__train_images=30), str(workdir))
    more = content(workdir)
    assert [
        m for m in more["measurements"] if m["metric"] not in ("kl_retrain", "tv_retrain", "l2_original", "barrier")
    ] == less["measurements"]
    assert not (parts / "earlier2").exists()


def test_a_student_whose_checkpoints_are_gone_is_named(tmp_path):
    pipeline.run(audited(stages="original,unlearn", methods="gkt"), str(tmp_path))
    shutil.rmtree(tmp_path / "unlearn/dfq/gkt/1/seed0/checkpoints")
    with pytest.raises(UserError, match="unlearn/dfq/gkt/1/seed0 has a result, but its checkpoints are gone"):
        pipeline.run(audited(stages="audit"), str(tmp_path))


def test_without_a_retrained_model_nothing_is_placed_until_there_is_one(tmp_path):
    values = dict(methods="ispf", audit__metrics="accuracy,features,divergence", audit__embedding_images=0)
    pipeline.run(audited(stages="original,unlearn,audit", **values), str(tmp_path))
    audit = content(tmp_path)
    assert audit["models"] == ["original", "masked_head", "retrained_head", "ispf/dfq"]
    assert all(m["place"] is None for m in audit["measurements"])
    assert any("no retrained model" in entry["why"] for entry in audit["not_run"])

    pipeline.run(audited(**values), str(tmp_path))
    added = content(tmp_path)
    shutil.rmtree(tmp_path / "audit")
    pipeline.run(audited(**values), str(tmp_path))
    assert added == content(tmp_path)
    assert {"kl_retrain", "tv_retrain", "cka_retrain/penultimate"} <= {
        m["metric"] for m in added["measurements"] if m["model"] == "original"
    }


def test_a_classifier_with_one_retained_class_is_audited_without_a_masked_head(tmp_path):
    pipeline.run(
        audited(
            data__classes=2, methods="ispf", audit__lira_shadows=4, audit__embedding_images=0, stages=STAGES + ",report"
        ),
        str(tmp_path),
    )
    audit = content(tmp_path)
    assert audit["models"] == ["original", "retrained_head", "retrain", "ispf/dfq"]
    assert [entry["metric"] for entry in audit["not_run"]] == ["masked_head"]
    assert (
        "single retained class" in audit["not_run"][0]["why"]
        and audit["not_run"][0]["why"] in (tmp_path / "report" / "index.html").read_text()
    )
    expected = {
        "accuracy",
        "mia1",
        "mia2",
        "lira",
        "relearn",
        "ain",
        "probe",
        "probe_shots1",
        "knn",
        "prototype",
        "cka_retrain",
        "kl_retrain",
        "barrier",
    }
    assert all(
        expected <= {m["metric"].split("/")[0] for m in audit["measurements"] if m["model"] == model}
        for model in audit["models"][1:]
    )
    assert value(audit, "retrain", "accuracy/retain")["value"] == 100  # it knows no other answer
    scores = [
        value(audit, model, "lira/auc") for model in audit["models"]
    ]  # four shadows, some images are validation in one or two
    assert all(0 <= m["value"] <= 1 and "50 left out" in m["note"] for m in scores)


def test_a_shadow_model_goes_on_with_the_half_it_was_begun_with(tmp_path):
    """Its split says what it was trained on; a start that would draw another half must not change that."""
    begun, asked = np.arange(40) % 3 == 0, []
    (tmp_path / "lira" / "shadow1").mkdir(parents=True)
    np.savez(
        tmp_path / "lira" / "shadow1" / "split.npz",
        train=begun & (np.arange(40) < 30),
        validation=begun & (np.arange(40) >= 30),
    )
    supervised = SimpleNamespace(run=lambda title, place, seed, stream, member: asked.append(member))
    for k in (0, 1):
        train_shadow(tmp_path, supervised, make_experiment(audited(audit__lira_shadows=4)).audit, 40, "lira", k)
    np.testing.assert_array_equal(asked, [lira_members(40, 4, 0)[0], begun])


WEIGHTS = {
    name: {"w": np.full(2, k, np.float32)} for k, name in enumerate(("original", "retrain", "ispf/dfq", "other"))
}


def audit_by_stub(directory, monkeypatch, references=("original",), original="original", shadows=("a", "b")):
    """Names of the models that an audit of two models measures, with measurements that cost nothing."""
    measured = []

    def model(context, subject, attackers, parts):
        measured.append(subject.name)
        return {"measurements": [], "curves": [], "confusion": [], "mean_prediction": [], "representation": None}

    monkeypatch.setattr(measure, "model", model)
    held = WEIGHTS | {"original": WEIGHTS[original]}
    context = SimpleNamespace(
        config=make_experiment(audited()).audit, references={name: held[name] for name in references}
    )
    subjects = [Subject(name, held[name], np.ones(3, bool)) for name in ("original", "ispf/dfq")]
    run_audit(directory, context, subjects, measure.Attackers(shadows=shadows), [], {"forget": "1", "seed": 0})
    return measured


@pytest.mark.parametrize(
    "change", [{"references": ("original", "retrain")}, {"original": "other"}, {"shadows": ("a", "c")}, {"shadows": ()}]
)
def test_a_model_is_measured_again_exactly_when_what_it_is_compared_with_changed(tmp_path, monkeypatch, change):
    both = ["original", "ispf/dfq"]
    assert audit_by_stub(tmp_path, monkeypatch) == both
    assert audit_by_stub(tmp_path, monkeypatch) == []
    assert audit_by_stub(tmp_path, monkeypatch, **change) == both
    assert audit_by_stub(tmp_path, monkeypatch, **change) == []


def test_measurements_made_from_unknown_inputs_are_made_again(tmp_path, monkeypatch):
    audit_by_stub(tmp_path, monkeypatch)
    old = tmp_path / "ispf_dfq.json"
    old.write_text(json.dumps({name: value for name, value in json.loads(old.read_text()).items() if name != "inputs"}))
    assert audit_by_stub(tmp_path, monkeypatch) == ["ispf/dfq"]
