"""The summary table: one row per base and method, with the accuracies of the result rows."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ispf_jax.report.averages import RunKey, average, count
from ispf_jax.report.cells import Column, Table, row, to_console
from ispf_jax.runtime.rows import REFERENCES, Row, method_order

BEST_TEST = "best_test_retain"
"""The paper's selection, which looks at the test images; shown to compare with the paper, never the headline."""

CAPTION = (
    "Accuracies in percent on test images of the forgotten, of the retained and of all classes; seconds of training and student "
    "steps are means per run.",
    "Each figure is the mean over the forget sets of a seed, then over seeds, with the population standard deviation (ddof=0) "
    "over seeds after +/-.",
)
CAPTION_BEST = (
    "* = the checkpoint with the best retain accuracy on the test images, as the paper selects; it uses test data and is shown "
    "for comparison only."
)
CAPTION_AGREES = (
    "agrees: of 512 images of a student's own generator, those of retained classes, in the original's eyes, that the student gives the same class; "
    "called forgotten: of all of them those that it gives a forgotten class. They tell whether the student learned, not how good it is on real images."
)


@dataclass(frozen=True)
class Summary:
    """All runs of one (base, method, selection); `runs` maps (forget set, seed) to the row of that run."""

    base: str
    method: str
    selection: str
    runs: dict[RunKey, Row]

    def mean_std(self, field: str) -> tuple[float, float] | None:
        """`average` of a field: its mean and population standard deviation, None if no row has a number there."""
        found = average({run: row[field] for run, row in self.runs.items() if isinstance(row.get(field), (int, float))})
        return found and (found.mean, found.std)

    @property
    def count(self) -> str:
        """`10 x 3`: forget sets x seeds, with the number of runs where some of them are missing."""
        return count(self.runs)

    @property
    def access(self) -> str:
        """What the result used beyond the weights, as the rows say it; empty if they do not."""
        return "; ".join(sorted({str(row["access"]) for row in self.runs.values() if row.get("access")}))


def summarise(rows: Iterable[Row]) -> list[Summary]:
    """Group rows of one data set and network by (base, method, selection): references first, then base by base."""
    groups = defaultdict(dict)
    for entry in rows:
        base = "" if entry["method"] in REFERENCES else str(entry.get("base") or "")
        groups[base, entry["method"], entry["selection"]][entry["forget"], entry["seed"]] = entry
    return sorted((Summary(*key, runs) for key, runs in groups.items()), key=_order)


def settings(rows: Iterable[Row]) -> dict[tuple[str, str], list[Row]]:
    """The rows of each (data set, network), in the order of the names."""
    parts = defaultdict(list)
    for entry in rows:
        parts[str(entry["dataset"]), str(entry["arch"])].append(entry)
    return dict(sorted(parts.items()))


def summary_tables(rows: Sequence[Row]) -> list[Table]:
    """One table per data set and network."""
    return [_table(f"{dataset}, {arch}", part) for (dataset, arch), part in settings(rows).items()]


def summary_table(rows: Sequence[Row]) -> str:
    """The same as text for a monospaced console."""
    return "\n\n".join(map(to_console, summary_tables(rows))) or "no results yet"


def _table(title: str, rows: Sequence[Row]) -> Table:
    """The columns of the best-on-test selection, of `used` and of the agreement only where rows fill them."""
    summaries = summarise(rows)
    best = {(s.base, s.method): s for s in summaries if s.selection == BEST_TEST}
    headline = [s for s in summaries if s.selection != BEST_TEST]
    selections = Counter((s.base, s.method) for s in headline)
    headline += [
        replace(s, runs={}) for key, s in best.items() if key not in selections
    ]  # their first columns stay empty
    head = [
        "method",
        "base",
        "sets x seeds",
        "forget",
        "retain",
        "overall",
        "forget*",
        "retain*",
        "agrees",
        "called forgotten",
        "seconds",
        "steps",
        "used",
    ]
    agrees = any("agreement" in r for r in rows)
    lines = []
    for s in sorted(headline, key=_order):
        other = best.get((s.base, s.method), replace(s, runs={}))
        lines.append(
            [
                f"{s.method} ({s.selection})" if selections[s.base, s.method] > 1 else s.method,
                s.base or "-",
                (s if s.runs else other).count,
                *(_number(s, field) for field in ("acc_forget", "acc_retain", "acc_overall")),
                *(_number(other, field) for field in ("acc_forget", "acc_retain")),
                *(_number(s, field) for field in ("agreement", "called_forgotten")),
                *(_number(s, field, digits=0, spread=False) for field in ("train_seconds", "student_steps")),
                s.access or "-",
            ]
        )
    filled = {"used": any(s.access for s in headline), "agrees": agrees, "called forgotten": agrees}
    shown = [name for name in head if (best or "*" not in name) and filled.get(name, True)]
    columns = tuple(Column(name, words=name in ("method", "base", "used")) for name in shown)
    cells = tuple(row(*(cell for name, cell in zip(head, line) if name in shown)) for line in lines)
    return Table(
        title, columns, cells, (*CAPTION, *([CAPTION_BEST] if best else []), *([CAPTION_AGREES] if agrees else []))
    )


def _order(summary: Summary) -> tuple:
    """References first, then base by base, methods in their order."""
    return (summary.method not in REFERENCES, summary.base, method_order(summary.method), summary.selection)


def _number(summary: Summary, field: str, digits: int = 2, spread: bool = True) -> str:
    found = summary.mean_std(field)
    if found is None:
        return "-"
    mean, std = found
    return f"{mean:.{digits}f}" + (f" +/- {std:.{digits}f}" if spread and std == std else "")
