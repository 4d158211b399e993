"""Where the numbers come from: what a reader needs to get them again, and the runs one by one."""

from typing import Any, Sequence

from ispf_jax.report.cells import MISSING, Column, Table, row
from ispf_jax.report.names import METHOD_NAMES
from ispf_jax.report.results import Row
from ispf_jax.report.workdir import Contents

_RUN_FIELDS = {
    "method": "method", "base": "base", "forget": "forget", "seed": "seed", "selection": "selection", "epoch": "epoch", "train_seconds": "seconds",
    "student_steps": "student steps", "generator_steps": "generator steps", "images_synthesised": "images synthesised", "access": "used",
}
_WORDS = ("method", "base", "forget", "selection", "access")


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
    return Table("Runs", columns, lines, ("Times are of training alone, without evaluation.",))


def hashes_table(contents: Contents) -> Table | None:
    """The hash of the weights of every audited model, so that a number can be tied to a file."""
    lines = [row(METHOD_NAMES.get(model, model), audit.forget, str(audit.seed), digest) for audit in contents.audits
             for model, digest in audit.weights.items()]
    columns = (Column("model", words=True), Column("forget", words=True), Column("seed"), Column("hash of the weights", words=True))
    return Table("Weights", columns, tuple(lines)) if lines else None


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
