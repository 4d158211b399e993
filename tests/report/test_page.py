"""The page: one file without network, whole, with the numbers that went in, from whatever there is."""

import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from ispf_jax.report import workdir, write_audit_page, write_report
from ispf_jax.report.page import gallery, render
from ispf_jax.runtime.metrics import metric

VOID = {"meta", "img", "br", "link", "input", "hr"}
CONFIG = {"stages": ["original", "retrain", "unlearn", "audit", "report"], "methods": ["gkt", "ispf"], "base": ["dfq"]}
CONFIG |= {"forget": "3", "seeds": [0], "data.name": "digits"}


class Page(HTMLParser):
    """Collects ids, addresses, text and tables; fails on tags that are not closed where they should be."""

    def __init__(self, html):
        super().__init__()
        self.ids, self.addresses, self.tables, self.text, self._open = [], [], [], [], []
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
def fill(tmp_path, make_row, put, put_rows, put_audit, put_run):
    """A finished work directory of the digits, class 3."""
    put_rows("original/seed0/rows/3", [make_row("original", acc_forget=97.3), make_row("masked_head")])
    put_rows("retrain/3/seed0", [make_row("retrain")])
    for method in ("gkt", "ispf"):
        put_run(method)
        best = make_row(method, selection="best_test_retain", acc_retain=93.0)
        put_rows(f"unlearn/dfq/{method}/3/seed0", [make_row(method, acc_retain=91.23), best])
    put_audit()
    put("config.json", {"config": CONFIG, "data_fingerprint": "f00d", "class_names": list("0123456789")})
    return tmp_path


@pytest.fixture
def blank(monkeypatch):
    """A blank for every picture: drawing is what takes time."""
    monkeypatch.setattr("ispf_jax.report.page.draw", lambda picture, *formats: [b"<svg/>"] * len(formats))


@pytest.fixture
def page_of(blank):
    """A function that renders the page of a work directory with blank pictures."""

    def make(folder, provenance=None):
        contents = workdir.read(folder, provenance)
        return check(render([contents], gallery(contents)))

    return make


def test_a_finished_work_directory(fill, blank):
    provenance = {"command": "launch <me> & co", "versions": {"jax": "9.9"}, "config": CONFIG}
    console = write_report(fill, provenance)
    page = check((fill / "report" / "index.html").read_text())
    numbers = ("52.0 %", "43.5 to 60.5", "n 37", "0.849", "91.23", "93.00", "83.8 %", "place 0.55", "undefined")
    words = ("class 3?", "1 of 1 trials", "By GKT, ISPF, base dfq", "not a certificate", "MIA-I saturates", "shadows=0")
    for text in (*numbers, *words, "launch <me> & co", "9.9", "f00d", "05c0ffee", "retrained models"):
        assert text in page.said, text
    of_audit = {f"{kind}_3_seed0" for kind in ("relearn", "confusion", "closeness", "embedding", "representation")}
    assert of_audit | {"training_dfq_3_seed0", "classes_dfq_3_seed0"} <= set(page.ids) and "missing" not in page.ids
    assert "Prototype" in (fill / "tables.md").read_text() and "prototype" in console
    assert (fill / "audit.csv").exists() and (fill / "figures" / "relearn_3_seed0.png").exists()


def test_every_measurement_is_on_the_page(fill, make_audit, page_of):
    page = page_of(fill)
    for m in make_audit().measurements:
        assert m.value is None or f"{m.value:.{metric(m.metric).digits}f}" in page.said


def test_a_page_of_one_audit_needs_no_work_directory(tmp_path, make_audit_json):
    """From its content in memory, arrays and tuples included, with pictures; nothing about runs, which are unknown."""
    content = make_audit_json(models=("original", "retrain", "gkt/dfq"), forget="1,7")
    content["mean_prediction"] = {model: np.array(p) for model, p in content["mean_prediction"].items()}
    path = write_audit_page(content | {"models": tuple(content["models"])}, tmp_path / "page.html")
    page = check(path.read_text())
    assert "What is left of classes 1, 7?" in page.said and "40.0 %" in page.said and "1 of 1 trials" in page.said
    ids = set(page.ids)
    assert {"relearn_1-7_seed0", "provenance"} <= ids and not {"results", "training", "missing"} & ids
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]
    with pytest.raises(ValueError, match="not an audit"):
        write_audit_page({}, path)


def test_a_report_starts_no_devices(fill):
    code = "import sys; from ispf_jax.report import write_report\n"
    code += "from jax._src.xla_bridge import backends_are_initialized"
    code += "\nwrite_report(sys.argv[1]); sys.exit(backends_are_initialized())"
    (fill / "unlearn/dfq/gkt/3/seed0/metrics.jsonl").unlink()  # less to draw
    assert subprocess.run([sys.executable, "-c", code, str(fill)]).returncode == 0


