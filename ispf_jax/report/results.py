"""The table of results, one line per base and method, and the one way in which this report averages over runs."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ispf_jax.report.names import TEXTS
from ispf_jax.report.tables import MISSING, Table, make_table
from ispf_jax.runtime.rows import BEST_TEST, Row, RunKey, model_order

_NOTES = TEXTS["notes"]


@dataclass(frozen=True)
class Average:
    """Mean over the forget sets of a seed, then over seeds, as the paper averages (its Table 1).

    Over the seeds' means, `std` is the population standard deviation (ddof=0, the paper's) and `sample_std` that of a
    sample (ddof=1, the larger); both NaN with a single seed.
    """

    mean: float
    std: float = float("nan")
    sample_std: float = float("nan")

    def text(self, digits: int = 2) -> str:
        """`92.68 +/- 0.13`, without a spread if there is none."""
        return f"{self.mean:.{digits}f}" + (f" +/- {self.std:.{digits}f}" if self.std == self.std else "")


def grouped(items: Iterable, key: Callable) -> dict[Any, list]:
    """The items by key, in the order of their first appearance."""
    groups = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return dict(groups)


def average(values: dict[RunKey, float]) -> Average | None:
    """The average of the runs' values; None if there are none. Seeds weigh the same, also if some runs are missing."""
    by_seed = grouped(values.items(), lambda item: item[0][1])
    means = [np.mean([value for _, value in items]) for items in by_seed.values()]
    if len(means) < 2:
        return Average(float(means[0])) if means else None
    return Average(float(np.mean(means)), float(np.std(means)), float(np.std(means, ddof=1)))


def count(runs: Iterable[RunKey]) -> str:
    """`10 x 3`: forget sets x seeds, with the number of runs where some of them are missing."""
    runs = set(runs)
    sets, seeds = (len(set(axis)) for axis in zip(*runs))
    return f"{sets} x {seeds}" + (f" ({len(runs)} runs)" if len(runs) < sets * seeds else "")


class Summary(NamedTuple):
    """All runs of one model ("ispf/dfq", or a reference) with one selection."""

    model: str
    selection: str
    runs: dict[RunKey, Row]

    def average(self, field: str) -> Average | None:
        """The average of a field of the rows; None if no row has a number there."""
        return average({run: value for run, row in self.runs.items() if (value := getattr(row, field)) is not None})


def summarise(rows: Iterable[Row]) -> list[Summary]:
    """Group rows of one data set and network by model and selection: references first, then base by base."""
    groups = grouped(rows, lambda row: (row.model, row.selection))
    order = sorted(groups, key=lambda key: (model_order(key[0]), key[1]))
    return [Summary(*key, {row.run: row for row in groups[key]}) for key in order]


def by_setting(rows: Iterable[Row]) -> dict[tuple[str, str], list[Row]]:
    """The rows of each (data set, network), in the order of the names."""
    return dict(sorted(grouped(rows, lambda row: (row.dataset, row.arch)).items()))


def result_tables(rows: Iterable[Row]) -> list[Table]:
    """One table per data set and network."""
    return [_table(", ".join(setting), summarise(part)) for setting, part in by_setting(rows).items()]


def _table(title: str, summaries: list[Summary]) -> Table:
    """A line per base and method; columns that no row fills are left out."""
    lines = []
    for model, selections in grouped(summaries, lambda s: s.model).items():
        best = next((s for s in selections if s.selection == BEST_TEST), None)
        others = [s for s in selections if s is not best]
        for s in others or [None]:
            runs, (method, _, base) = (s or best).runs, model.partition("/")
            name = f"{method} ({s.selection})" if len(others) > 1 else method
            line = {"method": name, "base": base or MISSING, "sets x seeds": count(runs)}
            for head, (field, digits) in TEXTS["results"].items():
                of = best if head.endswith("*") else s
                found = of and of.average(field)
                line[head] = MISSING if not found else found.text() if digits else f"{found.mean:.0f}"
            used = sorted({row.access for row in runs.values() if row.access}) if s else []
            lines.append(line | {"used": "; ".join(used) or MISSING})
    heads = [head for head in lines[0] if any(line[head] != MISSING for line in lines)]
    notes = [*_NOTES["results"], "retain*" in heads and _NOTES["best"], "agrees" in heads and _NOTES["agrees"]]
    rows = [[line[head] for head in heads] for line in lines]
    return make_table(title, heads, rows, notes, words=("method", "base", "used"))
