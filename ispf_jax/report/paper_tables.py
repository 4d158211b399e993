"""Tables 1, 2, 6, 7, 8 and 9 in the paper's layout for whatever was run, the paper's own numbers in small print below ours."""

from dataclasses import dataclass, field
from typing import Any, Iterable

from ispf_jax.report import paper
from ispf_jax.report.averages import Average, RunKey, average, count
from ispf_jax.report.cells import Cell, Column, Table
from ispf_jax.report.names import METHOD_NAMES
from ispf_jax.report.results import REFERENCES, Row, forget_order
from ispf_jax.report.table import BEST_TEST, settings
from ispf_jax.report.verdict import judge
from ispf_jax.report.workdir import Contents

NEAR = {"AIN": 0.1, "samples": 5.0}
"""A difference to the paper up to this (else one percentage point) is marked as near."""

_ORDER = ("original", "dfkd", "retrain", "masked_head", "retrained_head", "blockf", "gkt", "is", "pf", "ispf", "pd", "pd_is")
_TITLES = {"svhn": "SVHN", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "allcnn": "AllCNN", "resnet18": "ResNet18"}
_FIELDS = {"A_f": "acc_forget", "A_r": "acc_retain"}
_AUDITED = {"MIA-I": "mia1", "MIA-II": "mia2", "AIN": "ain"}
_STAR = "A_r* is the epoch with the best A_r on the test images, as the paper selects; A_f and A_r are the last epoch's."


@dataclass(frozen=True)
class Block:
    """All runs of one data set and network with one base, and the paper's data set to read them beside.

    Attributes:
      values: {(method, head of the column): {run: value}}.
      beside, reasons: see `paper.counterpart`; bounds: (forget set, what makes an AIN of it no exact number).
    """

    dataset: str
    arch: str
    base: str
    values: dict[tuple[str, str], dict[RunKey, float]]
    beside: str | None = None
    reasons: list[str] = field(default_factory=list)
    bounds: list[tuple[str, str]] = field(default_factory=list)

    @property
    def title(self) -> str:
        return f"{_TITLES.get(self.dataset, self.dataset)}, {_TITLES.get(self.arch, self.arch)}" + (f" ({self.base})" if self.base else "")

    @property
    def sets(self) -> list[str]:
        """All forget sets, in their order."""
        return sorted({run[0] for runs in self.values.values() for run in runs}, key=forget_order)

    @property
    def methods(self) -> list[str]:
        return sorted({method for method, _ in self.values}, key=lambda m: _ORDER.index(m) if m in _ORDER else len(_ORDER))

    def over(self, method: str, metric: str, sets: Iterable[str]) -> Average | None:
        runs = self.values.get((method, metric), {})
        return average({run: value for run, value in runs.items() if run[0] in sets})

    def notes(self, compared: bool) -> tuple[str, ...]:
        """How to read the table beside the paper; `compared`: whether it holds numbers of the paper."""
        if not compared:
            return (f"The paper has no numbers for {self.title}.",)
        small = "Small print: the paper's number and our difference to it; differences of more than one point (AIN 0.1) are marked."
        return (small, *(["Not comparable: " + "; ".join(self.reasons) + "."] if self.reasons else []))


def paper_tables(contents: Contents) -> list[Table]:
    """All tables that the runs of a work directory fill at least partly."""
    tables = []
    for block in _blocks(contents):
        singles, multis = [s for s in block.sets if "," not in s], [s for s in block.sets if "," in s]
        if block.base == "zskt":
            tables += [_accuracies(block, 7, "ZSKT base", singles)] if singles else []
            continue
        if singles and block.beside != "cifar100":
            tables.append(_table1(block, singles))
        if multis or block.beside == "cifar100":
            tables += [_accuracies(block, 2, words, sets, kind) for kind, words, sets in
                       (("single", "single classes", singles), ("multi", "several classes at once", multis)) if sets]
        if multis:
            tables.append(_table6(block, multis))
        if any(method in ("pd", "pd_is") for method in block.methods):
            tables.append(_table8(block, block.sets))
        if len(singles) > 1:
            tables += _table9(block, singles)
    return tables


