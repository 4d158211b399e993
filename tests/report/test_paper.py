"""The paper's numbers against values typed by hand, and its tables next to ours."""

import importlib
from dataclasses import replace

import pytest

from configs.cifar100_multi_ispf import SETS
from ispf_jax.config import make_experiment
from ispf_jax.experiment import flatten
from ispf_jax.report.paper import counterpart, paper_tables, printed
from ispf_jax.report.workdir import Contents

SHARED, DISTRIBUTED = (",".join(sorted(SETS[name].split(","), key=int)) for name in ("shared", "distributed"))


@pytest.mark.parametrize(
    "where, mean, std",
    [
        ("1 svhn allcnn single ispf A_r", 92.68, 0.13),
        ("1 cifar10 allcnn single gkt AIN", 1.44, None),
        ("1 svhn resnet18 single blockf MIA-I", 51.35, None),
        ("2 cifar100 resnet18 multi gkt A_r", 49.86, 3.01),
        ("6 cifar100 resnet18 shared is #Sample", 166.0, None),
        ("7 svhn resnet18 single ispf A_r", 85.67, 0.65),
        ("8 svhn resnet18 single pd_is MIA-II", 7.62, None),
        ("1 svhn allcnn single original A_f", 93.86, None),
        ("9 svhn allcnn 0 blockf A_r", 92.71, 0.21),
    ],
)
def test_printed_numbers(where, mean, std):
    found = printed()[tuple(where.split())]
    assert found.mean == mean and (found.std == std if std else found.std != found.std)


def test_table_9_is_complete_and_its_means_are_those_of_table_1():
    for setting in (("cifar10", "allcnn", "ispf"), ("cifar10", "resnet18", "gkt"), ("svhn", "resnet18", "pf")):
        *at, method = setting
        mean = sum(printed()["9", *at, str(c), method, "A_r"].mean for c in range(10)) / 10
        assert mean == pytest.approx(printed()["1", *at, "single", method, "A_r"].mean, abs=0.006)


def test_what_is_comparable():
    assert counterpart("svhn", "allcnn", {}) == ("svhn", []) and counterpart("digits", "allcnn", {}) == (None, [])
    config = {"data.path": "/somewhere/cifar10-jpeg.tar", "model.width": 0.5}
    name, reasons = counterpart("image_folder", "allcnn", config, "a note")
    assert name == "cifar10" and len(reasons) == 3 and "JPEG" in reasons[0] and "/somewhere" not in " ".join(reasons)
    assert counterpart("cifar100", "resnet18", {"data.max_train": 500})[1] == ["data.max_train=500 (paper: all images)"]
    assert counterpart("image_folder", "allcnn", {"data.path": "cats"}) == (None, [])


def flat(name, variant=""):
    return flatten(make_experiment(importlib.import_module(f"configs.{name}").get_config(variant)))


SETTINGS = ["svhn allcnn", "svhn resnet18", "cifar10 allcnn", "cifar10 resnet18", "cifar100 resnet18"]


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_key_that_changes_what_is_computed_is_compared(setting):
    """The paper's configurations are comparable; with another value of any key of networks or training they are not."""
    name, arch = setting.split()
    config = flat(f"{name}_ispf", arch)
    assert counterpart(name, arch, config) == (name, [])
    both = {"train.augment_validation", "distill.thresholded_post_filter"}  # either is right
    for key in config:
        if key.startswith(("train.", "distill.", "generator.", "model.")) and key not in both | {"model.name"}:
            other = {str: "other", list: [7]}.get(type(config[key])) or config[key] * 1.5 + 3
            (said,) = counterpart(name, arch, config | {key: other})[1]
            assert said.startswith(f"{key}=") and "(paper: " in said
    same = {"distill.threshold": 0.001 if name == "cifar100" else 0.01, "distill.warmup_epochs": 0, "data.channels": 3}
    same |= {"data.mean": config["data.mean"] * 3} if name == "svhn" else {"distill.cosine_epochs": 0}
    assert counterpart(name, arch, config | same | dict.fromkeys(both, True)) == (name, [])


