"""The parts of a sweep on one page: none is lost in another, each is read with its own configuration."""

import csv
import re

import pytest

from ispf_jax.report import write_combined
from ispf_jax.runtime.rows import write_results
from tests.report.test_page import check

PARTS = {"low": 40.0, "mid": 60.0, "high": 90.0}


@pytest.fixture
def put_part(tmp_path, make_row, put, put_rows, make_audit_json):
    """A function that writes a part with one run of GKT on SVHN, class 3."""

    def write(part, value, note="", config=None, names="0123456789", audited=True, **fields):
        rows = [make_row("gkt", **{"dataset": "svhn", "acc_retain": value} | fields)]
        put_rows(f"{part}/unlearn/dfq/gkt/3/seed0", rows)
        if audited:
            audit = make_audit_json(shift=value - 40, dataset=rows[0].dataset, class_names=list(names))
            put(f"{part}/audit/3/seed0/audit.json", audit)
        asked = {"stages": ["unlearn"], "methods": ["gkt"], "base": ["dfq"], "forget": "3", "seeds": [0]}
        put(
            f"{part}/config.json",
            {"data_fingerprint": "f00d", "config": asked | (config or {}), "class_names": list(names)},
        )
        write_results(tmp_path / part, rows, {"data": {"note": note}, "config": {"seeds": ["of an older start"]}})

    return write


@pytest.fixture
def combined(tmp_path, monkeypatch):
    """A function that writes the combined report; returns `tables.md` and the checked page, pictures left blank."""
    monkeypatch.setattr("ispf_jax.report.page.draw", lambda picture, *formats: [b"<svg/>"] * len(formats))

    def write(parts):
        write_combined(tmp_path, list(parts))
        return (tmp_path / "tables.md").read_text(), check((tmp_path / "report" / "index.html").read_text())

    return write


def table_of(text, title):
    """{first cell: other cells} of the Markdown table under a heading."""
    lines = text.split(f"## {title}\n\n")[1].split("\n\n")[0].splitlines()
    return {cells[0]: cells[1:] for cells in ([c.strip() for c in line.strip("|").split("|")] for line in lines[2:])}


def test_parts_that_share_data_network_and_forget_set_are_kept_apart(tmp_path, put_part, combined):
    """Three thresholds, A_r 40, 60 and 90: three rows everywhere, and every number of every audit."""
    for part, value in PARTS.items():
        put_part(part, value, config={"distill.threshold": value / 1000})
    text, page = combined(PARTS)
    for part, value in PARTS.items():
        results = table_of(text, f"svhn, allcnn (part {part})")["gkt"]
        assert results[:5] == ["dfq", "1 x 1", "0.00", f"{value:.2f}", f"{min(value, 81):.2f}"]
        printed = f"{value:.2f} (paper 33.61 +/- 2.16, {value - 33.61:+.2f})"
        assert (
            printed in table_of(text, f"Table 1: SVHN, AllCNN (dfq), forgetting class 3 (part {part})")["GKT (1 x 1)"]
        )
        prototype = (
            f"{min(64.9 + value - 40, 100):.1f} %"  # GKT's in the audit that is made up, and the shift of this part
        )
        assert any(prototype in cell for cell in table_of(text, f"svhn, allcnn (part {part}): what is left")["GKT"])
        assert prototype in page.said and f"svhn, allcnn (part {part}): what is left" in page.said
        assert f"distill.threshold={value / 1000} (paper: 0.01)" in text
    assert "3 of 3 trials" in page.said and "Parts low, mid, high" in page.said
    with open(tmp_path / "results.csv", newline="") as file:
        assert {row["part"]: float(row["acc_retain"]) for row in csv.DictReader(file)} == PARTS


def test_a_part_that_is_not_comparable_says_so_here_too(put_part, combined):
    """Its configuration and the note on its data are read, those of the last start; the other part stays comparable."""
    put_part("narrow", 90.0, "1,000 images of SVHN", {"model.width": 0.25, "data.max_train": 1000, "seeds": [0, 1]})
    put_part("whole", 92.0)
    text, page = combined(["narrow", "whole"])
    said = "Not comparable: 1,000 images of SVHN; data.max_train=1000 (paper: all images); model.width=0.25 (paper: 1)."
    assert text.count("Not comparable") == 1 and said in text and said in page.said
    assert text.index(said) < text.index("## Table 1: SVHN, AllCNN (dfq), forgetting class 3 (part whole)")
    assert "- narrow: GKT: 1 of 2 runs without a result (class 3, seed 1)." in text and "whole: GKT" not in text
    assert "narrow: GKT: 1 of 2 runs" in page.said and "narrow/report/index.html, whole/report/index.html" in page.said


def test_classes_are_called_as_in_their_part(put_part, combined):
    put_part("digits", 90.0)
    put_part("animals", 80.0, dataset="cifar10", names=["plane", "car", "bird", "cat", *"456789"], audited=False)
    text, page = combined(["digits", "animals"])
    assert "2 sets: 3; 3 (cat)" in page.said and "1 of 2 trials" in page.said
    (said,) = re.findall(r"- animals: (.*)", text)
    assert said.startswith("No audit was run") and said.endswith("Add audit to config.stages.")


def test_a_sweep_of_one_part_names_its_page(put_part, combined):
    put_part("only", 90.0)
    assert "on the pages of the parts: only/report/index.html." in combined(["only"])[1].said
