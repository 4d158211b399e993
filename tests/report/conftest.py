"""Made-up rows, logs and audits with which the report's tests work."""

import json

import numpy as np
import pytest

from ispf_jax.runtime.measurements import parse_audit
from ispf_jax.runtime.pictures import image_grid
from ispf_jax.runtime.rows import Row, RunLog

MODELS = ("original", "masked_head", "retrained_head", "retrain", "gkt/dfq", "ispf/dfq")
VALUES = {  # metric: (unit, tier, one value per model)
    "accuracy/forget": ("%", "test images", (97.3, 0.0, 0.0, 0.0, 0.0, 0.0)),
    "accuracy/retain": ("%", "test images", (99.1, 99.4, 99.4, 98.5, 95.0, 97.8)),
    "mia1": ("%", "training data", (0.0, 100.0, 100.0, 100.0, 75.0, 100.0)),
    "mia2": ("F1 x 100", "training data", (67.7, 65.1, 65.1, 61.0, 20.2, 39.5)),
    "probe/bn3": ("%", "training data", (89.2, 89.2, 89.2, 91.9, 89.2, 94.6)),
    "probe/penultimate": ("%", "training data", (97.0, 97.0, 97.0, 37.0, 40.0, 52.0)),
    "probe_shots1/penultimate": ("%", "training data", (90.0, 90.0, 90.0, 20.0, 30.0, 34.0)),
    "probe_shots5/penultimate": ("%", "training data", (95.0, 95.0, 95.0, 35.0, 36.0, 50.0)),
    "prototype/20": ("%", "training data", (97.3, 97.3, 97.3, 67.6, 64.9, 83.8)),
    "relearn/all": ("%", "training data", (95.5, 65.2, 67.0, 0.0, 7.2, 0.0)),
    "relearn_steps/all": ("", "training data", (1, 26, 35, 50, 50, 50)),
    "cka_original/penultimate": ("", "test images", (1.0, 1.0, 1.0, 0.776, 0.741, 0.797)),
    "kl_retrain": ("nats", "retrained models", (3.386, 0.37, 0.329, 0.0, 1.283, 0.849)),
    "l2_original": ("ratio", "weights only", (0.0, 0.084, 0.124, 0.867, 1.024, 0.969)),
    "accuracy/class2": ("%", "test images", (99.0, 99.0, 99.0, 98.0, 81.5, 96.0)),
    "accuracy/class3": ("%", "test images", (97.3, 0.0, 0.0, 0.0, 0.0, 0.0)),
    "mia1_mentropy": ("%", "training data", (8.4, 100.0, 100.0, 77.3, 92.2, None)),
    "ain": ("ratio", "retrained models", (0.02, 0.52, 0.7, None, None, 1.1)),
}
"""The audit that `make_audit` makes; numbers are those of a real one on the digits, or near them."""

UNPLACED = ("accuracy", "mia1", "relearn_steps", "ain")
KINDS = ["real forgotten", "real retained", "synthetic forgotten", "synthetic filtered", "synthetic kept"]


def measured(metric, models, shift):
    """The measurements of one metric; `shift` is added to those of students."""
    unit, tier, values = VALUES[metric]
    of = {m: v if v is None or "/" not in m else v + shift for m, v in zip(MODELS, values)}
    for model in models:
        value, entry = of[model], {"model": model, "metric": metric, "unit": unit, "n": 37, "tier": tier}
        entry["note"] = "undefined" if value is None else "not reached, this is the cap" * (value == 50)
        if value is not None and not metric.startswith(UNPLACED) and "retrain" in models:
            entry["place"] = (value - of["retrain"]) / (of["original"] - of["retrain"])
        if metric.startswith(("probe/", "accuracy")):
            entry |= {"low": max(value - 8.5, 0), "high": min(value + 8.5, 100)}
        yield entry | {"value": value}