def _blocks(contents: Contents) -> list[Block]:
    blocks = []
    for (dataset, arch), rows in settings(contents.rows).items():
        beside, reasons = paper.counterpart(dataset, arch, contents.config, contents.data_note)
        audited = judge(contents, dataset, arch).findings
        bases = sorted({str(r.get("base") or "") for r in rows if r["method"] not in REFERENCES}) or [""]
        for base in bases:
            bounds = []
            values = _row_values([r for r in rows if r["method"] in REFERENCES or str(r.get("base") or "") == base])
            for (model, name), finding in audited.items():
                method, _, of = model.partition("/")
                for head in (h for h, n in _AUDITED.items() if n == name and of in ("", base)):
                    values[method, head] = {run: m.value for run, m in finding.defined.items()}
                    bounds += sorted((run[0], f"{METHOD_NAMES.get(method, method)}: {m.note}") for run, m in finding.runs.items()
                                     if head == "AIN" and m.note not in ("", "exact"))
            for run in contents.runs:
                kept = [r["kept"] for r in run.records if isinstance(r.get("kept"), (int, float))]
                if kept and run.base == base and (run.method, "A_r") in values:
                    values.setdefault((run.method, "samples"), {})[run.forget, run.seed] = sum(kept) / len(kept)
            blocks.append(Block(dataset, arch, base, values, beside, reasons, bounds))
    return blocks


def _row_values(rows: list[Row]) -> dict[tuple[str, str], dict[RunKey, float]]:
    """Accuracies by (method, head), A_r* from the best-on-test rows. Original and DFKD get the accuracy on all classes twice."""
    values: dict[tuple[str, str], dict[RunKey, Any]] = {}
    for r in rows:
        star = "*" if r["selection"] == BEST_TEST else ""
        whole = r["method"] in ("original", "dfkd")
        for head, name in (*_FIELDS.items(), ("A_f class", "acc_forget"), ("A_r class", "acc_retain")):
            value = r.get("acc_overall" if whole and "class" not in head else name)
            if isinstance(value, (int, float)):
                values.setdefault((r["method"], head + star), {})[r["forget"], r["seed"]] = value
    return values


def _table1(block: Block, sets: list[str]) -> Table:
    heads = ["A_f", "A_r", "A_r*", "MIA-I", "MIA-II", "AIN"]
    heads = [h for h in heads if any((m, h) in block.values for m in block.methods)]
    lines, compared = _lines(block, [m for m in block.methods if m not in ("pd", "pd_is")], heads, sets, 1)
    notes = ("Original and DFKD show the accuracy on all classes in both columns, as the paper does.",)
    bounds = dict.fromkeys(said for forget, said in block.bounds if forget in sets)
    notes += (f"AIN is a bound or undefined where a model did not relearn in time ({'; '.join(bounds)}).",) if bounds else ()
    which = f"forgetting class {sets[0]}" if len(sets) == 1 else f"mean over {len(sets)} classes, one forgotten at a time"
    return _table(f"Table 1: {block.title}, {which}", heads, lines, block.notes(compared) + notes)


def _accuracies(block: Block, number: int, words: str, sets: list[str], kind: str = "single") -> Table:
    """Tables 2 and 7: A_f and A_r."""
    heads = [h for h in ("A_f", "A_r", "A_r*") if any((m, h) in block.values for m in block.methods)]
    lines, compared = _lines(block, block.methods, heads, sets, number, kind)
    return _table(f"Table {number}: {block.title}, {words}", heads, lines, block.notes(compared))


def _table6(block: Block, sets: list[str]) -> Table:
    """Mean number of distilled samples per step, and A_r, of every set of several classes."""
    columns, any_compared = [Column("method", words=True)], False
    lines = {m: [Cell(METHOD_NAMES.get(m, m))] for m in block.methods if (m, "samples") in block.values}
    for forget in sets:
        ids = frozenset(forget_order(forget))
        kind = "shared" if ids == paper.SHARED else "distributed" if ids == paper.DISTRIBUTED else ""
        for method, cells in lines.items():
            part, compared = _line(block, method, ["samples", "A_r"], [forget], 6, kind)
            cells += part[1:]
            any_compared |= compared
        columns += [Column(head, group=kind.capitalize() or f"classes {forget}") for head in ("#Sample", "A_r")]
    notes = block.notes(any_compared)
    if any(frozenset(forget_order(f)) == paper.DISTRIBUTED for f in sets):
        notes += ("The public text does not say which classes the paper's Distributed set has; this one is a stand-in.",)
    return Table(f"Table 6: {block.title}, samples per step that the student learns from", tuple(columns),
                 tuple(map(tuple, lines.values())), notes)


