"""Result rows and logs of unlearning runs: what they hold, in which order they stand, reading and writing them."""

import csv
import dataclasses
import io
import json
import logging
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import numpy as np

from ispf_jax.runtime.atomic import atomic_write_json, atomic_write_text, from_plain, to_plain
from ispf_jax.runtime.telemetry import read_metrics

_log = logging.getLogger(__name__)

REFERENCES = ("original", "retrain", "masked_head", "retrained_head")
"""What unlearned models are compared with, in the order of all tables; they belong to no base (DFQ, ZSKT)."""

BEST_TEST = "best_test_retain"
"""The paper's selection, which looks at the test images; shown to compare with the paper, never the headline."""

STAGES = ("original", "retrain", "unlearn")

RunKey = tuple[str, int]
"""(forget set as in the rows, "3" or "1,7"; seed)."""


@dataclass(frozen=True)
class Row:
    """One result: a model of one run with its accuracies. The fields are the columns of `results.csv`.

    Attributes:
      forget: the forget set, "3" or "1,7".
      selection: which epoch it is: "last", `BEST_TEST`, "best_validation" or "given".
      acc_forget, acc_retain, acc_overall: in percent; None without test images.
      epoch: the selected one.
      access: what the result used beyond the weights.
      computed: on which devices, by which implementation of convolutions.
      weights, teacher: hashes of the model and of the model it was made from.
      agreement, called_forgotten: on synthetic images, in percent, where there are no test images.
      part: the part of a sweep.
    """

    method: str
    base: str | None
    dataset: str
    arch: str
    forget: str
    seed: int
    selection: str
    acc_forget: float | None
    acc_retain: float | None
    acc_overall: float | None
    train_seconds: float
    student_steps: int
    generator_steps: int
    images_synthesised: int
    access: str | None = None
    agreement: float | None = None
    called_forgotten: float | None = None
    computed: str | None = None
    epoch: int | None = None
    part: str | None = None
    teacher: str | None = None
    weights: str | None = None

    @property
    def run(self) -> RunKey:
        return self.forget, self.seed

    @property
    def model(self) -> str:
        """What audits call the model: "ispf/dfq", or a reference alone."""
        return self.method if self.method in REFERENCES or not self.base else f"{self.method}/{self.base}"

    @property
    def of_base(self) -> str:
        """The base; empty for a reference."""
        return self.model.partition("/")[2]


RESULT_FIELDS = tuple(field.name for field in fields(Row) if field.default is dataclasses.MISSING)
"""What every row holds, in the order of the columns; the optional fields follow where any row has them."""


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
        """A file name's part for runs that can be compared: base, forgotten classes, seed."""
        return f"{self.base}_{self.forget.replace(',', '-')}_seed{self.seed}"

    def series(self, *names: str) -> np.ndarray:
        """The named numbers, float [epochs that hold all of them, names]."""
        held = ([record.get(name) for name in names] for record in self.records)
        whole = [values for values in held if all(isinstance(v, (int, float)) for v in values)]
        return np.array(whole, float).reshape(-1, len(names))

    def class_shares(self) -> np.ndarray | None:
        """Share of every class, by the teacher's label, in the images of the generator steps; None if not recorded."""
        counts = [r["class_counts"] for r in self.records if isinstance(r.get("class_counts"), list)]
        if not counts or len(set(map(len, counts))) > 1 or not np.sum(counts):
            return None
        return np.sum(counts, axis=0) / np.sum(counts)


Record = TypeVar("Record")


def parse_record(kind: type[Record], entry: dict[str, Any]) -> Record:
    """An entry of a JSON file as a dataclass; unknown names are left out.

    Raises:
      ValueError: a field is missing or of the wrong type.
    """
    values = {name: entry[name] for name in _types(kind) if name in entry}
    for name, value in values.items():
        known = _types(kind)[name]
        if not isinstance(value, known) and not (isinstance(value, int) and isinstance(0.0, known)):
            raise ValueError(f"{name}={value!r} is of the wrong type")
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(str(error).partition(") ")[2]) from None


_types = cache(get_type_hints)


def method_order(method: str) -> tuple[int, str]:
    """Sort key of a method: the references, then the table of methods; unknown ones come last, by name."""
    from ispf_jax.methods import METHODS  # here, so that importing this file does not import JAX

    names = [*REFERENCES, *METHODS]
    return (names.index(method) if method in names else len(names), method)


