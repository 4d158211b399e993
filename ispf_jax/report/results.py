"""The table of results: one line per base and method, with the accuracies of the result rows."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ispf_jax.report.averages import Average, average, count
from ispf_jax.report.tables import MISSING, Table, make_table
from ispf_jax.runtime.rows import BEST_TEST, REFERENCES, Row, RunKey, method_order

_CAPTION = (
    "Accuracies in percent on test images of the forgotten, of the retained and of all classes; seconds of training and "
    "student steps are means per run.",
    "Each figure is the mean over the forget sets of a seed, then over seeds, with the population standard deviation "
    "(ddof=0) over seeds after +/-.",
)
_CAPTION_BEST = (
    "* = the checkpoint with the best retain accuracy on the test images, as the paper selects; it uses test data and is "
    "shown for comparison only."
)
_CAPTION_AGREES = (
    "agrees: of those among 512 images of a student's own generator that the original assigns to a retained class, the "
    "share that the student assigns to the same class; called forgotten: of all 512, the share that it assigns to a "
    "forgotten class. They show whether the student learned, not how good it is on real images."
)
_COLUMNS = {  # head: (field, digits, whether the spread is shown)
    "forget": ("acc_forget", 2, True),
    "retain": ("acc_retain", 2, True),
    "overall": ("acc_overall", 2, True),
    "forget*": ("acc_forget", 2, True),
    "retain*": ("acc_retain", 2, True),
    "agrees": ("agreement", 2, True),
    "called forgotten": ("called_forgotten", 2, True),
    "seconds": ("train_seconds", 0, False),
    "steps": ("student_steps", 0, False),
}


@dataclass(frozen=True)
class Summary:
    """All runs of one (base, method, selection)."""

    base: str
    method: str
    selection: str
    runs: dict[RunKey, Row]

    def average(self, field: str) -> Average | None:
        """The average of a field of the rows; None if no row has a number there."""
        values = {run: getattr(row, field) for run, row in self.runs.items()}
        return average({run: value for run, value in values.items() if value is not None})


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


def result_tables(rows: Sequence[Row]) -> list[Table]:
    """One table per data set and network."""
    return [_table(f"{dataset}, {arch}", part) for (dataset, arch), part in by_setting(rows).items()]


def _table(title: str, rows: Sequence[Row]) -> Table:
    """A line per base and method; columns that no row fills are left out."""
    summaries = summarise(rows)
    best = {(s.base, s.method): s for s in summaries if s.selection == BEST_TEST}
    others = Counter((s.base, s.method) for s in summaries if s.selection != BEST_TEST)
    agrees, access = any(row.agreement is not None for row in rows), any(row.access for row in rows)
    hidden = {*(["forget*", "retain*"] if not best else []), *([] if agrees else ["agrees", "called forgotten"])}
    columns = {head: column for head, column in _COLUMNS.items() if head not in hidden}
    lines = []
    for s in summaries:
        key = s.base, s.method
        if s.selection == BEST_TEST and others[key]:
            continue  # its numbers are in the line of the other selection
        name = f"{s.method} ({s.selection})" if others[key] > 1 else s.method
        line = [name, s.base or MISSING, count(s.runs)]
        for head, (field, digits, spread) in columns.items():
            of = best.get(key) if head.endswith("*") else s if s.selection != BEST_TEST else None
            found = of and of.average(field)
            line.append(MISSING if not found else found.text(digits) if spread else f"{found.mean:.{digits}f}")
        used = "; ".join(sorted({row.access for row in s.runs.values() if row.access and s.selection != BEST_TEST}))
        lines.append([*line, *([used or MISSING] if access else [])])
    heads = ["method", "base", "sets x seeds", *columns, *(["used"] if access else [])]
    notes = [*_CAPTION, *([_CAPTION_BEST] if best else []), *([_CAPTION_AGREES] if agrees else [])]
    return make_table(title, heads, lines, notes, words=("method", "base", "used"))
