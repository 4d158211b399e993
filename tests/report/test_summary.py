"""The first lines of the page say what was found, and what was not tested; a model that fails is named."""

import pytest

from ispf_jax.report.summary import failures, pairs_table, summary
from ispf_jax.report.workdir import Contents
from ispf_jax.runtime.measurements import parse_audit


@pytest.fixture
def contents_of(make_audit_json):
    """A function that makes the contents of one audit, with other fields or values of measurements."""

    def make(values=(), **fields):
        content = make_audit_json(**fields)
        for model, metric, value in values:
            for entry in content["measurements"]:
                if (entry["model"], entry["metric"]) == (model, metric):
                    entry.update(value=value, low=value, high=value, place=None)
        return Contents(audits=[parse_audit(content)])

    return make


def said(contents):
    (verdict,) = contents.verdicts.values()
    return summary(contents, verdict), failures(verdict)


def test_what_was_removed_how_it_was_tested_and_what_was_found(contents_of):
    lacking = [{"metric": "KLoM", "why": "needs two models and shadow models"}, {"metric": "lira", "why": "off"}]
    (first, second), failed = said(contents_of(models=("original", "retrain", "ispf/dfq"), not_run=lacking))
    assert first == (
        "Class 3 was to be removed from an image classifier by ISPF, and what is left was tested with the weights, "
        "test images, training images and a model trained without the class."
    )
    # The probe (52 and 37, each -+ 8.5) and relearning (0 and 0) do not differ, the exact others do.
    assert "ISPF recognises 0.0 % of the images of the removed class (before: 97.3 %)" in second
    found = (
        "3 of 5 attempts to recover the class got more than from a model that never saw it, and 2 showed no measurable "
        "difference."
    )
    assert found in second
    assert second.endswith("Not tested: whatever needs two models and shadow models.") and failed == []


def test_several_classes_and_no_images(contents_of):
    contents = contents_of(forget="1,7", models=("original", "ispf/dfq"), measurements=[
        {"model": model, "metric": "mass/inverted", "value": value, "unit": "%", "low": value, "high": value, "n": 8,
         "tier": "weights only"} for model, value in (("original", 99.0), ("ispf/dfq", 0.5))
    ])  # fmt: skip
    (first, second), _ = said(contents)
    assert first.startswith("Classes 1, 7 were to be removed") and first.endswith("tested with the weights.")
    assert second == (
        "ISPF gives the removed classes a mean probability of 0.5 % on images made from the original to show them "
        "(before: 99.0 %)."
    )


@pytest.mark.parametrize(
    "classes, sentence", [((100.0, 0.0), "GKT fails: it gives one class to all images."), ((60.0, 40.0), None)]
)
def test_a_model_that_gives_one_class_to_everything_is_named(contents_of, classes, sentence):
    of = [("gkt/dfq", f"accuracy/class{c}", value) for c, value in zip((2, 3), classes)]
    assert said(contents_of(of))[1] == [sentence] * bool(sentence)


def test_pairs_of_several_forget_sets_are_added(make_audit_json):
    def audit(forget, **counts):
        pair = {"metric": "accuracy/retain", "first": "gkt/dfq", "second": "ispf/dfq", "n": 100, "p": 1.0} | counts
        return parse_audit(make_audit_json(forget, paired=[pair]))

    few, more = audit("1", only_first=1, only_second=4), audit("2", only_first=0, only_second=4)
    table = pairs_table(Contents(audits=[few, more]))
    # Of nine, eight go to the second: 2 (1 + 9) / 2^9 = 0.039.
    assert [cell.text for cell in table.rows[0]][1:] == ["GKT", "ISPF", "0", "200", "1", "8", "0.039", "more: ISPF"]
    assert pairs_table(Contents(audits=[few])).rows[0][-1].text == "undecided"
    assert pairs_table(Contents()) is None
