"""Findings, places and what the verdict's tables say, against numbers worked out by hand."""

import csv

import pytest
from scipy.stats import sem, t

from ispf_jax.report.names import model_name, model_order
from ispf_jax.report.verdict import class_table, full_table, places_table, sentences, verdict_table, write_averages_csv
from ispf_jax.report.workdir import Contents
from ispf_jax.runtime.metrics import metric, metric_order


def judge(audits=(), rows=()):
    (verdict,) = Contents(audits=list(audits), rows=list(rows)).verdicts.values()
    return verdict


def cell(table, row, column):
    (line,) = [cells for cells in table.rows if cells[0].text == row]
    (index,) = [i for i, head in enumerate(table.columns) if head.label == column]
    return line[index]


def test_a_single_run_shows_its_own_numbers(make_audit):
    verdict = judge([make_audit()])
    found = verdict.findings["ispf/dfq", "probe/penultimate"]
    assert (found.text, found.small) == ("52.0 %", "43.5 to 60.5, n 37")
    assert found.place.at == pytest.approx(0.25)  # (52 - 37) / (97 - 37)
    assert (found.place.low, found.place.high) == pytest.approx((6.5 / 60, 23.5 / 60)) and found.place.sure
    assert verdict.tier("l2_original") == "weights only" and verdict.tier("kl_retrain") == "retrained models"


def test_ends_that_cannot_be_told_apart_are_marked_and_left_out_of_the_residue(make_audit):
    verdict = judge([make_audit()])
    early = verdict.findings["ispf/dfq", "probe/bn3"]  # 89.2 and 91.9, each -+ 8.5
    assert not early.place.sure and str(early.place) == "-1.00?"
    residue = ["relearn/all", *(f"{m}/penultimate" for m in ("probe_shots1", "probe", "probe_shots5")), "prototype/20"]
    assert [f.metric for f in verdict.residue("ispf/dfq")] == residue


def test_several_runs_average_over_sets_then_seeds(make_audit):
    audits = [make_audit("1", 0), make_audit("2", 0, shift=6.0), make_audit("1", 1, shift=12.0)]
    found = judge(audits).findings["ispf/dfq", "probe/penultimate"]
    assert found.average.mean == pytest.approx(((52 + 58) / 2 + 64) / 2) and found.average.std == pytest.approx(4.5)
    assert found.place.at == pytest.approx((59.5 - 37) / 60)
    assert (found.place.low, found.place.high) == pytest.approx((0.25, 27 / 60))
    # The interval of two sets, each -+ 8.5, is -+ 8.5 / sqrt(2); of 55 and 64: 9/2, and 9/sqrt(2).
    assert found.small == "53.5 to 65.5, sd 4.5, sample sd 6.4, 3 of 2 x 2 runs"
    seeds = [make_audit("1", seed, shift=shift) for seed, shift in enumerate((0.0, 3.0, 9.0))]
    expected = t.interval(0.95, 2, 56, sem([52, 55, 61]))  # from three seeds on their spread is what counts
    assert judge(seeds).findings["ispf/dfq", "probe/penultimate"].interval == pytest.approx(expected)
    assert judge(audits).of("2").findings["ispf/dfq", "probe/penultimate"].average.mean == 58.0


@pytest.mark.parametrize(
    "runs, sure",
    [
        ([("1", 0), ("2", 0), ("3", 0)], True),  # of each average's interval an arm is 5 / sqrt(3): together 5.8 of 6
        ([("1", 0), ("1", 1), ("1", 2)], False),  # seeds share the test images: 10 of 6
    ],
)
def test_no_run_is_left_out_for_the_distance_it_happens_to_have(make_audit, runs, sure):
    ends = {"original": [95, 95, 95], "retrain": [80, 91, 96], "ispf/dfq": [90, 90, 90]}  # apart in the first run only

    def measured(model, i):
        value, zero, one = ends[model][i], ends["retrain"][i], ends["original"][i]
        numbers = {"value": value, "low": value - 5, "high": value + 5, "place": (value - zero) / (one - zero)}
        return {"model": model, "metric": "probe/penultimate", "tier": "training data"} | numbers

    audits = [make_audit(*run, measurements=[measured(model, i) for model in ends]) for i, run in enumerate(runs)]
    place = judge(audits).findings["ispf/dfq", "probe/penultimate"].place
    assert place.at == pytest.approx((90 - 89) / (95 - 89)) and place.sure == sure
    assert (place.low, place.high) == pytest.approx((-0.25, 6.0))


def test_undefined_numbers_and_bounds_are_named(make_audit):
    verdict = judge([make_audit()])
    assert verdict.findings["gkt/dfq", "ain"].text == "undefined"
    assert verdict.findings["ispf/dfq", "relearn_steps/all"].text == "\u2265 50"
    both = judge([make_audit("1"), make_audit("2", models=("original", "retrain"))])
    assert "2 of them undefined" in both.findings["retrain", "ain"].small


