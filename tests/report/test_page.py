"""The page: one file without network, whole, with the numbers that went in, from whatever there is."""

import json
import re
from html.parser import HTMLParser

import pytest
from ispf_jax.report.cells import Place
from ispf_jax.report.gallery import gallery
from ispf_jax.report.svg import place_bar

from ispf_jax.report import workdir, write_report
from ispf_jax.report.page import render

VOID = {"meta", "img", "br", "link", "input", "hr"}
CONFIG = {
    "stages": ["original", "retrain", "unlearn", "audit", "report"],
    "methods": ["gkt", "ispf"],
    "base": ["dfq"],
    "forget": "3;7",
    "seeds": [0],
    "data.name": "digits",
}


class Page(HTMLParser):
    """Collects ids, addresses, text and tables; fails on tags that are not closed where they should be."""

    def __init__(self, html):
        super().__init__()
        self.ids, self.addresses, self.tables, self.headings, self.text, self._open = [], [], [], [], [], []
        self.feed(html)
        self.close()
        assert not self._open, self._open
        self.said = re.sub(r"\s+", " ", " ".join(self.text))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        assert not any(name.startswith("on") for name in attributes) and tag != "script"
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.addresses += [attributes[name] for name in ("src", "href", "srcset", "data") if name in attributes]
        if tag == "img":
            assert attributes["alt"]
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append(0)
        elif tag in ("td", "th"):
            self.tables[-1][-1] += int(attributes.get("colspan", 1))

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open[-1:] != ["style"]:
            self.text.append(data.strip())


def check(html):
    page = Page(html)
    assert len(set(page.ids)) == len(page.ids)
    assert all(a.startswith(("data:image/", "#")) for a in page.addresses)
    assert {a[1:] for a in page.addresses if a.startswith("#")} <= set(page.ids)
    assert "url(" not in html and "@import" not in html and "http" not in re.sub(r"data:[^\"]*", "", html)
    for rows in page.tables:
        assert len(rows) > 1 and len(set(rows)) == 1
    return page


@pytest.fixture
def fill(tmp_path, make_row, put_rows, put_audit, put_run):
    """A finished work directory of the digits, class 3."""
    put_rows(
        "original/seed0/rows/3", [make_row("original", acc_forget=97.3, base=""), make_row("masked_head", base="")]
    )
    put_rows("retrain/3/seed0", [make_row("retrain", base="")])
    for method in ("gkt", "ispf"):
        put_run(method)
        put_rows(
            f"unlearn/dfq/{method}/3/seed0",
            [make_row(method, acc_retain=91.23), make_row(method, selection="best_test_retain", acc_retain=93.0)],
        )
    put_audit()
    (tmp_path / "config.json").write_text(
        json.dumps({"config": CONFIG | {"forget": "3"}, "data_fingerprint": "f00d", "class_names": list("0123456789")})
    )
    return tmp_path


@pytest.fixture
def page_of(monkeypatch):
    """A function that renders the page of a work directory, with a blank for every drawn panel: drawing is what takes time."""
    monkeypatch.setattr("ispf_jax.report.page.panel_svgs", lambda picture: [b"<svg/>"] * len(picture.panels))

    def make(folder, provenance=None):
        contents = workdir.read(folder, provenance)
        return check(render({"": contents}, gallery(contents)))

    return make


def test_a_finished_work_directory(fill, monkeypatch):
    monkeypatch.setattr(
        "ispf_jax.report.gallery.training.loss_curves", lambda runs: []
    )  # many panels, tested elsewhere
    provenance = {"command": "launch <me> & co", "versions": {"jax": "9.9"}, "config": CONFIG | {"forget": "3"}}
    console = write_report(fill, provenance)
    page = check((fill / "report" / "index.html").read_text())
    assert (
        "What is left of class 3?" in page.said
        and "1 of 1 trials" in page.said
        and "By GKT, ISPF, base dfq" in page.said
    )
    for number in ("52.0 %", "43.5 to 60.5", "n 37", "0.849", "91.23", "93.00", "83.8 %", "place 0.55", "undefined"):
        assert number in page.said, number
    for words in (
        "measurement, not a certificate",
        "MIA-I saturates",
        "audit.lira_shadows=0",
        "launch <me> & co",
        "9.9",
        "f00d",
        "05c0ffee",
        "retrained models",
    ):
        assert words in page.said, words
    assert "missing" not in page.ids
    assert {
        "relearn_3_seed0",
        "confusion_3_seed0",
        "closeness_3_seed0",
        "embedding_3_seed0",
        "training_dfq_3_seed0",
        "classes_dfq_3_seed0",
    } <= set(page.ids)
    assert "Prototype" in (fill / "tables.md").read_text() and "prototype" in console
    assert (fill / "audit.csv").exists() and (fill / "figures" / "relearn_3_seed0.png").exists()


def test_every_measurement_is_on_the_page(fill, make_audit, page_of):
    page = page_of(fill)
    from ispf_jax.report.verdict import number

    for m in make_audit().measurements:
        if m.value is not None:
            assert number(m.value, m.metric).removesuffix(" %") in page.said


