"""Pictures of audits, their table of all measurements, and audits that do not go together."""

import csv

import numpy as np
import pytest

from ispf_jax.report.figures.audits import pictures
from ispf_jax.report.figures.style import compose
from ispf_jax.report.names import MODELS
from ispf_jax.report.verdict import write_audit_csv
from ispf_jax.report.workdir import read, unaudited


@pytest.fixture
def drawn(make_audit):
    """A function that draws one kind of picture of a made-up audit: its coordinate systems, None if there is none."""

    def draw(kind, *args, **fields):
        found = {p.kind: p for p in pictures(make_audit(*args, **fields), "forgetting 3, seed 0")}
        return compose(found[kind]).axes if kind in found else None

    return draw


def test_csv_holds_every_measurement(tmp_path, make_audit):
    audits = [make_audit("3"), make_audit("1,7", seed=2)]
    write_audit_csv(tmp_path / "audit.csv", audits)
    with open(tmp_path / "audit.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == sum(len(audit.measurements) for audit in audits)
    (probe,) = [x for x in lines if (x["forget"], x["model"], x["metric"]) == ("1,7", "ispf/dfq", "probe/penultimate")]
    assert (float(probe["value"]), float(probe["low"]), float(probe["place"]), probe["n"]) == (52.0, 43.5, 0.25, "37")
    (ain,) = [x for x in lines if (x["forget"], x["model"], x["metric"]) == ("3", "retrain", "ain")]
    assert ain["value"] == "" and ain["note"] == "undefined"
    assert (lines[0]["model"], lines[0]["metric"]) == ("original", "accuracy/forget")


def test_parts_that_were_not_run_have_no_picture(make_audit):
    without = {"curves": [], "confusion": {}, "mean_prediction": {}, "embedding": [], "representation": []}
    found = pictures(make_audit(**without), "x")
    assert [p.name for p in found] == ["class_accuracy_3_seed0", "closeness_3_seed0"]  # those of measurements


def test_relearning_has_a_panel_per_kind_and_a_line_per_model(drawn):
    panels = drawn("relearn", models=("original", "retrain", "ispf/dfq"))
    assert [axes.get_title() for axes in panels] == ["Relearn, all data", "Relearn, 5 per class"]
    assert [line.get_color() for line in panels[0].lines] == [MODELS[m].color for m in ("original", "retrain", "ispf")]
    assert panels[0].lines[2].get_ydata().tolist() == [min(100, 27 * i) for i in range(9)]


def test_heat_maps_show_shares_of_the_forgotten_class(drawn):
    counts = {"ispf/dfq": [[0, 3, 1] + [0] * 7, [0] * 10], "original": [[4] + [0] * 9, [0] * 9 + [2]]}
    first, second = drawn("confusion", "1,7", confusion=counts)
    original, ispf = [100.0] + [0.0] * 9, [0.0, 75.0, 25.0] + [0.0] * 7
    assert first.images[0].get_array().tolist() == [original, ispf]  # the original comes first
    assert np.isfinite(second.images[0].get_array()).all()
    assert [text.get_text() for text in first.texts] == ["100", "75", "25"]


def test_embedding_draws_every_kind_of_point(drawn):
    panels = drawn("embedding")
    assert [axes.get_title() for axes in panels] == ["GKT", "ISPF"]
    assert [len(c.get_offsets()) for c in panels[0].collections] == [10] * 5
    assert len(panels[0].figure.legends[0].get_texts()) == 5


def test_representations_have_a_panel_per_model_with_the_forgotten_classes_marked(drawn, make_audit):
    panels = drawn("representation", "1,7")
    assert [axes.get_title() for axes in panels] == ["Original", "Retrained", "GKT", "ISPF"]
    sizes = [len(c.get_offsets()) for c in panels[0].collections]
    assert sizes == [3] * 8 + [6]  # 30 points of ten classes, two of them forgotten
    points = make_audit("1,7").representation[0][1]
    np.testing.assert_allclose(panels[0].collections[-1].get_offsets(), points[np.isin(np.arange(30) % 10, [1, 7])])
    assert [text.get_text() for text in panels[0].texts] == list("02345689")


def test_many_classes_are_grey_and_without_numbers(drawn):
    entry = {"title": "original", "points": [[i, i] for i in range(60)], "classes": list(range(60))}
    (axes,) = drawn("representation", representation=[entry])
    assert len(axes.texts) == 0 and len(axes.collections[-1].get_offsets()) == 1


def test_accuracy_class_by_class_frames_the_forgotten_ones(drawn):
    (axes,) = drawn("class_accuracy")
    values = axes.images[0].get_array()
    assert [label.get_text() for label in axes.get_yticklabels()][:3] == ["Original", "Retrained", "Masked head"]
    expected = [[99, 97.3], [98, 0], [99, 0], [99, 0], [81.5, 0], [96, 0]]
    np.testing.assert_allclose(values[:, 2:].filled(np.nan), expected)
    assert np.isnan(values[:, :2].filled(np.nan)).all()  # classes without images or numbers
    (frame,) = axes.patches
    assert (frame.get_x(), frame.get_width(), frame.get_height()) == (2.5, 1, 6)


def test_audits_with_other_settings_enter_no_average_and_are_named(tmp_path, put_audit):
    for forget, steps in (("1", 40), ("2", 40), ("3", 2)):
        put_audit(forget, shift=float(forget), settings={"relearn_steps": steps, "metrics": ["accuracy"] * int(forget)})
    contents = read(tmp_path)
    assert [a.forget for a in contents.audits] == ["1", "2"] and [a.forget for a in contents.other_audits] == ["3"]
    found = contents.verdicts["digits", "allcnn"].findings["ispf/dfq", "probe/penultimate"]
    assert found.average.mean == 52 + (1 + 2) / 2
    (said,) = unaudited(contents)
    assert "class 3, seed 0 has other settings than most (audit.relearn_steps=2, not 40)" in said