def test_settings_that_differ_are_named_with_the_papers():
    """Appendix C: SVHN 10 epochs of training, 100 of distillation, batches of 256."""
    config = flat("svhn_ispf") | {"distill.epochs": 2, "train.epochs": 1, "generator.width": 0.0625}
    config |= {"distill.batch_size": 8, "model.dtype": "bfloat16", "distill.threshold": 0.5}
    assert counterpart("svhn", "allcnn", config)[1] == [
        "distill.batch_size=8 (paper: 256)",
        "distill.epochs=2 (paper: 100)",
        "distill.threshold=0.5 (paper: 0.01)",
        "generator.width=0.0625 (paper: 1)",
        "model.dtype=bfloat16 (paper: float32)",
        "train.epochs=1 (paper: 10)",
    ]
    other = flat("cifar10_ispf", "resnet18") | {"train.decay_epochs": [60]}
    assert counterpart("cifar10", "resnet18", other)[1] == ["train.decay_epochs=60 (paper: 60,80)"]


def tables(rows, **contents):
    return {table.title.partition(":")[0]: table for table in paper_tables(Contents(rows=rows, **contents))}


def line(table, method):
    (cells,) = [cells for cells in table.rows if cells[0].text == method]
    return dict(zip([c.name for c in table.columns], cells))


def test_table_1_compares_the_papers_selection_with_the_paper(make_row, make_audit):
    rows = []
    for at in ({"dataset": "svhn", "forget": str(c)} for c in range(10)):
        rows += [make_row("original", **at, acc_overall=93.0), make_row("retrain", **at, acc_retain=94.0)]
        rows += [make_row("ispf", **at, acc_retain=90.0), make_row("gkt", **at, acc_retain=80.0)]
        rows += [make_row("ispf", **at, acc_retain=92.0, acc_forget=0.5, selection="best_test_retain")]
    table = tables(rows, audits=[make_audit(str(c), dataset="svhn") for c in range(10)])["Table 1"]
    ispf = line(table, "ISPF")
    assert (ispf["A_f"].plain, ispf["A_f*"].plain) == ("0.00", "0.50 (paper 0.00, +0.50)")
    assert (ispf["A_r"].plain, ispf["A_r*"].plain) == ("90.00", "92.00 (paper 92.68 +/- 0.13, -0.68)")
    marks = [ispf["A_r*"].mark, line(table, "GKT")["A_r"].mark, line(table, "Retrained")["A_f"].mark]
    assert marks == ["near", "above", "near"]
    assert ispf["MIA-II"].plain == "39.50 (paper 34.54, +4.96)" and ispf["AIN"].mark == "above"
    assert line(table, "GKT")["AIN"].plain == "- (paper 1.30)"
    assert line(table, "Original")["A_f"].plain == "93.00 (paper 93.86, -0.86)"
    assert not any("Not comparable" in note for note in table.notes)
    assert any("AIN is a bound" in note for note in table.notes)


def test_ain_names_its_own_bounds_only_and_over_how_many_runs_it_is(make_row, make_audit):
    """Of three runs one has an AIN, 0.50; bounds of a set of several classes do not belong to table 1."""
    notes = {"0": (0.5, "exact"), "1": (None, "undefined"), "2": (None, "undefined"), "3,4": (2.0, "at least")}
    rows = [make_row("gkt", forget=f, dataset="svhn") for f in notes]
    exact = {"model": "retrain", "metric": "ain", "value": 1.0, "note": "exact"}
    audits = []
    for f, (value, note) in notes.items():
        measured = [{"model": "gkt/dfq", "metric": "ain", "value": value, "note": note}, exact]
        audits.append(make_audit(f, dataset="svhn", models=("gkt/dfq", "retrain"), measurements=measured))
    table = tables(rows, audits=audits)["Table 1"]
    gkt = table.rows[[cells[0].text for cells in table.rows].index("GKT")]
    assert gkt[0].small == "3 x 1" and gkt[-1].plain == "0.50 (1 of 3 runs)"
    (note,) = [note for note in table.notes if "AIN is a bound" in note]
    assert note.endswith("(GKT: undefined).")


