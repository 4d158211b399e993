"""Pictures: what is drawn where, that files are whole and reproducible, and how the image grid is laid out."""

import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgba
from PIL import Image

from ispf_jax.report.figures import image_grid
from ispf_jax.report.figures.accuracy import accuracy_bars
from ispf_jax.report.figures.style import STYLE, compose, panel_svgs, write
from ispf_jax.report.figures.training import loss_curves, training_curves
from ispf_jax.runtime.rows import METHODS


def points(line):
    return [tuple(map(float, p)) for p in zip(*line.get_data())]


def drawn(pictures):
    return {picture.name: compose(picture) for picture in pictures}


def test_training_curves_have_the_panels_of_the_paper(make_run):
    time, samples, filtered, entropy, confidence = drawn(training_curves([make_run("ispf")]))[
        "training_dfq_3_seed0"
    ].axes[:5]
    assert [points(line) for line in time.lines] == [[(3.0, 92.0), (6.0, 94.0), (9.0, 96.0)]]
    steps = [10.0, 20.0, 30.0, 40.0, 50.0]  # the warm-up epoch has no student step
    assert [points(line) for line in samples.lines] == [[(s, 108.0) for s in steps], [(s, 20.0) for s in steps]]
    assert [line.get_linestyle() for line in samples.lines] == ["-", "--"]
    assert points(filtered.lines[0]) == [(s, 26.0 - i) for i, s in enumerate(steps)]
    assert points(entropy.lines[0]) == [(s, 62.0 + i) for i, s in enumerate(steps)]
    assert points(confidence.lines[0]) == [(s, 0.25) for s in steps]
    assert (
        time.get_xlabel().endswith("[s]")
        and time.get_ylabel().endswith("[%]")
        and entropy.get_ylabel().endswith("[nats]")
    )


def test_methods_share_a_picture_and_other_settings_get_their_own(make_run):
    runs = [
        make_run("gkt"),
        make_run("ispf"),
        make_run("ispf", forget="1,7"),
        make_run("ispf", seed=1),
        make_run("ispf", base="zskt"),
    ]
    figures = drawn(training_curves(runs))
    assert list(figures) == [
        "training_dfq_3_seed0",
        "training_dfq_1-7_seed0",
        "training_dfq_3_seed1",
        "training_zskt_3_seed0",
    ]
    lines = figures["training_dfq_3_seed0"].axes[0].lines
    assert [line.get_color() for line in lines] == [STYLE["gkt"][0], STYLE["ispf"][0]]
    assert len(figures["training_dfq_1-7_seed0"].axes[0].lines) == 1


def test_every_method_has_a_look_of_its_own():
    assert set(STYLE) == set(METHODS)
    colors = np.array([to_rgba(color)[:3] for color, _ in STYLE.values()])
    distance = np.linalg.norm(colors[:, None] - colors[None], axis=-1) + 9 * np.eye(len(colors))
    assert distance.min() > 0.15


def test_missing_keys_leave_gaps_or_an_empty_panel_that_says_so(make_run):
    run = make_run("pf", epochs=1)
    run.records.append({"epoch": 2, "student_step": None, "filtered": 3, "test/acc_retain": "?"})
    for panel in drawn(training_curves([run]))["training_dfq_3_seed0"].axes[:5]:
        assert not panel.lines and [text.get_text() for text in panel.texts] == ["not recorded"]


def test_loss_curves_draw_the_terms_that_exist(make_run):
    figures = drawn(
        loss_curves([make_run("ispf"), make_run("gkt", base="zskt", forget="1,7", seed=2), make_run("pf", epochs=0)])
    )
    assert list(figures) == ["losses_dfq_ispf_3_seed0", "losses_zskt_gkt_1-7_seed2"]
    dfq, zskt = ({axes.get_title(): axes for axes in figure.axes if axes.lines} for figure in figures.values())
    assert set(dfq) - set(zskt) == {"generator: batch-norm matching (bn)"}
    bn, student = dfq["generator: batch-norm matching (bn)"], dfq["student: distillation"]
    assert points(bn.lines[0]) == [(e, 9.0 / e) for e in range(1, 7)] and bn.get_xlabel() == "generator steps"
    assert (
        points(student.lines[0]) == [(10.0 * (e - 1), 1.0 / e) for e in range(2, 7)]
        and student.get_xlabel() == "student steps"
    )