def test_a_half_finished_sweep_says_what_is_missing(fill, put, put_run, make_row, put_rows, page_of):
    names = ["zero", "one", "two", "cat", *map(str, range(4, 10))]
    put("config.json", {"config": CONFIG | {"forget": "3;7"}, "class_names": names})
    put_run("ispf", forget="7", epochs=3)
    put_rows("original/seed0/rows/7", [make_row("original", forget="7")])
    page = page_of(fill)
    assert "missing" in page.ids and "Retrained: 1 of 2 runs without a result (class 7, seed 0)." in page.said
    assert "ISPF: 1 of 2 runs without a result (class 7, seed 0; 1 begun, the furthest at epoch 3)." in page.said
    assert "1 of 2 trials without an audit (class 7, seed 0)." in page.said and "1 of 2 trials" in page.said
    assert "2 sets: 3 (cat); 7" in page.said


@pytest.mark.parametrize("forget", ["id:5", "name:06", "id:5;name:02", "name:06,name:01"])
def test_finished_runs_of_numbered_folders_are_not_missing(tmp_path, make_row, put, put_rows, forget):
    """Folders 01 to 10 are classes 0 to 9: id:5 and name:06 are class 5. A second seed is missing, by class name."""
    runs = {"id:5": ["5"], "name:06": ["5"], "id:5;name:02": ["5", "1"], "name:06,name:01": ["0,5"]}[forget]
    rows = [make_row(method, forget=run) for run in runs for method in ("original", "retrain", "gkt", "ispf")]
    put_rows("unlearn/dfq/gkt/5/seed0", rows)
    for seeds, missing in (([0], []), ([0, 1], ["Original", "Retrained", "GKT", "ISPF"])):
        config = CONFIG | {"forget": forget, "seeds": seeds}
        put("config.json", {"config": config, "class_names": [f"{number:02}" for number in range(1, 11)]})
        said = workdir.unfinished(workdir.read(tmp_path))
        assert [sentence.partition(":")[0] for sentence in said] == missing
    name = "class 0 (01), 5 (06), seed 1" if "," in runs[0] else "class 5 (06), seed 1"
    assert f"{len(runs)} of {2 * len(runs)} runs" in said[0] and name in said[0]


def test_without_an_audit(fill, page_of):
    (fill / "audit/3/seed0/audit.json").unlink()
    said = page_of(fill).said
    assert "No audit was run" in said and "Add audit to config.stages" in said and "0 of 1 trials" in said


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


def test_many_forget_sets_and_seeds(tmp_path, make_row, put_rows, put_audit, page_of):
    """Of six audits, each with three pictures, the first three are shown."""
    for forget in ("0", "1", "2,5"):
        for seed in (0, 1):
            put_audit(forget, seed, shift=float(seed), curves=[], embedding=[], confusion={})
            row = make_row("ispf", forget=forget, seed=seed)
            put_rows(f"unlearn/dfq/ispf/{forget.replace(',', '-')}/seed{seed}", [row])
    page = page_of(tmp_path)
    for text in ("3 sets: 0; 1; 2, 5", "seeds 0, 1", "6 of 6 trials", "52.5 %", "3 x 2 runs", "9 more pictures"):
        assert text in page.said, text
    closeness = [i.removeprefix("closeness_") for i in page.ids if i.startswith("closeness")]
    assert "Forgetting 2, 5" in page.said and closeness == ["0_seed0", "0_seed1", "1_seed0"]


def test_names_cannot_break_the_page(tmp_path, put_audit, make_row, put_rows, page_of):
    put_audit(class_names=["<b>", "</table>", "&", "<script>", *"456789"], forget_names=["<script>"])
    put_rows("unlearn/dfq/ispf/3/seed0", [make_row("<img src=x>", dataset="digits")])
    page = page_of(tmp_path)
    assert "<script>" in page.said and "<img src=x>" in page.said


def test_places_are_drawn_within_their_frames(fill, put_audit):
    """A place far from the ends, such as -20 or 68, is an arrow at the end of the frame."""
    put_audit(shift=3.0 - 0.849)
    put_audit(seed=1, shift=-68.0)
    put_audit(seed=2, shift=230.0)
    contents = workdir.read(fill)
    html = render([contents], [])
    places = re.findall(r'<svg class="place.*?</svg>', html)
    said = [re.search(r"place ([-\d.]+\??) between", place)[1] for place in places]
    numbers = [float(s.rstrip("?")) for s in said]
    assert {"0.00", "1.00"} <= set(said) and max(numbers) > 10 and min(numbers) < 0
    for place, at in zip(places, said):
        xs = [float(x) for x in re.findall(r'(?:cx="|[MH]|translate\()([\d.]+)', place)]
        assert all(5 <= x <= 99 for x in xs) and ("?" in at) == ("unsure" in place) == ("undecided" in place)
        assert ("<circle" in place) == (-0.118 <= float(at.rstrip("?")) <= 1.118)
