"""The table of results, one line per base and method, and the one way in which this report averages over runs."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ispf_jax.report.names import TEXTS
from ispf_jax.report.tables import MISSING, Table, make_table
from ispf_jax.runtime.rows import BEST_TEST, REFERENCES, Row, RunKey, method_order

_NOTES = TEXTS["notes"]
_COLUMNS = {  # head: field of the rows
    "forget": "acc_forget",
    "retain": "acc_retain",
    "overall": "acc_overall",
    "forget*": "acc_forget",
    "retain*": "acc_retain",
    "agrees": "agreement",
    "called forgotten": "called_forgotten",
    "seconds": "train_seconds",
    "steps": "student_steps",
}


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


def average(values: dict[RunKey, float]) -> Average | None:
    """The average of the runs' values; None if there are none. Seeds weigh the same, also if some runs are missing."""
    by_seed = defaultdict(list)
    for (_, seed), value in values.items():
        by_seed[seed].append(value)
    means = [np.mean(numbers) for numbers in by_seed.values()]
    if len(means) < 2:
        return Average(float(means[0])) if means else None
    return Average(float(np.mean(means)), float(np.std(means)), float(np.std(means, ddof=1)))


def count(runs: Iterable[RunKey]) -> str:
    """`10 x 3`: forget sets x seeds, with the number of runs where some of them are missing."""
    runs = set(runs)
    sets, seeds = (len(set(axis)) for axis in zip(*runs))
    return f"{sets} x {seeds}" + (f" ({len(runs)} runs)" if len(runs) < sets * seeds else "")


class Summary(NamedTuple):
    """All runs of one (base, method, selection)."""

    base: str
    method: str
    selection: str
    runs: dict[RunKey, Row]

    def average(self, field: str) -> Average | None:
        """The average of a field of the rows; None if no row has a number there."""
        return average({run: value for run, row in self.runs.items() if (value := getattr(row, field)) is not None})


def summarise(rows: Iterable[Row]) -> list[Summary]:
    """Group rows of one data set and network by (base, method, selection): references first, then base by base."""
    groups = defaultdict(dict)
    for row in rows:
        groups[row.of_base, row.method, row.selection][row.run] = row
    order = sorted(groups, key=lambda key: (key[1] not in REFERENCES, key[0], method_order(key[1]), key[2]))
    return [Summary(*key, groups[key]) for key in order]


def by_setting(rows: Iterable[Row]) -> dict[tuple[str, str], list[Row]]:
    """The rows of each (data set, network), in the order of the names."""
    parts = defaultdict(list)
    for row in rows:
        parts[row.dataset, row.arch].append(row)
    return dict(sorted(parts.items()))


def result_tables(rows: Iterable[Row]) -> list[Table]:
    """One table per data set and network."""
    return [_table(", ".join(setting), summarise(part)) for setting, part in by_setting(rows).items()]


def _table(title: str, summaries: list[Summary]) -> Table:
    """A line per base and method; columns that no row fills are left out."""
    rows = [row for s in summaries for row in s.runs.values()]
    best = {s[:2]: s for s in summaries if s.selection == BEST_TEST}
    others = Counter(s[:2] for s in summaries if s.selection != BEST_TEST)
    agrees, access = any(row.called_forgotten is not None for row in rows), any(row.access for row in rows)
    empty = {*(() if best else ("forget*", "retain*")), *(() if agrees else ("agrees", "called forgotten"))}
    columns = [head for head in _COLUMNS if head not in empty]
    lines = []
    for s in summaries:
        if s.selection == BEST_TEST and others[s[:2]]:
            continue  # its numbers are in the line of the other selection
        line = [f"{s.method} ({s.selection})" if others[s[:2]] > 1 else s.method, s.base or MISSING, count(s.runs)]
        for head in columns:
            of = best.get(s[:2]) if head.endswith("*") else s if s.selection != BEST_TEST else None
            found = of and of.average(_COLUMNS[head])
            whole = head in ("seconds", "steps")
            line.append(MISSING if not found else f"{found.mean:.0f}" if whole else found.text())
        used = {row.access for row in s.runs.values() if row.access and s.selection != BEST_TEST}
        lines.append([*line, *(["; ".join(sorted(used)) or MISSING] if access else [])])
    heads = ["method", "base", "sets x seeds", *columns, *["used"] * access]
    notes = [*_NOTES["results"], *[_NOTES["best"]] * bool(best), *[_NOTES["agrees"]] * agrees]
    return make_table(title, heads, lines, notes, words=("method", "base", "used"))