def test_accuracy_bars_show_means_of_the_last_epoch(make_row):
    rows = [make_row("original", acc_forget=95.0, acc_retain=97.0)]
    rows += [make_row("ispf", seed=s, acc_forget=1.0, acc_retain=90.0 + 4 * s) for s in (0, 1)]
    rows += [
        make_row("ispf", selection="best_test_retain", acc_retain=100.0),
        make_row("gkt", arch="net/work", acc_forget=None),
    ]
    figures = drawn(accuracy_bars(rows))
    assert list(figures) == ["accuracy_digits_allcnn", "accuracy_digits_net-work"]
    axes = figures["accuracy_digits_allcnn"].axes[0]
    assert [bar.get_height() for bar in axes.patches] == [95.0, 97.0, 1.0, 92.0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["Original", "ISPF"]
    assert [text.get_text() for text in axes.texts] == ["95.0", "97.0", "1.0", "92.0"]
    (segment,) = axes.collections[-1].get_segments()  # the error bar of ispf's retain accuracy: 92 -+ 2
    assert segment[:, 1].tolist() == [90.0, 94.0]
    assert len(figures["accuracy_digits_net-work"].axes[0].patches) == 1


def test_files_are_whole_and_the_same_every_time(tmp_path, make_run):
    before = dict(matplotlib.rcParams)
    first, again = (write(training_curves([make_run("gkt")]), tmp_path / name) for name in "ab")
    assert [p.name for p in first] == ["training_dfq_3_seed0.svg", "training_dfq_3_seed0.png"]
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in again]
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == sorted(p.name for p in first)
    assert ElementTree.parse(first[0]).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert b"<dc:date>" not in first[0].read_bytes()
    with Image.open(first[1]) as image:
        assert np.asarray(image.convert("L")).std() > 5
    assert dict(matplotlib.rcParams) == before


def test_the_page_gets_every_panel_by_itself(make_row):
    (picture,) = accuracy_bars([make_row("ispf")])
    (svg,) = panel_svgs(picture)
    assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg" and svg == panel_svgs(picture)[0]


@pytest.mark.parametrize("channels", [1, 3])
def test_image_grid_places_every_pixel(tmp_path, channels):
    images = np.random.default_rng(0).integers(0, 255, (5, 4, 6, channels), dtype=np.uint8)
    path = image_grid(images, tmp_path / "figures" / "grid.png", columns=3, scale=2)
    with Image.open(path) as file:
        grid = np.asarray(file).reshape(2 * 9 - 1, 3 * 13 - 1, channels)
    for i, image in enumerate(images):
        y, x = (i // 3) * 9, (i % 3) * 13
        np.testing.assert_array_equal(grid[y : y + 8 : 2, x : x + 12 : 2], image)
        np.testing.assert_array_equal(grid[y + 1 : y + 8 : 2, x + 1 : x + 12 : 2], image)
    assert (grid[8] == 255).all() and (grid[:, 12] == 255).all() and (grid[9:, 26:] == 255).all()


def test_image_grid_is_square_and_enlarged_by_default(tmp_path):
    path = image_grid(np.zeros((10, 16, 16, 3), np.uint8), tmp_path / "grid.png")
    with Image.open(path) as image:  # 4 columns, 3 lines, each image three times as large
        assert image.size == (4 * 49 - 1, 3 * 49 - 1)


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((2, 4, 4, 3)),
        np.zeros((2, 4, 4), np.uint8),
        np.zeros((0, 4, 4, 3), np.uint8),
        np.zeros((1, 4, 4, 2), np.uint8),
    ],
)
def test_image_grid_refuses_other_arrays(tmp_path, bad):
    with pytest.raises(ValueError, match="uint8"):
        image_grid(bad, tmp_path / "grid.png")
    assert not (tmp_path / "grid.png").exists()