def test_data_that_is_not_the_papers_has_no_numbers_beside_it(make_row):
    (table,) = tables([make_row("ispf")]).values()
    assert line(table, "ISPF")["A_r"].plain == "90.00"
    assert table.notes[0].startswith("The paper has no numbers for digits")
    beside = tables([make_row("ispf", dataset="cifar10")], config={"model.width": 0.25})["Table 1"]
    assert "paper 87.88" in line(beside, "ISPF")["A_r"].plain
    assert any("model.width=0.25 (paper: 1)" in note for note in beside.notes)


@pytest.mark.parametrize(
    "forget, gkt, mean",
    [
        ("3", 33.61, "33.61 (paper 33.61 +/- 2.16, +0.00)"),
        ("01", (90.55, 19.78), "55.16 (paper 55.16, +0.00)"),
        ("0123456789", 55.23, "55.23 (paper 55.23 +/- 2.42, +0.00)"),
    ],
)
def test_fewer_than_all_classes_stand_next_to_the_same_classes_of_table_9(make_row, make_audit, forget, gkt, mean):
    """The paper's own GKT gives no difference: class 3; 0 and 1; all ten with table 1's mean. DFKD has no class."""
    values = gkt if isinstance(gkt, tuple) else [gkt] * len(forget)
    rows = [make_row("gkt", dataset="svhn", forget=c, acc_retain=v) for c, v in zip(forget, values)]
    others = {"dataset": "svhn", "acc_retain": 94.0, "acc_overall": 91.37}
    rows += [make_row(m, forget=c, **others) for c in forget for m in ("dfkd", "retrain")]
    table = tables(rows, audits=[make_audit(c, dataset="svhn") for c in forget])["Table 1"]
    dfkd, gkt = line(table, "DFKD"), line(table, "GKT")
    assert gkt["A_r"].plain == mean and dfkd["A_r"].plain == "91.37 (paper 91.37 +/- 0.23, +0.00)"
    whole = len(forget) == 10
    assert ("paper" in line(table, "Retrained")["A_r"].plain) == ("paper" in gkt["MIA-II"].plain) == whole
    assert any("fewer than all ten classes" in note for note in table.notes) != whole


def test_tables_2_and_6_for_several_classes(make_row, make_run):
    at = {"dataset": "cifar100", "arch": "resnet18"}
    rows = [make_row("gkt", **at, forget=SHARED, acc_retain=56.0), make_row("gkt", **at, forget="0", acc_retain=60.0)]
    found = paper_tables(Contents(rows=rows, runs=[make_run("gkt", forget=SHARED)]))
    single, multi, six = found
    assert "single classes" in single.title
    assert line(single, "GKT")["A_r"].plain == "60.00 (paper 59.65 +/- 0.37, +0.35)"
    assert line(multi, "GKT")["A_r"].plain == "56.00" and multi.notes[0].endswith("forgetting these classes.")
    assert any("does not name" in note for note in single.notes)
    assert line(six, "GKT")["Shared: #Sample"].plain == "100.00 (paper 101.00, -1.00)"
    assert line(six, "GKT")["Shared: A_r"].plain == "56.00 (paper 56.04 +/- 1.02, -0.04)"


def test_only_the_distributed_set_is_the_papers_several_classes(make_row):
    """Table 2: ISPF 62.58 on ten distributed classes; the shared set is in table 6 alone, two classes nowhere."""
    at = {"dataset": "cifar100", "arch": "resnet18"}
    values = {DISTRIBUTED: 62.0, SHARED: 64.0, "0,1": 70.0}
    rows = [make_row("ispf", **at, forget=forget, acc_retain=value) for forget, value in values.items()]
    twos = [table for table in paper_tables(Contents(rows=rows)) if table.title.startswith("Table 2")]
    assert [line(table, "ISPF")["A_r"].plain for table in twos] == ["62.00 (paper 62.58 +/- 0.62, -0.58)", "67.00"]
    assert any("stand-in" in note for note in twos[0].notes)