def _table8(block: Block, sets: list[str]) -> Table:
    methods = [m for m in ("pd", "pd_is", "pf", "ispf", "retrain") if (m, "A_r") in block.values]
    heads = [h for h in ("A_r", "A_r*", "MIA-II") if any((m, h) in block.values for m in methods)]
    lines, compared = _lines(block, methods, heads, sets, 8)
    return _table(f"Table 8: {block.title}, PostFilter or zeroed probabilities", heads, lines, block.notes(compared))


def _table9(block: Block, sets: list[str], wide: int = 10) -> list[Table]:
    """A_r and, below it, A_f of every forgotten class; ten classes to a table."""
    tables = []
    methods = [m for m in block.methods if m not in ("dfkd", "original", "masked_head", "retrained_head", "retrain")]
    for start in range(0, len(sets), wide):
        part, lines, compared = sets[start : start + wide], [], False
        for method in methods:
            for head in ("A_r", "A_f"):
                cells = [Cell(METHOD_NAMES.get(method, method) if head == "A_r" else ""), Cell(head)]
                for forget in part:
                    theirs = paper.printed_class(block.beside, block.arch, method, head, int(forget))
                    compared |= theirs is not None
                    cells.append(_cell(block.over(method, f"{head} class", [forget]), theirs, head))
                lines.append(tuple(cells))
        columns = (Column("method", words=True), Column("", words=True), *(Column(forget, group="forgotten class") for forget in part))
        tables.append(Table(f"Table 9: {block.title}, class by class", columns, tuple(lines), block.notes(compared)))
    return tables


def _lines(block: Block, methods, heads, sets, number: int, kind: str = "single") -> tuple[list[tuple[Cell, ...]], bool]:
    """Lines of the methods that have any of the numbers, and whether a line holds a number of the paper."""
    found = [_line(block, m, heads, sets, number, kind) for m in methods if any(block.over(m, head, sets) for head in heads)]
    return [line for line, _ in found], any(compared for _, compared in found)


def _line(block: Block, method: str, heads, sets, number: int, kind: str) -> tuple[tuple[Cell, ...], bool]:
    """One line; A_r* is compared with the paper where it exists, as the paper selects by it, else A_r.

    A number that is over fewer runs than the line says so.
    """
    runs = {head: [run for run in block.values.get((method, head), {}) if run[0] in sets] for head in heads}
    every = set().union(*runs.values())
    cells, compared = [Cell(METHOD_NAMES.get(method, method), count(every) if every else "")], False
    for head in heads:
        ours = block.over(method, head, sets)
        starred = head == "A_r" and "A_r*" in heads and block.over(method, "A_r*", sets)
        theirs = None if starred or (head == "A_r*" and ours is None) else _printed(number, block, method, head.rstrip("*"), kind)
        compared |= theirs is not None
        fewer = f"{len(runs[head])} of {len(every)} runs" if 0 < len(runs[head]) < len(every) else ""
        cells.append(_cell(ours, theirs, head, fewer))
    return tuple(cells), compared


def _printed(number: int, block: Block, method: str, head: str, kind: str) -> paper.Printed | None:
    """The paper's number; table 8 prints PF, ISPF and Retrain as table 1 does."""
    table = 1 if number == 8 and method in ("pf", "ispf", "retrain") else number
    return paper.printed(table, block.beside, block.arch, method, head, kind)


def _cell(ours: Average | None, theirs: paper.Printed | None, head: str, fewer: str = "") -> Cell:
    text = "-" if ours is None else f"{ours.mean:.2f}" + (f" +/- {ours.std:.2f}" if ours.std == ours.std else "")
    if theirs is None:
        return Cell(text, fewer)
    if ours is None:
        return Cell(text, f"paper {theirs.text()}")
    difference = ours.mean - theirs.mean
    near = abs(difference) <= NEAR.get(head, 1.0)
    return Cell(text, f"paper {theirs.text()}, {difference:+.2f}" + (f", {fewer}" if fewer else ""), "near" if near else "above" if difference > 0 else "below")


def _table(title: str, heads: list[str], lines: list[tuple[Cell, ...]], notes: tuple[str, ...]) -> Table:
    small = {"samples": "of the batch", "AIN": "1 is like retraining", "MIA-II": "F1 x 100"}
    columns = (Column("method", small="sets x seeds", words=True), *(Column(h, small=small.get(h, "%")) for h in heads))
    return Table(title, columns, tuple(lines), notes + ((_STAR,) if "A_r*" in heads else ()))
