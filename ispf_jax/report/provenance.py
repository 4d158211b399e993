"""Where the numbers come from: what a reader needs to get them again, and the runs one by one."""

from collections.abc import Sequence
from typing import Any

from ispf_jax.report.cells import MISSING, Column, Table, row
from ispf_jax.report.names import METHOD_NAMES, model_name
from ispf_jax.report.workdir import Contents
from ispf_jax.runtime.rows import STAGES, Row

_RUN_FIELDS = {
    "method": "method",
    "base": "base",
    "forget": "forget",
    "seed": "seed",
    "selection": "selection",
    "epoch": "epoch",
    "train_seconds": "seconds",
    "student_steps": "student steps",
    "generator_steps": "generator steps",
    "images_synthesised": "images synthesised",
    "access": "used",
    "computed": "computed on",
    "weights": "weights",
    "teacher": "teacher",
}
STAGE_OF = {"original": "original", "masked_head": "original", "retrain": "retrain"}
_WORDS = ("method", "base", "forget", "selection", "access", "computed", "weights", "teacher")


def facts(contents: Contents) -> list[tuple[str, list[tuple[str, str]]]]:
    """(heading, [(name, value)]) of everything in the provenance, whatever the pipeline recorded; the configuration last."""
    single, groups = [], []
    for name, value in contents.provenance.items():
        if name == "config":
            continue
        if isinstance(value, dict):
            groups.append((_heading(name), _flat(value)))
        else:
            single.append((_heading(name), _said(value)))
    config = [("Configuration", _flat(contents.config))] if contents.config else []
    settings = {f"{key}": value for audit in contents.audits[:1] for key, value in audit.settings.items()}
    return ([("Run", single)] if single else []) + groups + ([("Audit", _flat(settings))] if settings else []) + config


def runs_table(rows: Sequence[Row]) -> Table | None:
    """One line per result: time, steps, images, and what it used beyond the weights."""
    if not rows:
        return None
    columns = tuple(Column(label, words=name in _WORDS) for name, label in _RUN_FIELDS.items())
    lines = tuple(row(*(_field(r, name) for name in _RUN_FIELDS)) for r in rows)
    return Table(
        "Runs one by one",
        columns,
        lines,
        ("Times are of training alone, without evaluation. Weights, teacher: hashes of what came out and went in.",),
    )


def times_table(contents: Contents) -> Table | None:
    """Wall time by stage over all starts, with the work that was done in it; None without a journal."""
    if not contents.jobs:
        return None
    work = {
        stage: [r for r in _once(contents.rows) if STAGE_OF.get(r["method"], "unlearn") == stage] for stage in STAGES
    }
    lines, total = [], 0.0
    for stage in (*STAGES, "audit"):
        jobs = [job for job in contents.jobs if job["stage"] == stage]
        if not jobs:
            continue
        seconds = sum(job["seconds"] for job in jobs)
        total += seconds
        cut = sum(not job.get("finished") for job in jobs)
        devices = dict.fromkeys(f"{len(job['devices'])} x {job['devices'][0]}" for job in jobs if job["devices"])
        busy = sum(job.get("cpu_seconds") or 0 for job in jobs)
        counts = [
            _total(work.get(stage, []), name) for name in ("student_steps", "generator_steps", "images_synthesised")
        ]
        lines.append(
            row(
                stage,
                _duration(seconds),
                _duration(busy),
                f"{len(jobs)}" + (f" ({cut} interrupted)" if cut else ""),
                ", ".join(devices),
                *counts,
            )
        )
    lines.append(
        row(
            "total",
            _duration(total),
            _duration(sum(job.get("cpu_seconds") or 0 for job in contents.jobs)),
            str(len(contents.jobs)),
            MISSING,
            *[MISSING] * 3,
        )
    )
    columns = (
        Column("stage", words=True),
        Column("wall time"),
        Column("processor time", small="all cores"),
        Column("jobs"),
        Column("devices", words=True),
        Column("student steps"),
        Column("generator steps"),
        Column("images synthesised"),
    )
    return Table(
        "Time and work",
        columns,
        tuple(lines),
        (
            "Wall time over all starts: compilation, training, evaluation and pictures of the jobs; "
            "without loading data and writing this report.",
        ),
    )


def hashes_table(contents: Contents) -> Table | None:
    """The hash of the weights of every audited model and of what it was made from, so that a number can be tied to a file.

    Baselines that change the original's head were made from the original, students from the teacher that their result names.
    """
    teachers = {(f"{r['method']}/{r['base']}", r["forget"], r["seed"]): r.get("teacher") for r in contents.rows}
    lines = []
    for audit in contents.audits:
        sources = dict.fromkeys(("masked_head", "retrained_head"), audit.weights.get("original"))
        for model, digest in audit.weights.items():
            source = sources.get(model) or teachers.get((model, *audit.key)) or MISSING
            lines.append(row(model_name(model, contents.bases), audit.forget, str(audit.seed), digest, source))
    columns = (
        Column("model", words=True),
        Column("forget", words=True),
        Column("seed"),
        Column("hash of the weights", words=True),
        Column("made from", words=True),
    )
    return Table("Weights", columns, tuple(lines)) if lines else None


def _once(rows: Sequence[Row]) -> list[Row]:
    """Rows of different runs: one per run, whatever its selections, and the original once per seed."""
    runs = {}
    for r in rows:
        runs.setdefault(
            (r["method"], r["base"], "" if r["method"] == "original" else r["forget"], r["seed"]), []
        ).append(r)
    return [max(group, key=lambda r: r.get("student_steps") or 0) for group in runs.values()]


def _total(rows: Sequence[Row], name: str) -> str:
    total = sum(r.get(name) or 0 for r in rows)
    return f"{total:,}" if total else MISSING


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return (
        f"{hours} h {rest // 60:02d} min"
        if hours
        else f"{rest // 60} min {rest % 60:02d} s"
        if rest >= 60
        else f"{seconds:.1f} s"
    )


def _field(entry: Row, name: str) -> str:
    value = entry.get(name)
    if value in (None, ""):
        return MISSING
    if name == "method":
        return METHOD_NAMES.get(value, value)
    if name == "train_seconds" and isinstance(value, (int, float)):
        return f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and name != "seed" else str(value)


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found = []
    for name, value in values.items():
        if isinstance(value, dict):
            found += _flat(value, f"{prefix}{name}.")
        else:
            found.append((prefix + str(name), _said(value)))
    return found


def _said(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_said, value)) or MISSING
    return MISSING if value in (None, "") else str(value)


def _heading(name: str) -> str:
    return str(name).replace("_", " ").capitalize()
