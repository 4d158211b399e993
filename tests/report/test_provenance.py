"""What the runs took and came from: times added up over starts, work counted once, hashes."""

import json

from ispf_jax.report.limits import limits
from ispf_jax.report.provenance import hashes_table, times_table
from ispf_jax.report.workdir import Contents, read
from ispf_jax.runtime.provenance import JOURNAL


def job(stage, seconds, cpu, finished=True, devices=("cpu",)):
    return {
        "stage": stage,
        "job": [0],
        "seconds": seconds,
        "cpu_seconds": cpu,
        "finished": finished,
        "devices": list(devices),
    }


def texts(table):
    return {cells[0].text: [c.text for c in cells[1:]] for cells in table.rows}


def test_times_add_up_over_starts_and_work_is_counted_once(make_row):
    """Two selections of one run are one run; the original of two forget sets is one; an interrupted job and its second start add."""
    rows = [
        make_row("ispf", selection=s, student_steps=n, images_synthesised=100 * n)
        for s, n in (("last", 1000), ("best_test_retain", 700))
    ]
    rows += [make_row("gkt", student_steps=500, generator_steps=50, images_synthesised=55000)]
    rows += [make_row(m, student_steps=0, generator_steps=0, images_synthesised=0) for m in ("original", "masked_head")]
    jobs = [
        job("original", 10.0, 15.5),
        job("unlearn", 50.0, 90.0, False),
        job("unlearn", 70.25, 130.0),
        job("audit", 3600.0, 7200.0),
    ]
    shown = texts(times_table(Contents(rows=rows, jobs=jobs)))
    assert shown == {
        "original": ["10.0 s", "15.5 s", "1", "1 x cpu", "-", "-", "-"],
        "unlearn": ["2 min 00 s", "3 min 40 s", "2 (1 interrupted)", "1 x cpu", "1,500", "150", "155,000"],
        "audit": ["1 h 00 min", "2 h 00 min", "1", "1 x cpu", "-", "-", "-"],
        "total": ["1 h 02 min", "2 h 03 min", "4", "-", "-", "-", "-"],
    }
    assert times_table(Contents(rows=rows)) is None


def test_a_journal_with_a_broken_line_gives_the_others(tmp_path):
    whole = json.dumps(job("audit", 2.0, 3.0))
    (tmp_path / JOURNAL).write_text(f'{whole}\n[1]\n{{"stage": "audit"}}\n{whole[:20]}\n{whole}\n')
    assert [j["seconds"] for j in read(tmp_path).jobs] == [2.0, 2.0]


def test_hashes_name_what_a_model_was_made_from(make_audit, make_row):
    rows = [
        make_row("ispf", seed=1, teacher="another"),
        make_row("ispf", teacher="00c0ffee"),
        make_row("original", base=""),
    ]
    shown = texts(hashes_table(Contents(rows=rows, audits=[make_audit()])))
    assert shown["Original"] == ["3", "0", "00c0ffee", "-"] and shown["Retrained"][3] == "-"
    assert shown["Masked head"][2:] == ["01c0ffee", "00c0ffee"] and shown["ISPF"][2:] == ["05c0ffee", "00c0ffee"]
    assert shown["GKT"][3] == "-"  # no result says what it was made from


def test_results_that_were_computed_in_several_ways_are_told(make_row):
    rows = [
        make_row("gkt", computed="1 x cpu, XLA"),
        make_row("gkt", seed=1, computed="1 x cpu, oneDNN 3.2.0"),
        make_row("is", computed="1 x cpu, XLA"),
    ]
    (said,) = [s for s in limits(Contents(rows=rows)).sentences if "computed" in s]
    assert said.endswith("1 x cpu, XLA (2 results); 1 x cpu, oneDNN 3.2.0 (1 result).")
    assert not [s for s in limits(Contents(rows=rows[::2])).sentences if "computed" in s]
