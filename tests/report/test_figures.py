"""Pictures of runs: what is drawn where, and that files are whole and reproducible."""

import io
import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
from matplotlib.colors import to_rgba
from PIL import Image

from ispf_jax.methods import METHODS
from ispf_jax.report.figures.runs import accuracy_bars, loss_curves, training_curves
from ispf_jax.report.figures.style import compose, draw
from ispf_jax.report.names import MODELS, shown
from ispf_jax.report.workdir import Contents
from ispf_jax.runtime.rows import REFERENCES


def points(line):
    return [tuple(map(float, p)) for p in zip(*line.get_data())]


def drawn(pictures):
    return {picture.name: compose(picture) for picture in pictures}


def test_training_curves_have_the_panels_of_the_paper(make_run):
    figure = drawn(training_curves([make_run("ispf")]))["training_dfq_3_seed0"]
    time, samples, filtered, entropy, confidence = figure.axes[:5]
    assert [points(line) for line in time.lines] == [[(3.0, 92.0), (6.0, 94.0), (9.0, 96.0)]]
    steps = [10.0, 20.0, 30.0, 40.0, 50.0]  # the warm-up epoch has no student step
    assert [points(line) for line in samples.lines] == [[(s, 108.0) for s in steps], [(s, 20.0) for s in steps]]
    assert [line.get_linestyle() for line in samples.lines] == ["-", "--"]
    assert points(filtered.lines[0]) == [(s, 26.0 - i) for i, s in enumerate(steps)]
    assert points(entropy.lines[0]) == [(s, 62.0 + i) for i, s in enumerate(steps)]
    assert points(confidence.lines[0]) == [(s, 0.25) for s in steps]
    assert time.get_xlabel().endswith("[s]") and time.get_ylabel().endswith("[%]")
    assert entropy.get_ylabel().endswith("[nats]")


def test_methods_share_a_picture_and_other_settings_get_their_own(make_run):
    runs = [make_run("gkt"), make_run("ispf"), make_run("ispf", forget="1,7"), make_run("ispf", seed=1)]
    figures = drawn(training_curves([*runs, make_run("ispf", base="zskt")]))
    names = ["dfq_3_seed0", "dfq_1-7_seed0", "dfq_3_seed1", "zskt_3_seed0"]
    assert list(figures) == [f"training_{name}" for name in names]
    lines = figures["training_dfq_3_seed0"].axes[0].lines
    assert [line.get_color() for line in lines] == [MODELS["gkt"].color, MODELS["ispf"].color]
    assert len(figures["training_dfq_1-7_seed0"].axes[0].lines) == 1


def test_every_method_has_a_look_of_its_own():
    assert set(MODELS) == {*REFERENCES, *METHODS} and shown("mine") == shown("mine/dfq")
    looks = [(model.color, model.marker) for model in (*MODELS.values(), shown("mine"))]
    assert len(set(looks)) == len(looks)
    colors = np.array([to_rgba(model.color)[:3] for model in MODELS.values()])
    distance = np.linalg.norm(colors[:, None] - colors[None], axis=-1) + 9 * np.eye(len(colors))
    assert distance.min() > 0.15


def test_missing_keys_leave_gaps_or_an_empty_panel_that_says_so(make_run):
    run = make_run("pf", epochs=1)
    run.records.append({"epoch": 2, "student_step": None, "filtered": 3, "test/acc_retain": "?"})
    for panel in drawn(training_curves([run]))["training_dfq_3_seed0"].axes[:5]:
        assert not panel.lines and [text.get_text() for text in panel.texts] == ["not recorded"]


def test_loss_curves_draw_the_terms_that_exist(make_run):
    runs = [make_run("ispf"), make_run("gkt", base="zskt", forget="1,7", seed=2), make_run("pf", epochs=0)]
    figures = drawn(loss_curves(runs))
    assert list(figures) == ["losses_dfq_ispf_3_seed0", "losses_zskt_gkt_1-7_seed2"]
    dfq, zskt = ({axes.get_title(): axes for axes in figure.axes if axes.lines} for figure in figures.values())
    assert set(dfq) - set(zskt) == {"generator: batch-norm matching (bn)"}
    bn, student = dfq["generator: batch-norm matching (bn)"], dfq["student: distillation"]
    assert points(bn.lines[0]) == [(e, 9.0 / e) for e in range(1, 7)] and bn.get_xlabel() == "generator steps"
    assert points(student.lines[0]) == [(10.0 * (e - 1), 1.0 / e) for e in range(2, 7)]
    assert student.get_xlabel() == "student steps"


def test_accuracy_bars_show_means_of_the_last_epoch(make_row):
    rows = [make_row("original", acc_forget=95.0, acc_retain=97.0)]
    rows += [make_row("ispf", seed=s, acc_forget=1.0, acc_retain=90.0 + 4 * s) for s in (0, 1)]
    rows += [make_row("ispf", selection="best_test_retain", acc_retain=100.0)]
    rows += [make_row("gkt", arch="net/work", acc_forget=None)]
    figures = drawn(accuracy_bars(Contents(rows=rows)))
    assert list(figures) == ["accuracy_digits_allcnn", "accuracy_digits_net-work"]
    axes = figures["accuracy_digits_allcnn"].axes[0]
    assert [bar.get_height() for bar in axes.patches] == [95.0, 97.0, 1.0, 92.0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["Original", "ISPF"]
    assert [text.get_text() for text in axes.texts] == ["95.0", "97.0", "1.0", "92.0"]
    (segment,) = axes.collections[-1].get_segments()  # the error bar of ispf's retain accuracy: 92 -+ 2
    assert segment[:, 1].tolist() == [90.0, 94.0]
    assert len(figures["accuracy_digits_net-work"].axes[0].patches) == 1


def test_a_picture_is_whole_and_the_same_every_time(make_run):
    before = dict(matplotlib.rcParams)
    (picture,) = training_curves([make_run("gkt")])
    svg, png = draw(picture, "svg", "png")
    assert [svg, png] == draw(picture, "svg", "png") and draw(picture, "svg") == [svg]
    assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg" and b"<dc:date>" not in svg
    with Image.open(io.BytesIO(png)) as image:
        assert np.asarray(image.convert("L")).std() > 5
    assert dict(matplotlib.rcParams) == before