def test_a_half_finished_sweep_says_what_is_missing(fill, put_run, make_row, put_rows, page_of):
    config = {"config": CONFIG, "class_names": ["zero", "one", "two", "cat", *map(str, range(4, 10))]}
    (fill / "config.json").write_text(json.dumps(config))
    put_run("ispf", forget="7", epochs=3)
    put_rows("original/seed0/rows/7", [make_row("original", forget="7")])
    page = page_of(fill)
    assert "missing" in page.ids and "Retrained: 1 of 2 runs without a result (class 7, seed 0)." in page.said
    assert "ISPF: 1 of 2 runs without a result (class 7, seed 0; 1 begun, the furthest at epoch 3)." in page.said
    assert "1 of 2 trials without an audit (class 7, seed 0)." in page.said and "1 of 2 trials" in page.said
    assert "2 sets: 3 (cat); 7" in page.said


@pytest.mark.parametrize("forget", ["id:5", "name:06", "id:5;name:02", "name:06,name:01"])
def test_finished_runs_of_numbered_folders_are_not_missing(tmp_path, make_row, put_rows, forget):
    """Folders 01 to 10 are classes 0 to 9: id:5 and name:06 are class 5. A second seed that was not run is missing, under the class's name."""
    names = [f"{number:02}" for number in range(1, 11)]
    runs = {"id:5": ["5"], "name:06": ["5"], "id:5;name:02": ["5", "1"], "name:06,name:01": ["0,5"]}[forget]
    rows = [make_row(method, forget=run) for run in runs for method in ("original", "retrain", "gkt", "ispf")]
    put_rows("unlearn/dfq/gkt/5/seed0", rows)
    for seeds in ([0], [0, 1]):
        config = CONFIG | {"forget": forget, "seeds": seeds}
        (tmp_path / "config.json").write_text(json.dumps({"config": config, "class_names": names}))
        said = workdir.unfinished(workdir.read(tmp_path))
        assert [sentence.partition(":")[0] for sentence in said] == (
            ["Original", "Retrained", "GKT", "ISPF"] if len(seeds) > 1 else []
        )
    assert (
        f"{len(runs)} of {2 * len(runs)} runs" in said[0]
        and f"class {'0 (01), 5' if ',' in runs[0] else 5} (06), seed 1" in said[0]
    )


def test_without_an_audit(fill, page_of):
    (fill / "audit/3/seed0/audit.json").unlink()
    page = page_of(fill)
    assert (
        "No audit has been run" in page.said
        and "Add audit to config.stages" in page.said
        and "0 of 1 trials" in page.said
    )


def test_a_model_that_the_audit_left_out_is_named(fill, put_audit, page_of):
    put_audit(models=("original", "masked_head", "retrain", "ispf/dfq"))
    assert "GKT: left out of the audit of class 3, seed 0." in page_of(fill).said


def test_a_damaged_audit_is_named(fill, page_of):
    (fill / "audit/3/seed0/audit.json").write_text('{"format": 1')
    page = page_of(fill)
    assert "audit/3/seed0/audit.json.damaged is damaged and was set aside." in page.said
    assert str(fill) not in page.said


def test_an_empty_work_directory(tmp_path, page_of):
    assert "There are no results yet." in page_of(tmp_path).said
    assert write_report(tmp_path) == "no results yet" and "no results yet" in (tmp_path / "tables.md").read_text()


def test_an_audit_without_rows(tmp_path, put_audit, page_of):
    put_audit(models=("original", "ispf/dfq"))
    page = page_of(tmp_path)
    assert "52.0 %" in page.said and "What is left of class 3?" in page.said


def test_many_forget_sets_and_seeds(tmp_path, make_row, put_rows, put_audit, monkeypatch, page_of):
    monkeypatch.setattr("ispf_jax.report.page.SHOWN", 1)
    for forget in ("0", "1", "2,5"):
        for seed in (0, 1):
            put_audit(forget, seed, shift=float(seed), curves=[], embedding=[], confusion={})
            put_rows(
                f"unlearn/dfq/ispf/{forget.replace(',', '-')}/seed{seed}", [make_row("ispf", forget=forget, seed=seed)]
            )
    page = page_of(tmp_path)
    assert "3 sets: 0; 1; 2, 5" in page.said and "seeds 0, 1" in page.said and "6 of 6 trials" in page.said
    assert "52.5 %" in page.said and "3 x 2 runs" in page.said and "Forgetting 2, 5" in page.said
    assert "5 more pictures" in page.said and [i for i in page.ids if i.startswith("closeness")] == [
        "closeness_0_seed0"
    ]


def test_names_cannot_break_the_page(tmp_path, put_audit, make_row, put_rows, page_of):
    put_audit(class_names=["<b>", "</table>", "&", "<script>"] + list("456789"), forget_names=["<script>"])
    put_rows("unlearn/dfq/ispf/3/seed0", [make_row("<img src=x>", dataset="digits")])
    page = page_of(tmp_path)
    assert "<script>" in page.said and "<img src=x>" in page.said


@pytest.mark.parametrize("at, said", [(0.314, "place 0.31 "), (-7.0, "place -7.00? "), (-0.001, "place 0.00? ")])
def test_a_place_is_drawn_within_its_frame(at, said):
    drawn = str(place_bar(Place(at, at - 0.1, at + 0.1, sure=at > 0)))
    assert said in drawn and (at > 0) == ("hardly told apart" not in drawn)
    assert all(0 <= float(x) <= 104 for x in re.findall(r"(?:cx=\"|[ML])(-?[\d.]+)", drawn))
