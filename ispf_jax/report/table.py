"""The summary table: one row per base and method, for the console and as Markdown."""

import os
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Iterable, Sequence

import numpy as np

from ispf_jax.files import atomic_write_text
from ispf_jax.report.results import REFERENCES, Row, method_order

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


@dataclass(frozen=True)
class Summary:
    """All runs of one (base, method, selection); `runs` maps (forget set, seed) to the row of that run."""

    base: str
    method: str
    selection: str
    runs: dict[tuple[str, int], Row]

    def mean_std(self, field: str) -> tuple[float, float] | None:
        """Mean over forget sets per seed, then mean and population standard deviation over seeds, as the paper does.

        None if no row has a number there; the deviation is NaN with a single seed.
        """
        by_seed = defaultdict(list)
        for (_, seed), row in self.runs.items():
            if isinstance(row.get(field), (int, float)):
                by_seed[seed].append(row[field])
        if not by_seed:
            return None
        means = [np.mean(values) for values in by_seed.values()]
        return float(np.mean(means)), float(np.std(means)) if len(means) > 1 else float("nan")

    @property
    def count(self) -> str:
        """`10 x 3`: forget sets x seeds, with the number of runs where some of them are missing."""
        sets, seeds = (len({run[axis] for run in self.runs}) for axis in (0, 1))
        return f"{sets} x {seeds}" + (f" ({len(self.runs)} runs)" if len(self.runs) < sets * seeds else "")

    @property
    def access(self) -> str:
        """What the result used beyond the weights, as the rows say it; empty if they do not."""
        return "; ".join(sorted({str(row["access"]) for row in self.runs.values() if row.get("access")}))


def summarise(rows: Iterable[Row]) -> list[Summary]:
    """Group rows of one data set and network by (base, method, selection): references first, then base by base."""
    groups = defaultdict(dict)
    for row in rows:
        base = "" if row["method"] in REFERENCES else str(row.get("base") or "")
        groups[base, row["method"], row["selection"]][row["forget"], row["seed"]] = row
    return sorted((Summary(*key, runs) for key, runs in groups.items()), key=_order)


def settings(rows: Iterable[Row]) -> dict[tuple[str, str], list[Row]]:
    """The rows of each (data set, network), in the order of the names."""
    parts = defaultdict(list)
    for row in rows:
        parts[str(row["dataset"]), str(row["arch"])].append(row)
    return dict(sorted(parts.items()))


def summary_table(rows: Sequence[Row]) -> str:
    """Text for a monospaced console, one table per data set and network."""
    blocks = []
    for (dataset, arch), part in settings(rows).items():
        cells = _cells(part)
        widths = [max(map(len, column)) for column in zip(*cells)]
        rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
        lines = ["  ".join(map(_align, line, widths, cells[0])).rstrip() for line in cells]
        blocks.append("\n".join([f"{dataset}, {arch}", rule, lines[0], rule, *lines[1:], rule, *_caption(part)]))
    return "\n\n".join(blocks) or "no results yet"


def markdown_table(rows: Sequence[Row]) -> str:
    """The same tables as Markdown."""
    blocks = []
    for (dataset, arch), part in settings(rows).items():
        head, *body = _cells(part)
        marks = ["---" if name in _TEXT else "---:" for name in head]
        lines = ["| " + " | ".join(cell.replace("|", "\\|").replace("*", "\\*") for cell in line) + " |" for line in (head, marks, *body)]
        caption = "\n\n".join(line.replace("*", "\\*") for line in _caption(part))
        blocks.append("\n".join([f"## {dataset}, {arch}", "", *lines, "", caption]))
    return "\n\n".join(blocks) + "\n" if blocks else "no results yet\n"


def write_tables(workdir: str | os.PathLike, rows: Sequence[Row]) -> Path:
    """Write `tables.md`."""
    return atomic_write_text(Path(workdir) / "tables.md", "# Results\n\n" + markdown_table(rows))


_TEXT = ("method", "base", "used")  # the columns that are words and go to the left


def _cells(rows: Sequence[Row]) -> list[list[str]]:
    """Header and lines as strings; the columns of the best-on-test selection and of `used` only where rows fill them."""
    summaries = summarise(rows)
    best = {(s.base, s.method): s for s in summaries if s.selection == BEST_TEST}
    headline = [s for s in summaries if s.selection != BEST_TEST]
    count = Counter((s.base, s.method) for s in headline)
    headline += [replace(s, runs={}) for key, s in best.items() if key not in count]  # their first columns stay empty
    head = ["method", "base", "sets x seeds", "forget", "retain", "overall", "forget*", "retain*", "seconds", "steps", "used"]
    lines = []
    for s in sorted(headline, key=_order):
        other = best.get((s.base, s.method), replace(s, runs={}))
        lines.append([
            f"{s.method} ({s.selection})" if count[s.base, s.method] > 1 else s.method, s.base or "-", (s if s.runs else other).count,
            *(_number(s, field) for field in ("acc_forget", "acc_retain", "acc_overall")),
            *(_number(other, field) for field in ("acc_forget", "acc_retain")),
            *(_number(s, field, digits=0, spread=False) for field in ("train_seconds", "student_steps")), s.access or "-",
        ])
    shown = [name for name in head if (best or "*" not in name) and (name != "used" or any(s.access for s in headline))]
    return [[cell for name, cell in zip(head, line) if name in shown] for line in (head, *lines)]


def _order(summary: Summary) -> tuple:
    """References first, then base by base, methods in their order."""
    return (summary.method not in REFERENCES, summary.base, method_order(summary.method), summary.selection)


def _number(summary: Summary, field: str, digits: int = 2, spread: bool = True) -> str:
    found = summary.mean_std(field)
    if found is None:
        return "-"
    mean, std = found
    return f"{mean:.{digits}f}" + (f" +/- {std:.{digits}f}" if spread and std == std else "")


def _caption(rows: Sequence[Row]) -> list[str]:
    return [*CAPTION, *([CAPTION_BEST] if any(row["selection"] == BEST_TEST for row in rows) else [])]


def _align(cell: str, width: int, column: str) -> str:
    return cell.ljust(width) if column in _TEXT else cell.rjust(width)
