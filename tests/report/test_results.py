"""The summary table against means and deviations computed by hand."""

import math
from dataclasses import replace

import pytest

from ispf_jax.report.results import count, result_tables, summarise
from ispf_jax.report.tables import to_console, to_markdown


def console(rows):
    return "\n\n".join(map(to_console, result_tables(rows)))


def lines_of(table):
    """Data lines of the console table as {method: cells}; cells are separated by at least two spaces."""
    lines = ([cell.strip() for cell in line.split("  ") if cell.strip()] for line in table.splitlines())
    return {cells[0]: cells[1:] for cells in lines if len(cells) > 3}


@pytest.mark.parametrize(
    "last, mean, std, counted", [([("2", 1, 98.0)], 94.5, 2.5, "2 x 2"), ([], 94.0, 2.0, "2 x 2 (3 runs)")]
)
def test_mean_over_forget_sets_then_population_std_over_seeds(make_row, last, mean, std, counted):
    """Seeds' means are 92 and 97 or, with a missing run, 96: seeds weigh the same."""
    values = [("1", 0, 90.0), ("2", 0, 94.0), ("1", 1, 96.0), *last]
    rows = [make_row("ispf", forget=f, seed=s, acc_retain=v) for f, s, v in values]
    (summary,) = summarise(rows)
    average = summary.average("acc_retain")
    assert (average.mean, average.std) == pytest.approx((mean, std)) and count(summary.runs) == counted
    assert lines_of(console(rows))["ispf"][3] == f"{mean:.2f} +/- {std:.2f}"


def test_one_seed_has_no_spread(make_row):
    shown = lines_of(console([make_row("ispf", acc_retain=97.123)]))["ispf"]
    assert shown[1:] == ["1 x 1", "0.00", "97.12", "81.00", "10", "1000"]


def test_best_on_test_is_shown_next_to_the_last_epoch_and_never_replaces_it(make_row):
    rows = [
        make_row("ispf", acc_forget=0.0, acc_retain=95.0),
        make_row("ispf", selection="best_test_retain", acc_forget=1.0, acc_retain=96.0),
        make_row("gkt", acc_retain=80.0),
        make_row("pf", selection="best_test_retain", acc_forget=2.0, acc_retain=97.0),
    ]
    lines = lines_of(console(rows))
    heads = "base, sets x seeds, forget, retain, overall, forget*, retain*, seconds, steps"
    assert lines["method"] == heads.split(", ")
    assert lines["ispf"] == ["dfq", "1 x 1", "0.00", "95.00", "81.00", "1.00", "96.00", "10", "1000"]
    assert lines["gkt"][5:7] == ["-", "-"]
    assert lines["pf"] == ["dfq", "1 x 1", "-", "-", "-", "2.00", "97.00", "-", "-"]
    assert "* = the checkpoint with the best retain accuracy on the test images" in console(rows)
    assert "*" not in console(rows[:1])


def test_references_first_then_base_by_base_in_the_order_of_methods(make_row):
    runs = [("ispf", "zskt"), ("ispf", "dfq"), ("gkt", "dfq"), ("masked_head", ""), ("retrain", ""), ("original", None)]
    order = [s.model for s in summarise([make_row(method, base=base) for method, base in runs])]
    assert order == ["original", "retrain", "masked_head", "gkt/dfq", "ispf/dfq", "ispf/zskt"]


def test_settings_are_kept_apart_and_access_is_shown(make_row):
    rows = [make_row("ispf", access="weights only"), make_row("ispf", arch="resnet18", acc_retain=50.0)]
    first, second = console(rows).split("\n\n")
    assert first.startswith("digits, allcnn\n") and lines_of(first)["ispf"][-1] == "weights only"
    assert second.startswith("digits, resnet18\n") and "50.00" in second and "used" not in second


def test_a_number_that_is_not_finite_shows(make_row):
    rows = [make_row("ispf", acc_forget=math.nan), make_row("gkt", acc_forget=None)]
    lines = lines_of(console(rows))
    assert lines["ispf"][2] == "nan" and lines["gkt"][2] == "-"


def test_columns_of_the_console_table_line_up(make_row):
    rows = [make_row(m, seed=s, acc_retain=9.0 + s) for m in ("masked_head", "is") for s in (0, 1)]
    rows += [replace(row, selection="best_test_retain") for row in rows]
    lines = console(rows).splitlines()
    head = next(line for line in lines if line.startswith("method"))
    body = [line for line in lines if line.startswith(("masked_head", "is"))]
    assert len({len(line) for line in [head, *body]}) == 1 and len(body) == 2
    end = head.index("retain ") + len("retain")
    assert all(line[:end].endswith("9.50 +/- 0.50") for line in body)


def test_markdown_holds_the_same_cells(make_row):
    rows = [make_row("ispf", acc_retain=95.0), make_row("ispf", selection="best_test_retain", acc_retain=96.0)]
    (text,) = map(to_markdown, result_tables(rows))
    table = [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    assert text.startswith("## digits, allcnn\n")
    assert table[0][5:8] == ["overall", "forget\\*", "retain\\*"]
    assert set(table[1]) == {"---", "---:"} and {len(line) for line in table} == {10}
    assert table[2] == ["ispf", "dfq", "1 x 1", "0.00", "95.00", "81.00", "0.00", "96.00", "10", "1000"]
