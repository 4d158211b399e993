"""Result rows and logs of unlearning runs: what they hold, in which order they stand, reading and writing them."""

import csv
import dataclasses
import io
import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ispf_jax.runtime import layout
from ispf_jax.runtime.atomic import atomic_write_json, atomic_write_text, to_plain
from ispf_jax.runtime.layout import Job
from ispf_jax.runtime.schema import LARGE, Amount, Count, Forget, Misfit, Percent, Seed, Setting, Word, fit, read_json
from ispf_jax.runtime.telemetry import read_metrics

REFERENCES = ("original", "retrain", "masked_head", "retrained_head", "synthetic_embedding")
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
      selection: which epoch it is: "last", "agreement", `BEST_TEST`, "best_validation" or "given".
      acc_forget, acc_retain, acc_overall: in percent; None without test images.
      epoch: the selected one.
      access: what the result used beyond the weights.
      computed: on which devices, by which implementation of convolutions.
      weights, teacher: hashes of the model and of the model it was made from.
      agreement, covered, called_forgotten: of a student on synthetic images; see `evaluate.agreement`.
      part: the part of a sweep.
    """

    method: Word
    base: Word | None
    dataset: Word
    arch: Word
    forget: Forget
    seed: Seed
    selection: Word
    acc_forget: Percent | None
    acc_retain: Percent | None
    acc_overall: Percent | None
    train_seconds: Amount
    student_steps: Count
    generator_steps: Count
    images_synthesised: Count
    access: Word | None = None
    agreement: Percent | None = None
    covered: Count | None = None
    called_forgotten: Percent | None = None
    computed: Word | None = None
    epoch: Count | None = None
    part: Word | None = None
    teacher: Word | None = None
    weights: Word | None = None

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

    A damaged file, or one that does not belong where it is, costs its own rows only: it is set aside, so that the next
    start evaluates that run again.
    """
    places = {"original": f"rows/*/{layout.RESULT}", "retrain": layout.RESULT, "unlearn": layout.RESULT}
    found = [of for kind, name in places.items() for of in layout.files(Path(workdir), kind, name)]
    return sorted((row for job, path in found for row in rows_of(job, path)), key=row_order)


def rows_of(job: Job, path: Path) -> list[Row]:
    """The rows of a job in a `result.json`; none if it is not there or was set aside."""
    return read_json(path, partial(_parse, job, path)) or []


def _parse(job, path, content) -> list[Row]:
    """The rows of one file; ValueError if they are not those of the job, or contradict themselves."""
    rows = fit(list[Row], content)
    methods = {"original": REFERENCES, "retrain": ("retrain",)}.get(job.kind, (job.method,))
    forget = path.parent.name.replace("-", ",") if job.kind == "original" else job.forgets
    if not rows:
        raise ValueError("no rows")
    for row in rows:
        if row.method not in methods or (row.forget, row.seed) != (forget, job.seed) or job.base not in ("", row.base):
            of = f"{row.method} ({row.base}) forget {row.forget} seed {row.seed}"
            raise ValueError(f"it has a row of {of}, which does not belong here")
        shares = [share for share in (row.acc_forget, row.acc_retain) if share is not None]
        low, high = min(shares, default=0) - 1e-6, max(shares, default=100) + 1e-6
        if row.acc_overall is not None and not low <= row.acc_overall <= high:
            raise Misfit("acc_overall", row.acc_overall, "between acc_forget and acc_retain")
    return rows


def write_results(workdir: str | os.PathLike, rows: Iterable[Row], provenance: dict[str, Any] | None = None) -> None:
    """Write `results.json` (an object with `rows` and `provenance`) and `results.csv`, in `row_order`."""
    ordered = [
        {name: value for name, value in vars(row).items() if name in RESULT_FIELDS or value is not None}
        for row in sorted(rows, key=row_order)
    ]
    names = [field.name for field in fields(Row) if field.name in {*RESULT_FIELDS}.union(*ordered)]
    atomic_write_json(Path(workdir) / layout.RESULTS, {"rows": ordered, "provenance": provenance or {}})
    write_csv(Path(workdir) / "results.csv", names, ordered)


def write_csv(path: Path, names: Sequence[str], lines: Iterable[dict[str, Any]]) -> None:
    """Write a table with a line of names; what is None or missing is an empty cell."""
    text = io.StringIO()
    table = csv.DictWriter(text, names, lineterminator="\n")
    table.writeheader()
    table.writerows(to_plain(list(lines)))
    atomic_write_text(path, text.getvalue())


def read_provenance(workdir: str | os.PathLike) -> dict[str, Any]:
    """The provenance of the last report in a work directory; empty if there is none."""
    path = Path(workdir) / layout.RESULTS
    found = read_json(path, lambda content: fit(_Results, content).provenance, LARGE)
    return found or {}


@dataclass(frozen=True)
class _Results:
    """What of `results.json` is read again."""

    provenance: dict[str, Setting | dict[str, Setting]] = dataclasses.field(default_factory=dict)


def load_runs(workdir: str | os.PathLike) -> list[RunLog]:
    """The logs `unlearn/<base>/<method>/<forget>/seed<k>/metrics.jsonl`, sorted by base, forget set, seed and method.

    Runs that are still going on are read as far as they are; runs that logged nothing yet are left out.
    """
    runs = (RunLog(*key, read_metrics(path)) for key, path in run_files(workdir, layout.METRICS))
    return [run for run in runs if run.records]


def run_files(workdir: str | os.PathLike, name: str) -> list[tuple[tuple[str, str, str, int], Path]]:
    """((method, base, forget set, seed), path) of a file in the directories of unlearning runs."""
    found = layout.files(Path(workdir), "unlearn", name)
    keyed = [((job.method, job.base, job.forgets, job.seed), path) for job, path in found]
    return sorted(keyed, key=lambda f: (f[0][1], forget_order(f[0][2]), f[0][3], method_order(f[0][0])))