def test_tables_6_and_9_compare_the_papers_selection_too(make_row, make_run):
    """Shared, ISPF: 63.74 (table 6); SVHN, AllCNN, GKT without 3: 33.61 (table 9). The last epoch is not compared."""
    at = {"dataset": "cifar100", "arch": "resnet18", "forget": SHARED}
    rows = [make_row("ispf", **at, acc_retain=60.0)]
    rows += [make_row("ispf", **at, acc_retain=64.0, selection="best_test_retain")]
    six = tables(rows, runs=[make_run("ispf", forget=SHARED)])["Table 6"]
    assert line(six, "ISPF")["Shared: A_r"].plain == "60.00"
    assert line(six, "ISPF")["Shared: A_r*"].plain == "64.00 (paper 63.74 +/- 0.58, +0.26)"
    rows = [make_row("gkt", dataset="svhn", forget=f, acc_retain=30.0) for f in "34"]
    rows += [replace(row, acc_retain=34.0, selection="best_test_retain") for row in rows]
    nine = tables(rows)["Table 9"]
    assert [[cell.plain for cell in cells[:3]] for cells in nine.rows] == [
        ["GKT", "A_r", "30.00"],
        ["", "A_f", "0.00"],
        ["", "A_r*", "34.00 (paper 33.61 +/- 2.16, +0.39)"],
        ["", "A_f*", "0.00 (paper 0.00 +/- 0.00, +0.00)"],
    ]


def test_table_6_of_a_half_finished_sweep(make_row, make_run):
    rows = [make_row("gkt", forget="1,2", acc_retain=56.0), make_row("ispf", forget="3,4", acc_retain=60.0)]
    six = tables(rows, runs=[make_run("gkt", forget="1,2"), make_run("ispf", forget="3,4")])["Table 6"]
    gkt, ispf = ([c.text for c in cells] for cells in six.rows)
    assert gkt == ["GKT", "100.00", "56.00", "-", "-"] and ispf == ["ISPF", "-", "-", "100.00", "60.00"]


def test_tables_7_8_and_9(make_row):
    at = {"dataset": "svhn", "arch": "allcnn"}
    runs = [(m, b, f) for m, b in (("pd", "dfq"), ("pf", "dfq"), ("gkt", "zskt")) for f in "0123456789"]
    rows = [make_row(m, base=b, forget=f, **at, acc_retain=77.0 + int(f)) for m, b, f in runs]
    found = tables(rows)
    assert list(found) == ["Table 1", "Table 8", "Table 9", "Table 7"]
    assert line(found["Table 7"], "GKT")["A_r"].plain == "81.50 (paper 20.49 +/- 0.44, +61.01)"
    assert line(found["Table 8"], "PD")["A_r"].plain == "81.50 (paper 86.58 +/- 0.61, -5.08)"
    assert "paper 91.15" in line(found["Table 8"], "PF")["A_r"].plain  # printed in table 1
    theirs = printed()["9", "svhn", "allcnn", "2", "pf", "A_r"]
    nine = line(found["Table 9"], "PF")["forgotten class: 2"]
    assert nine.plain == f"79.00 (paper {theirs.text()}, {79 - theirs.mean:+.2f})"
    two = tables([r for r in rows if r.forget in "12"])
    assert line(two["Table 7"], "GKT")["A_r"].plain == "78.50" and line(two["Table 8"], "PD")["A_r"].plain == "78.50"
    assert line(two["Table 8"], "PF")["A_r"].plain == "78.50 (paper 90.82, -12.32)"  # of table 9: 91.38 and 90.26


def test_table_9_is_cut_into_tens(make_row):
    rows = [make_row("gkt", forget=str(c), dataset="cifar100", arch="resnet18") for c in range(23)]
    nines = [table for table in paper_tables(Contents(rows=rows)) if table.title.startswith("Table 9")]
    assert [len(table.columns) - 2 for table in nines] == [10, 10, 3]