def model_order(model: str) -> tuple:
    """Sort key of a model ("ispf/dfq" or a reference): references, then base by base in the order of the methods."""
    method, _, base = model.partition("/")
    return base, method_order(method)


def forget_order(forget: str) -> list[int]:
    """Sort key of a forget set, and its class ids: "2" before "10"."""
    return [int(number) for number in re.findall(r"\d+", forget)]


def row_order(row: Row) -> tuple:
    """Total order of the rows: method, then base, data set, network, forget set, seed, selection."""
    names = (row.base or "", row.dataset, row.arch, forget_order(row.forget), row.seed, row.selection)
    return (method_order(row.method), *names, json.dumps(to_plain(vars(row)), sort_keys=True))


def read_rows(workdir: str | os.PathLike) -> list[Row]:
    """All rows of the `result.json` files in the stage folders, in `row_order`.

    A damaged file (cut short, or rows without the required fields) costs its own rows only: it is renamed to
    `result.json.damaged`, so that the next start evaluates that run again, and a warning says so.
    """
    paths = [path for stage in STAGES for path in sorted((Path(workdir) / stage).glob("**/result.json"))]
    return sorted((row for path in paths for row in _rows(path)), key=row_order)


def complete_rows(path: Path) -> bool:
    """Whether a `result.json` is there and whole; a damaged one is set aside."""
    return path.exists() and bool(_rows(path))


def _rows(path: Path) -> list[Row]:
    try:
        return parse_rows(path.read_text(encoding="utf-8"))
    except ValueError as error:
        set_aside(path, error)
        return []


def parse_rows(text: str) -> list[Row]:
    """The rows of one `result.json`; ValueError, in words for the user, if it is not a list of complete rows."""
    rows = parse_json(text)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("not a list of rows")
    return [parse_record(Row, row) for row in rows]


def parse_json(text: str) -> Any:
    """What a file of ours holds, non-finite numbers restored; ValueError, in words for the user, if it is cut short."""
    try:
        return from_plain(json.loads(text))
    except ValueError:
        raise ValueError("not valid JSON") from None


def set_aside(path: Path, error: Exception) -> None:
    """Rename a damaged file, so that the next start makes it again, and warn."""
    _log.warning("%s is damaged (%s); renamed to %s.damaged and left out of the results", path, error, path.name)
    os.replace(path, path.with_name(path.name + ".damaged"))


def write_results(workdir: str | os.PathLike, rows: Iterable[Row], provenance: dict[str, Any] | None = None) -> None:
    """Write `results.json` (an object with `rows` and `provenance`) and `results.csv`, in `row_order`."""
    ordered = [
        {name: value for name, value in vars(row).items() if name in RESULT_FIELDS or value is not None}
        for row in sorted(rows, key=row_order)
    ]
    names = [field.name for field in fields(Row) if field.name in {*RESULT_FIELDS}.union(*ordered)]
    atomic_write_json(Path(workdir) / "results.json", {"rows": ordered, "provenance": provenance or {}})
    write_csv(Path(workdir) / "results.csv", names, ordered)


def write_csv(path: Path, names: Sequence[str], lines: Iterable[dict[str, Any]]) -> None:
    """Write a table with a line of names; what is None or missing is an empty cell."""
    text = io.StringIO()
    table = csv.DictWriter(text, names, lineterminator="\n")
    table.writeheader()
    table.writerows(to_plain(list(lines)))
    atomic_write_text(path, text.getvalue())


def load_runs(workdir: str | os.PathLike) -> list[RunLog]:
    """The logs `unlearn/<base>/<method>/<forget>/seed<k>/metrics.jsonl`, sorted by base, forget set, seed and method.

    Runs that are still going on are read as far as they are; runs that logged nothing yet are left out.
    """
    runs = (RunLog(*key, read_metrics(path)) for key, path in run_files(workdir, "metrics.jsonl"))
    return [run for run in runs if run.records]


def run_files(workdir: str | os.PathLike, name: str) -> list[tuple[tuple[str, str, str, int], Path]]:
    """((method, base, forget set, seed), path) of a file in the directories of unlearning runs."""
    found = []
    for path in Path(workdir).glob(f"unlearn/*/*/*/seed*/{name}"):
        base, method, forget, seed = path.parts[-5:-1]
        if seed[4:].isdecimal():
            found.append(((method, base, forget.replace("-", ","), int(seed[4:])), path))
    return sorted(found, key=lambda f: (f[0][1], forget_order(f[0][2]), f[0][3], method_order(f[0][0])))
