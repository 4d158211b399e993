"""Reading audits, and their pictures."""

import csv
import json

import numpy as np
import pytest

from ispf_jax.report.audits import parse_audit, read_audits, write_audit_csv
from ispf_jax.report.figures.audit import (
    class_accuracies,
    closeness,
    confusion,
    embeddings,
    relearning,
    representations,
)
from ispf_jax.report.figures.style import STYLE, compose
from ispf_jax.report.verdict import judge
from ispf_jax.report.workdir import read, unaudited


def test_audits_are_read_in_order(tmp_path, put_audit):
    for forget, seed in (("10", 0), ("2", 1), ("2", 0), ("1,7", 0)):
        put_audit(forget, seed, classes=11)
    assert [audit.key for audit in read_audits(tmp_path)] == [("1,7", 0), ("2", 0), ("2", 1), ("10", 0)]


DAMAGE = {
    "cut": lambda a: json.dumps(a)[:999],
    "list": lambda a: [a],
    "format": lambda a: a | {"format": 2},
    "no measurements": lambda a: a.pop("measurements") and a,
    "text": lambda a: a | {"measurements": [a["measurements"][0] | {"value": "much"}]},
    "no value": lambda a: a | {"measurements": [{"model": "x", "metric": "y"}]},
    "classes": lambda a: a | {"representation": [{"title": "x", "points": [[0, 1]], "classes": [1, 2]}]},
    "curve": lambda a: a | {"curves": [{"model": "x", "kind": "relearn/all", "steps": [0, 1], "accuracy": [1.0]}]},
    "points": lambda a: a | {"embedding": [{"title": "x", "points": [[0, 1]], "kind": []}]},
    "confusion": lambda a: a | {"confusion": {"x": [[1], [1, 2]]}},
    "prediction": lambda a: a | {"mean_prediction": {"x": [1.0], "y": [0.5, 0.5]}},
    "not run": lambda a: a | {"not_run": [{"metric": "lira"}]},
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_audit_is_set_aside(tmp_path, put_audit, caplog, damage):
    put_audit("3", 1)
    path = put_audit("3", 0)
    content = DAMAGE[damage](json.loads(path.read_text()))
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    (left,) = read_audits(tmp_path)
    assert left.seed == 1 and not path.exists() and path.with_name("audit.json.damaged").exists()
    assert str(path) in caplog.text and "damaged" in caplog.text


def test_parts_that_were_not_run_may_be_missing(make_audit_json):
    content = {
        key: value
        for key, value in make_audit_json().items()
        if key not in ("curves", "confusion", "mean_prediction", "embedding", "not_run")
    }
    audit = parse_audit(json.dumps(content | {"added later": 1}))
    assert not (audit.curves or audit.confusion or audit.mean_prediction or audit.embedding or audit.not_run)
    assert not relearning(audit) and not confusion(audit) and not embeddings(audit)
    assert [picture.name for picture in closeness(audit)] == ["closeness_3_seed0"]  # kl_retrain is a measurement


def test_csv_holds_every_measurement(tmp_path, make_audit):
    audits = [make_audit("3"), make_audit("1,7", seed=2)]
    with open(write_audit_csv(tmp_path, audits), newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == sum(len(audit.measurements) for audit in audits)
    (probe,) = [x for x in lines if (x["forget"], x["model"], x["metric"]) == ("1,7", "ispf/dfq", "probe/penultimate")]
    assert (float(probe["value"]), float(probe["low"]), float(probe["place"]), probe["n"]) == (52.0, 43.5, 0.25, "37")
    (ain,) = [x for x in lines if (x["forget"], x["model"], x["metric"]) == ("3", "retrain", "ain")]
    assert ain["value"] == "" and ain["note"] == "undefined"
    assert [x["model"] for x in lines[:1]] == ["original"] and lines[0]["metric"] == "accuracy/forget"


def test_relearning_has_a_panel_per_kind_and_a_line_per_model(make_audit):
    audit = make_audit(models=("original", "retrain", "ispf/dfq"))
    (picture,) = relearning(audit)
    panels = compose(picture).axes
    assert [axes.get_title() for axes in panels] == ["Relearn, all data", "Relearn, 5 per class"]
    assert [line.get_color() for line in panels[0].lines] == [STYLE[m][0] for m in ("original", "retrain", "ispf")]
    assert panels[0].lines[2].get_ydata().tolist() == [min(100, 27 * i) for i in range(9)]


def test_heat_maps_show_shares_of_the_forgotten_class(make_audit):
    audit = make_audit(
        "1,7", confusion={"ispf/dfq": [[0, 3, 1] + [0] * 7, [0] * 10], "original": [[4] + [0] * 9, [0] * 9 + [2]]}
    )
    (picture,) = confusion(audit)
    first, second = compose(picture).axes
    assert first.images[0].get_array().tolist() == [
        [100.0] + [0.0] * 9,
        [0.0, 75.0, 25.0] + [0.0] * 7,
    ]  # the original comes first
    assert np.isfinite(second.images[0].get_array()).all() and [t.get_text() for t in first.texts] == [
        "100",
        "75",
        "25",
    ]


def test_embedding_draws_every_kind_of_point(make_audit):
    (picture,) = embeddings(make_audit())
    figure = compose(picture)
    assert [axes.get_title() for axes in figure.axes] == ["GKT", "ISPF"]
    assert [len(c.get_offsets()) for c in figure.axes[0].collections] == [10] * 5 and len(picture.keys) == 5


def test_representations_have_a_panel_per_model_with_the_forgotten_classes_marked(make_audit):
    (picture,) = representations(make_audit("1,7"))
    panels = compose(picture).axes
    assert [axes.get_title() for axes in panels] == ["Original", "Retrained", "GKT", "ISPF"]
    assert [len(c.get_offsets()) for c in panels[0].collections] == [3] * 8 + [
        6
    ]  # 30 points of ten classes, two of them forgotten
    points = np.array(make_audit("1,7").representation[0]["points"])
    np.testing.assert_allclose(panels[0].collections[-1].get_offsets(), points[np.isin(np.arange(30) % 10, [1, 7])])
    assert [text.get_text() for text in panels[0].texts] == list("02345689")
    assert representations(make_audit(representation=[])) == []


def test_many_classes_are_grey_and_without_numbers(make_audit):
    entry = {"title": "original", "points": [[i, i] for i in range(60)], "classes": list(range(60))}
    (picture,) = representations(make_audit(representation=[entry]))
    (axes,) = compose(picture).axes
    assert len(axes.texts) == 0 and len(axes.collections[-1].get_offsets()) == 1


def test_accuracy_class_by_class_frames_the_forgotten_ones(make_audit):
    (picture,) = class_accuracies(make_audit())
    (axes,) = compose(picture).axes
    shown = axes.images[0].get_array()
    assert [label.get_text() for label in axes.get_yticklabels()][:2] == ["Original", "Masked head"]
    np.testing.assert_allclose(shown[:, 2:].filled(np.nan), [[99, 97.3], [99, 0], [99, 0], [98, 0], [81.5, 0], [96, 0]])
    assert np.isnan(shown[:, :2].filled(np.nan)).all()  # classes without images or numbers
    (frame,) = axes.patches
    assert (frame.get_x(), frame.get_width(), frame.get_height()) == (2.5, 1, 6)


def test_audits_with_other_settings_enter_no_average_and_are_named(tmp_path, put_audit):
    for forget, steps in (("1", 40), ("2", 40), ("3", 2)):
        put_audit(forget, shift=float(forget), settings={"relearn_steps": steps, "metrics": ["accuracy"] * int(forget)})
    contents = read(tmp_path)
    assert [a.forget for a in contents.audits] == ["1", "2"] and [a.forget for a in contents.other_audits] == ["3"]
    found = judge(contents, "digits", "allcnn").findings["ispf/dfq", "probe/penultimate"]
    assert found.value == 52 + (1 + 2) / 2
    (said,) = unaudited(contents)
    assert "class 3, seed 0 has other settings than the others (audit.relearn_steps=2, not 40)" in said