@pytest.fixture
def make_audit_json():
    """A function that makes the content of one `audit.json`, of some models; `shift` is added to students' numbers."""

    def make(forget="3", seed=0, models=MODELS, shift=0.0, classes=10, **fields):
        rng, forgotten = np.random.default_rng(seed), forget.split(",")
        copies = {"unit": "%", "n": 64, "tier": "weights only", "note": "of 200 real training images: 2.0 %"}
        copied = {"gkt/dfq": {"exact": 1.5, "pixels": 12.5}, "ispf/dfq": {"exact": 0.0, "pixels": 3.125}}
        measurements = [m for metric in VALUES for m in measured(metric, models, shift)]
        for model in (model for model in models if model in copied):
            of = {f"duplicates/{kind}": value for kind, value in copied[model].items()}
            measurements += [
                copies | {"model": model, "metric": metric, "value": value} for metric, value in of.items()
            ]
        curves = []
        for j, model in enumerate(models):
            curve = {"model": model, "steps": list(range(9)), "accuracy": [min(100, 9 * i * (j + 1)) for i in range(9)]}
            curves += [curve | {"kind": f"relearn/{kind}"} for kind in ("all", "shots5")]
        embedded, seen = [m for m in models if "/" in m], [m for m in models if "head" not in m]
        points = {model: rng.normal(size=(50, 2)).tolist() for model in models}
        how, labels = "t-SNE of the features", (np.arange(30) % classes).tolist()
        return {
            "format": 1,
            "forget": forget,
            "forget_names": forgotten,
            "seed": seed,
            "dataset": "digits",
            "arch": "allcnn",
            "class_names": [str(c) for c in range(classes)],
            "settings": {"shots": [1, 5], "relearn_steps": 50},
            "models": list(models),
            "measurements": measurements,
            "curves": curves,
            "confusion": {m: rng.integers(0, 30, (len(forgotten), classes)).tolist() for m in models},
            "mean_prediction": {m: rng.dirichlet(np.ones(classes)).tolist() for m in models},
            "weights": {m: f"{seed}{i}c0ffee" for i, m in enumerate(models)},
            "embedding": [{"title": m, "method": how, "points": points[m], "kind": KINDS * 10} for m in embedded],
            "representation": [{"title": m, "points": points[m][:30], "classes": labels} for m in seen],
            "not_run": [{"metric": "lira", "why": "audit.lira_shadows=0; set it to 16 or more"}],
        } | fields

    return make


@pytest.fixture
def make_audit(make_audit_json):
    """The same as an `Audit`."""
    return lambda *args, **fields: parse_audit(make_audit_json(*args, **fields))


@pytest.fixture
def make_row():
    """A function that makes one result row; every field can be given."""
    work = {"train_seconds": 10.0, "student_steps": 1000, "generator_steps": 100, "images_synthesised": 140800}
    accuracies = {"acc_forget": 0.0, "acc_retain": 90.0, "acc_overall": 81.0}
    run = {"base": "dfq", "dataset": "digits", "arch": "allcnn", "selection": "last"}
    return lambda method, forget="3", seed=0, **fields: Row(
        **{"method": method, "forget": forget, "seed": seed} | run | accuracies | work | fields
    )


@pytest.fixture
def make_run():
    """A function that makes the log of one run: one warm-up epoch, evaluation every second epoch, no `bn` for ZSKT."""

    def record(epoch, base):
        steps = {"epoch": epoch, "student_step": 10 * (epoch - 1), "generator_step": epoch, "seconds": 1.5 * epoch}
        generator = {"generator/total": 5.0 / epoch, "generator/adv": -0.1 * epoch, "class_counts": [1, 2, 5]}
        generator |= {"generator/bn": 9.0 / epoch} if base == "dfq" else {}
        samples = {"kept": 100, "filtered": 28 - epoch, "skipped_steps": 1}
        samples |= {"forget_samples": 20.0, "retain_samples": 108.0}
        student = samples | {"student/loss": 1.0 / epoch, "entropy": 60.0 + epoch, "teacher_forget_probability": 0.25}
        tested = {"test/acc_retain": 90.0 + epoch, "test/acc_forget": 0.0}
        return steps | generator | {"batch_size": 128} | (student if epoch > 1 else {}) | ({} if epoch % 2 else tested)

    return lambda method, base="dfq", forget="3", seed=0, epochs=6: RunLog(
        method, base, forget, seed, [record(epoch, base) for epoch in range(1, epochs + 1)]
    )


@pytest.fixture
def put(tmp_path):
    """A function that writes a file below `tmp_path`; what is not text as JSON."""

    def write(path, content):
        path = tmp_path / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


@pytest.fixture
def put_audit(put, make_audit_json):
    """A function that writes one `audit.json`; takes what `make_audit_json` takes."""
    return lambda forget="3", seed=0, **fields: put(
        f"audit/{forget.replace(',', '-')}/seed{seed}/audit.json", make_audit_json(forget, seed, **fields)
    )


@pytest.fixture
def put_run(put, make_run):
    """A function that writes the log of one run, and its grid of samples."""

    def write(method, base="dfq", forget="3", seed=0, epochs=6):
        records = make_run(method, base, forget, seed, epochs).records
        folder = f"unlearn/{base}/{method}/{forget.replace(',', '-')}/seed{seed}"
        path = put(f"{folder}/metrics.jsonl", "".join(json.dumps(record) + "\n" for record in records))
        image_grid(np.zeros((4, 8, 8, 1), np.uint8), path.with_name("samples.png"))

    return write


@pytest.fixture
def put_rows(put):
    """A function that writes `result.json`, with rows or as text, into a folder of the work directory."""
    return lambda folder, rows: put(f"{folder}/result.json", rows if isinstance(rows, str) else [*map(vars, rows)])