def test_the_verdict_has_a_line_per_model_and_a_place_per_number(make_audit):
    table = verdict_table(judge([make_audit()]))
    names = "Original, Retrained, Masked head, Re-trained head, GKT, ISPF"
    assert [cells[0].text for cells in table.rows] == names.split(", ")
    assert cell(table, "Masked head", "Prototype").place.at == 1.0
    assert cell(table, "Retrained", "Prototype").place.at == 0.0
    assert cell(table, "ISPF", "Forgotten").plain == "0.0 % (0.0 to 8.5, n 37)"
    assert cell(table, "ISPF", "Residue").plain == "0.25 (0.00 to 0.55, 5 measures)"
    assert [c.label for c in table.columns if c.label.startswith("Probe,")] == ["Probe, 5 per class"]  # one of two
    assert cell(table, "ISPF", "KL to retrained").plain == "0.849 (place 0.25; n 37)"


def test_without_an_audit_the_rows_give_the_accuracies(make_row):
    best = make_row("ispf", selection="best_test_retain", acc_retain=99.0)
    verdict = judge(rows=[make_row("original", acc_forget=97.0), make_row("ispf", acc_retain=91.5), best])
    table = verdict_table(verdict)
    assert cell(table, "ISPF", "Retained").plain == "91.5 %"
    assert [c.label for c in table.columns] == ["", "Forgotten", "Retained"] and places_table(verdict) is None
    assert sentences(verdict) == [("ISPF", "classifies 0.0 % of the forgotten test images correctly.")]


def test_an_audit_of_a_subset_of_models(make_audit):
    verdict = judge([make_audit(models=("original", "ispf/dfq"))])
    assert verdict.models == ["original", "ispf/dfq"] and not verdict.residue("ispf/dfq")
    assert "Residue" not in [c.label for c in verdict_table(verdict).columns]


def test_the_full_table_has_all_metrics_and_says_shared_n_once(make_audit):
    table = full_table(judge([make_audit()]))
    assert len(table.rows) == 18 and not any("class 2" in cells[0].text for cells in table.rows)
    (line,) = [cells for cells in table.rows if cells[0].text == "KL to retrained [nats]"]
    assert line[1].plain == "retrained models (n 37)" and line[-1].plain == "0.849 (place 0.25)"
    assert any("Steps to relearn, all (Retrained, GKT, ISPF): not reached" in note for note in table.notes)


def test_console_gets_places_alone(make_audit):
    table = places_table(judge([make_audit()]))
    assert cell(table, "ISPF", "prototype").plain == "0.55" and cell(table, "Masked head", "prototype").plain == "1.00"


def test_names_of_metrics_and_models():
    assert metric("probe/bn3").label == "Linear probe, bn3" and metric("probe/bn3").kind == "layers"
    assert metric("probe/penultimate").label == "Linear probe"
    assert metric("relearn/shots7").label == "Relearn, 7 per class"
    assert metric("lira/tpr0.1").label == "LiRA TPR at 0.1 %" and metric("new/thing").label == "new/thing"
    probes, relearned = ["probe/bn2", "probe/bn10", "probe/penultimate"], ["relearn/shots5", "relearn/shots20"]
    ordered = ["accuracy/forget", *probes, *relearned, "mia1", "new"]
    assert sorted(set(ordered), key=metric_order) == ordered
    models = ["original", "retrain", "masked_head", "gkt/dfq", "is/dfq", "mine/dfq", "gkt/zskt"]
    assert sorted(set(models), key=model_order) == models
    assert model_name("pd_is/dfq", bases=True) == "PD+IS (dfq)" and model_name("own/dfq") == "own"


def test_accuracy_class_by_class_has_a_line_per_class(make_audit):
    table = class_table(judge([make_audit()]))
    assert [[cell.text for cell in cells[:2]] for cells in table.rows] == [["2", "37"], ["3", "37"]]
    assert cell(table, "3", "Original").plain == "97.3 (88.8 to 100.0)" and cell(table, "2", "GKT").text == "81.5"
    audits = [make_audit("1", 0), make_audit("1", 1, shift=3.0)]
    both = class_table(judge(audits))
    assert cell(both, "2", "ISPF").plain == "97.5 (89.0 to 100.0, sd 1.5, sample sd 2.1, 1 x 2 runs)"
    assert class_table(judge([make_audit(measurements=[])])) is None


def test_averages_csv_has_both_standard_deviations(tmp_path, make_audit):
    audits = [make_audit("1", 0), make_audit("2", 0, shift=6.0), make_audit("1", 1, shift=12.0)]
    write_averages_csv(tmp_path / "averages.csv", Contents(audits=audits).verdicts)
    with open(tmp_path / "averages.csv", newline="") as file:
        lines = {(x["model"], x["metric"]): x for x in csv.DictReader(file)}
    probe = lines["ispf/dfq", "probe/penultimate"]
    assert [float(probe[name]) for name in ("mean", "population_std", "sample_std")] == pytest.approx(
        [59.5, 4.5, 9 / 2**0.5]
    )
    assert [probe[name] for name in ("forget_sets", "seeds", "runs", "undefined")] == ["2", "2", "3", "0"]
    ain = lines["retrain", "ain"]
    assert (ain["mean"], ain["population_std"], ain["undefined"]) == ("", "", "3")
