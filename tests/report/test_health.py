"""What the generators made, counted by hand."""

import numpy as np
import pytest

from ispf_jax.report.figures.generator import class_histograms, synthesis_against_accuracy
from ispf_jax.report.figures.style import compose
from ispf_jax.report.health import Share, class_shares, health_table, synthesis_shares
from ispf_jax.report.workdir import Contents
from ispf_jax.runtime.rows import RunLog


def test_the_table_counts_images_and_shares(make_run):
    table = health_table([make_run("gkt")])
    cells = dict(zip([c.label for c in table.columns], [c.text for c in table.rows[0]]))
    assert cells["images"] == "7,168"  # (50 student + 6 generator steps) of 128
    assert (
        cells["learned from"] == "78.1 %"
        and cells["filtered out"] == "18.8 %"
        and cells["of forgotten classes"] == "15.6 %"
    )
    assert cells["rarest class"] == "0: 12.5 %" and cells["commonest class"] == "2: 62.5 %"
    assert cells["H per image"] == "0.66" and cells["empty steps"] == "5"  # 66 nats of 100 images that were kept
    assert not {"equal images", "near in pixels"} & set(cells) and any("not counted" in note for note in table.notes)
    assert health_table([]) is None


@pytest.mark.parametrize("kept, said", [(64, "2.00"), (256, "0.50"), (0, "-")])
def test_entropy_per_image_is_of_the_images_that_were_kept(kept, said):
    """Eq. 11's sum is over the N images of distillation: of 256 with 64 kept at 2 nats each, the sum is 128 nats."""
    run = RunLog("gkt", "dfq", "3", 0, [{"epoch": 1, "batch_size": 256, "kept": kept, "entropy": 128.0}])
    table = health_table([run])
    assert table.rows[0][[c.label for c in table.columns].index("H per image")].text == said


def test_duplicates_stand_beside_those_among_real_images(make_run, make_audit):
    """Of the right forget set, seed and method only; runs without an audit have none."""
    audit = make_audit("3", seed=1)
    runs = [
        make_run("gkt", seed=1),
        make_run("ispf", seed=1),
        make_run("ispf", seed=0),
        make_run("ispf", base="zskt", seed=1),
    ]
    table = health_table(runs, [audit])
    shown = [
        [c.text for c, column in zip(line, table.columns) if column.label in ("equal images", "near in pixels")]
        for line in table.rows
    ]
    assert shown == [["1.5 %", "12.5 %"], ["0.0 %", "3.1 %"], ["-"] * 2, ["-"] * 2]
    assert (
        "among 64 images" in table.notes[-1] and "near in pixels of 200 real training images: 2.0 %" in table.notes[-1]
    )


def test_a_log_without_counts_has_no_histogram():
    run = RunLog("ispf", "dfq", "3", 0, [{"epoch": 1}])
    assert health_table([run]).rows[0][4].text == "-" and class_shares(run) is None and class_histograms([run]) == []


def test_figure_4_needs_dfkd_and_gkt_for_several_classes(make_run, make_row):
    rows = [make_row("gkt", forget=str(c), seed=s, acc_retain=80.0 - 10 * c + s) for c in (0, 2) for s in (0, 2)]
    rows += [make_row("gkt", forget="1", selection="best_test_retain"), make_row("gkt", forget="1,2")]
    contents = Contents(rows=rows, runs=[make_run("dfkd"), make_run("gkt")])
    assert synthesis_shares(contents) == {("digits", "allcnn", "dfq"): [Share(0, 0.125, 81.0), Share(2, 0.625, 61.0)]}
    (picture,) = synthesis_against_accuracy(contents)
    (axes,) = compose(picture).axes
    assert np.asarray(axes.collections[0].get_offsets()).tolist() == [[12.5, 81.0], [62.5, 61.0]]
    assert synthesis_against_accuracy(Contents(rows=rows[:1], runs=contents.runs)) == []
    assert synthesis_against_accuracy(Contents(rows=rows, runs=contents.runs[1:])) == []


def test_histogram_of_classes(make_run):
    (picture,) = class_histograms([make_run("gkt", forget="1"), make_run("ispf", forget="1")])
    (axes,) = compose(picture).axes
    assert axes.images[0].get_array().tolist() == pytest.approx(np.array([[12.5, 25.0, 62.5]] * 2))
    assert [label.get_text() for label in axes.get_yticklabels()] == ["GKT", "ISPF"]
