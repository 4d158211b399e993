"""What the runs took, came from and made: times over starts, work counted once, hashes, generators, limits."""

import numpy as np
import pytest

from ispf_jax.report.figures.runs import class_histograms, synthesis_against_accuracy, synthesis_shares
from ispf_jax.report.figures.style import compose
from ispf_jax.report.runs import generator_table, hashes_table, limits, times_table
from ispf_jax.report.workdir import Contents, read
from ispf_jax.runtime.provenance import JOURNAL
from ispf_jax.runtime.rows import RunLog


def job(stage, seconds, cpu, finished=True):
    return {"stage": stage, "seconds": seconds, "cpu_seconds": cpu, "finished": finished, "devices": ["cpu"]}


def texts(table):
    return {cells[0].text: [c.text for c in cells[1:]] for cells in table.rows}


def named(table, row=0):
    return dict(zip([c.label for c in table.columns], [c.text for c in table.rows[row]]))


def test_times_add_up_over_starts_and_work_is_counted_once(make_row):
    """Two selections of a run are one run, as is the original of two forget sets; interrupted jobs count."""
    rows = [
        make_row("ispf", selection=s, student_steps=n, images_synthesised=100 * n)
        for s, n in (("last", 1000), ("best_test_retain", 700))
    ]
    rows += [make_row("gkt", student_steps=500, generator_steps=50, images_synthesised=55000)]
    rows += [make_row(m, student_steps=0, generator_steps=0, images_synthesised=0) for m in ("original", "masked_head")]
    jobs = [job("original", 10.0, 15.5), job("unlearn", 50.0, 90.0, False), job("unlearn", 70.25, 130.0)]
    jobs += [job("audit", 3600.0, 7200.0)]
    assert texts(times_table(Contents(rows=rows, jobs=jobs))) == {
        "original": ["10.0 s", "15.5 s", "1", "1 x cpu", "-", "-", "-"],
        "unlearn": ["2 min 00 s", "3 min 40 s", "2 (1 interrupted)", "1 x cpu", "1,500", "150", "155,000"],
        "audit": ["1 h 00 min", "2 h 00 min", "1", "1 x cpu", "-", "-", "-"],
        "total": ["1 h 02 min", "2 h 03 min", "4", "-", "-", "-", "-"],
    }
    assert times_table(Contents(rows=rows)) is None


def test_a_journal_with_a_broken_line_gives_the_others(tmp_path, put):
    whole = '{"stage": "audit", "seconds": 2.0, "devices": ["cpu"]}'
    put(JOURNAL, f'{whole}\n[1]\n{{"stage": "audit"}}\n{whole[:20]}\n{whole}\n')
    assert [j["seconds"] for j in read(tmp_path).jobs] == [2.0, 2.0]


def test_hashes_name_what_a_model_was_made_from(make_audit, make_row):
    rows = [make_row("ispf", seed=1, teacher="another"), make_row("ispf", teacher="00c0ffee"), make_row("original")]
    shown = texts(hashes_table(Contents(rows=rows, audits=[make_audit()])))
    assert shown["Original"] == ["3", "0", "00c0ffee", "-"] and shown["Retrained"][3] == "-"
    assert shown["Masked head"][2:] == ["01c0ffee", "00c0ffee"] and shown["ISPF"][2:] == ["05c0ffee", "00c0ffee"]
    assert shown["GKT"][3] == "-"  # no result says what it was made from


def test_results_that_were_computed_in_several_ways_are_named(make_row):
    ways = ("1 x cpu, XLA", "1 x cpu, oneDNN 3.2.0", "1 x cpu, XLA")
    rows = [make_row("gkt", seed=i, computed=way) for i, way in enumerate(ways)]
    (said,) = [s for s in limits(Contents(rows=rows))["sentences"] if "computed" in s]
    assert said.endswith("1 x cpu, XLA (2 results); 1 x cpu, oneDNN 3.2.0 (1 result).")
    assert not [s for s in limits(Contents(rows=rows[::2]))["sentences"] if "computed" in s]


def test_the_generator_table_counts_images_and_shares(make_run):
    table = generator_table(Contents(runs=[make_run("gkt")]))
    cells = named(table)
    assert cells["images"] == "7,168"  # (50 student + 6 generator steps) of 128
    shares = [cells[head] for head in ("learned from", "filtered out", "of forgotten classes")]
    assert shares == ["78.1 %", "18.8 %", "15.6 %"]
    assert cells["rarest class"] == "0: 12.5 %" and cells["commonest class"] == "2: 62.5 %"
    assert cells["H per image"] == "0.66" and cells["empty steps"] == "5"  # 66 nats of 100 images that were kept
    assert not {"equal images", "near in pixels"} & set(cells) and any("not counted" in note for note in table.notes)
    assert generator_table(Contents()) is None


@pytest.mark.parametrize("kept, said", [(64, "2.00"), (256, "0.50"), (0, "-")])
def test_entropy_per_image_is_of_the_images_that_were_kept(kept, said):
    """Eq. 11's sum is over the N images of distillation: of 256 with 64 kept at 2 nats each, the sum is 128 nats."""
    run = RunLog("gkt", "dfq", "3", 0, [{"epoch": 1, "batch_size": 256, "kept": kept, "entropy": 128.0}])
    assert named(generator_table(Contents(runs=[run])))["H per image"] == said


def test_duplicates_stand_next_to_those_among_real_images(make_run, make_audit):
    """Of the right forget set, seed and method only; runs without an audit have none."""
    of = (("ispf", "zskt", 1), ("gkt", "dfq", 1), ("ispf", "dfq", 1), ("ispf", "dfq", 0))
    runs = [make_run(method, base, seed=s) for method, base, s in of]
    table = generator_table(Contents(runs=runs, audits=[make_audit("3", seed=1)]))
    shown = [[named(table, row)[head] for head in ("equal images", "near in pixels")] for row in range(4)]
    assert shown == [["1.5 %", "12.5 %"], ["-"] * 2, ["0.0 %", "3.1 %"], ["-"] * 2]
    assert (
        "among 64 images" in table.notes[-1] and "near in pixels of 200 real training images: 2.0 %" in table.notes[-1]
    )


def test_a_log_without_counts_has_no_histogram():
    run = RunLog("ispf", "dfq", "3", 0, [{"epoch": 1}])
    assert named(generator_table(Contents(runs=[run])))["images"] == "-"
    assert run.class_shares() is None and class_histograms([run]) == []


def test_figure_4_needs_dfkd_and_gkt_for_several_classes(make_run, make_row):
    rows = [make_row("gkt", forget=str(c), seed=s, acc_retain=80.0 - 10 * c + s) for c in (0, 2) for s in (0, 2)]
    rows += [make_row("gkt", forget="1", selection="best_test_retain"), make_row("gkt", forget="1,2")]
    contents = Contents(rows=rows, runs=[make_run("dfkd"), make_run("gkt")])
    assert synthesis_shares(contents) == {("digits", "allcnn", "dfq"): [(0, 0.125, 81.0), (2, 0.625, 61.0)]}
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
    assert [frame.get_x() for frame in axes.patches] == [0.5]  # around class 1
