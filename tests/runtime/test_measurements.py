"""Reading audits: in order, and without those that are damaged."""

import json

import pytest

from ispf_jax.runtime.measurements import parse_audit, read_audits


def test_audits_are_read_in_order(tmp_path, put_audit):
    for forget, seed in (("10", 0), ("2", 1), ("2", 0), ("1,7", 0)):
        put_audit(forget, seed, classes=11)
    assert [audit.run for audit in read_audits(tmp_path)] == [("1,7", 0), ("2", 0), ("2", 1), ("10", 0)]


DAMAGE = {
    "cut": lambda a: json.dumps(a)[:999],
    "list": lambda a: [a],
    "format": lambda a: a | {"format": 2},
    "no measurements": lambda a: a.pop("measurements") and a,
    "text": lambda a: a | {"measurements": [a["measurements"][0] | {"value": "much"}]},
    "no value": lambda a: a | {"measurements": [{"model": "x", "metric": "y"}]},
    "classes": lambda a: a | {"representation": [{"title": "x", "points": [[0, 1]], "classes": [1, 2]}]},
    "curve": lambda a: a | {"curves": [{"model": "x", "kind": "relearn/all", "steps": [0, 1], "accuracy": [1.0]}]},
    "points": lambda a: a | {"embedding": [{"title": "x", "points": [[0, 1]], "kind": []}]},
    "confusion": lambda a: a | {"confusion": {"x": [[1], [1, 2]]}},
    "prediction": lambda a: a | {"mean_prediction": {"x": [1.0], "y": [0.5, 0.5]}},
    "not run": lambda a: a | {"not_run": [{"metric": "lira"}]},
    "models": lambda a: a | {"models": "all"},
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_audit_is_set_aside(tmp_path, put_audit, caplog, damage):
    put_audit("3", 1)
    path = put_audit("3", 0)
    content = DAMAGE[damage](json.loads(path.read_text()))
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    (left,) = read_audits(tmp_path)
    assert left.seed == 1 and not path.exists() and path.with_name("audit.json.damaged").exists()
    assert str(path) in caplog.text and "damaged" in caplog.text


def test_parts_that_were_not_run_may_be_missing(make_audit_json):
    optional = ("curves", "confusion", "mean_prediction", "embedding", "representation", "not_run", "settings")
    content = {key: value for key, value in make_audit_json().items() if key not in optional}
    audit = parse_audit(content | {"added later": 1})
    assert not any(getattr(audit, name) for name in optional) and len(audit.measurements) > 100
