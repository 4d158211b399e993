"""The rows of all results in a work directory, and the logs of its unlearning runs: reading, ordering, writing."""

import csv
import io
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from absl import logging

from ispf_jax.runtime.atomic import atomic_write_json, atomic_write_text, from_plain, to_plain
from ispf_jax.runtime.telemetry import read_metrics

METHODS = (
    "original",
    "retrain",
    "masked_head",
    "retrained_head",
    "dfkd",
    "blockf",
    "gkt",
    "is",
    "pf",
    "ispf",
    "pd",
    "pd_is",
)
"""The order in which methods are shown everywhere: what one compares with, then the paper's order."""

REFERENCES = METHODS[:4]
"""Rows that no base (DFQ, ZSKT) belongs to."""

RESULT_FIELDS = (
    "method",
    "base",
    "dataset",
    "arch",
    "forget",
    "seed",
    "selection",
    "acc_forget",
    "acc_retain",
    "acc_overall",
    "train_seconds",
    "student_steps",
    "generator_steps",
    "images_synthesised",
)
"""What every row holds, in the order of the columns. `forget` is "3" or "1,7", accuracies are in percent. Further
fields may follow: `epoch` of the selected checkpoint, `access` (what the result used beyond the weights),
`computed` (on what devices, with whose convolutions), ..."""

STAGES = ("original", "retrain", "unlearn")

Row = dict[str, Any]


@dataclass(frozen=True)
class RunLog:
    """The metrics of one unlearning run: `records` is one dict per epoch, `forget` as in the rows ("1,7")."""

    method: str
    base: str
    forget: str
    seed: int
    records: list[dict[str, Any]]

    @property
    def slug(self) -> str:
        """What tells the runs that can be compared apart, fit for a file name: base, forgotten classes, seed."""
        return f"{self.base}_{self.forget.replace(',', '-')}_seed{self.seed}"


def method_order(method: str) -> tuple[int, str]:
    """Sort key of a method; unknown ones come last, by name."""
    return (METHODS.index(method) if method in METHODS else len(METHODS), method)


def forget_order(forget: str) -> list[int]:
    """Sort key of a forget set: "2" before "10"."""
    return [int(number) for number in re.findall(r"\d+", str(forget))]


def row_order(row: Row) -> tuple:
    """Total order of the rows: method, then base, data set, network, forget set, seed, selection."""
    names = [str(row.get(field) or "") for field in ("base", "dataset", "arch")]
    rest = (forget_order(row["forget"]), row["seed"], str(row["selection"]))
    return (method_order(row["method"]), *names, *rest, json.dumps(to_plain(row), sort_keys=True))


def read_rows(workdir: str | os.PathLike) -> list[Row]:
    """All rows of the `result.json` files in the stage folders, in `row_order`.

    A damaged file (cut short, or rows without the required fields) costs its own rows only: it is renamed to
    `result.json.damaged`, so that the next start evaluates that run again, and a warning says so.
    """
    rows = []
    for stage in STAGES:
        for path in sorted((Path(workdir) / stage).glob("**/result.json")):
            try:
                rows += _parse_rows(path.read_text(encoding="utf-8"))
            except ValueError as error:
                set_aside(path, error)
    return sorted(rows, key=row_order)


def complete_rows(path: Path) -> bool:
    """Whether a `result.json` is there and whole; a damaged one is set aside."""
    try:
        return bool(_parse_rows(path.read_text(encoding="utf-8")))
    except OSError:
        return False
    except ValueError as error:
        set_aside(path, error)
        return False


def set_aside(path: Path, error: Exception) -> None:
    """Rename a damaged file, so that what it should hold is made again at the next start, and say so."""
    logging.warning("%s is damaged (%s); renamed to %s.damaged and left out of the results", path, error, path.name)
    os.replace(path, path.with_name(path.name + ".damaged"))


def write_results(workdir: str | os.PathLike, rows: Iterable[Row], provenance: dict[str, Any] | None = None) -> None:
    """Write `results.json` (an object with `rows` and `provenance`) and `results.csv`, each atomically, in
    `row_order`."""
    rows = sorted(rows, key=row_order)
    extra = sorted({field for row in rows for field in row} - set(RESULT_FIELDS))
    fields = [*RESULT_FIELDS, *extra]
    ordered = [{field: row[field] for field in fields if field in row} for row in rows]
    atomic_write_json(Path(workdir) / "results.json", {"rows": ordered, "provenance": provenance or {}})
    text = io.StringIO()
    table = csv.DictWriter(text, fields, lineterminator="\n")
    table.writeheader()
    table.writerows(to_plain(ordered))
    atomic_write_text(Path(workdir) / "results.csv", text.getvalue())


def load_runs(workdir: str | os.PathLike) -> list[RunLog]:
    """The logs `unlearn/<base>/<method>/<forget>/seed<k>/metrics.jsonl`, sorted by base, forget set, seed and method.

    Runs that are still going on are read as far as they are; runs that logged nothing yet are left out.
    """
    runs = []
    for path in Path(workdir).glob("unlearn/*/*/*/seed*/metrics.jsonl"):
        base, method, forget, seed = path.parts[-5:-1]
        records = read_metrics(path)
        if records and seed[4:].isdecimal():
            runs.append(RunLog(method, base, forget.replace("-", ","), int(seed[4:]), records))
    return sorted(runs, key=lambda run: (run.base, forget_order(run.forget), run.seed, method_order(run.method)))


def _parse_rows(text: str) -> list[Row]:
    """Parse one `result.json`; ValueError, in words for the user, if it is not a list of complete rows."""
    try:
        rows = from_plain(json.loads(text))
    except ValueError:
        raise ValueError("not valid JSON") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("not a list of rows")
    missing = {field for row in rows for field in RESULT_FIELDS if field not in row}
    if missing:
        raise ValueError(f"rows without {', '.join(sorted(missing))}")
    if not all(isinstance(row["seed"], int) for row in rows):
        raise ValueError("a seed that is not a whole number")
    return rows
