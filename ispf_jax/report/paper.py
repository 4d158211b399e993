"""The paper's tables 1, 2, 6, 7, 8 and 9 in their layout for whatever was run, with the paper's numbers in small print.

`paper.csv` holds the numbers that the paper prints (arXiv 2412.13790), one per line; "sets" is "single", "multi",
"shared", "distributed" or (table 9) the forgotten class. A standard deviation is the population one over the authors'
trials; MIA and AIN are printed without. Original and DFKD rows of tables 1 and 2 print the accuracy on the whole test set
as both A_f and A_r. Rows of table 8 that table 1 has too (PF, ISPF, Retrain) stand in table 1 only.
"""

import importlib
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import PurePath
from types import ModuleType
from typing import Any

from ispf_jax.report.averages import Average, average, count
from ispf_jax.report.names import TEXTS, read_table, shown
from ispf_jax.report.results import by_setting
from ispf_jax.report.tables import Cell, Column, Table, make_table
from ispf_jax.report.workdir import Contents
from ispf_jax.runtime.rows import BEST_TEST, REFERENCES, Row, RunKey, forget_order, method_order

NEAR = {"AIN": 0.1, "samples": 5.0}
"""A difference to the paper up to this (else one percentage point) is marked as near."""

Values = dict[tuple[str, str], dict[RunKey, float]]
"""{(method, head of the column): {run: value}}."""

_DATASETS = ("cifar100", "cifar10", "svhn")
_TITLES = {"svhn": "SVHN", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "allcnn": "AllCNN", "resnet18": "ResNet18"}
_ACCURACIES = ("A_f", "A_r", "A_f*", "A_r*")
_AUDITED = {"mia1": "MIA-I", "mia2": "MIA-II", "ain": "AIN"}
_SMALL = {"samples": "of the batch", "AIN": "1 is like retraining", "MIA-II": "F1 x 100"}
_TEN = {str(number) for number in range(10)}

_TEXTS = TEXTS["paper"]
_COMPARED = ("model.", "generator.", "train.", "distill.", "evaluate.every", "data.mean", "data.std")
_COMPARED += ("data.image_size", "data.channels", "data.max_train", "data.max_test", "data.val_fraction")
"""The keys, or beginnings of keys, that change what a run computes."""

_EITHER = ("model.name", "train.augment_validation", "distill.thresholded_post_filter")
"""Not compared: the network is a column of the tables; of the others one value is the paper's, one its program's."""


def counterpart(dataset: str, arch: str, config: dict[str, Any], note: str = "") -> tuple[str | None, list[str]]:
    """The paper's data set that a run is compared with, and why the two are not comparable, in words (empty: they are).

    Reasons are the note on the data, and every key of the flat configuration with another value than in the paper. An
    image folder whose name says svhn, cifar10 or cifar100 is compared with it, though never called comparable: such
    folders usually hold JPEG copies.
    """
    name, reasons = dataset.lower(), [note] if note else []
    if name not in _DATASETS:
        path = PurePath(str(config.get("data.path") or "")).name
        word = path.lower().replace("-", "").replace("_", "")
        name = next((known for known in _DATASETS if known in word), None)
        reasons = [_TEXTS["folder"].format(path), *reasons]
    return (name, reasons + _differences(name, arch, config)) if name else (None, [])


def paper_tables(contents: Contents) -> list[Table]:
    """All tables that the runs of a work directory fill at least partly."""
    tables = []
    for block in _blocks(contents):
        singles, multis = ([s for s in block.sets if ("," in s) == several] for several in (False, True))
        if block.base == "zskt":
            tables += [_table(block, 7, "ZSKT base", _ACCURACIES, singles)] if singles else []
            continue
        if singles and block.beside != "cifar100":
            tables.append(_table1(block, singles))
        if multis or block.beside == "cifar100":
            distributed = [s for s in multis if _kind(s) == "distributed"]
            others = [s for s in multis if s not in distributed]
            kinds = {"single": ("single classes", singles), "multi": ("ten classes at once, distributed", distributed)}
            kinds[""] = "several classes at once", others
            tables += [_table(block, 2, title, _ACCURACIES, of, kind) for kind, (title, of) in kinds.items() if of]
        if multis and any(head == "samples" for _, head in block.values):
            tables.append(_table6(block, multis))
        if {"pd", "pd_is"} & set(block.methods):
            tables.append(_table8(block, singles or multis))
        if len(singles) > 1:
            tables += [_table9(block, singles[i : i + 10]) for i in range(0, len(singles), 10)]
    return tables


@dataclass(frozen=True)
class Block:
    """All runs of one data set and network with one base, and the paper's data set to compare them with.

    Attributes:
      beside, reasons: see `counterpart`.
      bounds: (forget set, why its AIN is not an exact number).
    """

    dataset: str
    arch: str
    base: str
    values: Values
    bounds: list[tuple[str, str]]
    beside: str | None
    reasons: list[str]

    @property
    def title(self) -> str:
        names = f"{_TITLES.get(self.dataset, self.dataset)}, {_TITLES.get(self.arch, self.arch)}"
        return names + (f" ({self.base})" if self.base else "")

    @property
    def sets(self) -> list[str]:
        return sorted({forget for runs in self.values.values() for forget, _ in runs}, key=forget_order)

    @property
    def methods(self) -> list[str]:
        return sorted({method for method, _ in self.values}, key=method_order)

    def runs(self, method: str, head: str, sets: list[str]) -> dict[RunKey, float]:
        return {run: value for run, value in self.values.get((method, head), {}).items() if run[0] in sets}

    def printed(self, table: int, method: str, head: str, sets: str = "single") -> Average | None:
        """The paper's number, None if it prints none."""
        return printed().get((str(table), self.beside, self.arch, sets, method, head))

    def notes(self, table_rows: list[list[Cell]]) -> list[str]:
        """How to read a table next to the paper."""
        if not _compared(table_rows):
            return [f"The paper has no numbers for {self.title}{', forgetting these classes' if self.beside else ''}."]
        return [_TEXTS["print"]] + (["Not comparable: " + "; ".join(self.reasons) + "."] if self.reasons else [])


@cache
def printed() -> dict[tuple[str, ...], Average]:
    """The paper's numbers by (table, dataset, arch, sets, method, metric)."""
    lines = [list(line.values()) for line in read_table("paper.csv")]
    return {tuple(key): Average(float(mean), float(std or "nan")) for *key, mean, std in lines}


def _blocks(contents: Contents) -> list[Block]:
    """All blocks of a work directory, by data set, network and base."""
    found = []
    for (dataset, arch), rows in by_setting(contents.rows).items():
        beside = counterpart(dataset, arch, contents.config, contents.data_note)
        for base in sorted({row.of_base for row in rows if row.method not in REFERENCES}) or [""]:
            values, bounds = _accuracies([row for row in rows if row.of_base in ("", base)]), []
            for m in contents.verdicts[dataset, arch].measurements:
                method, _, of = m.model.partition("/")
                if m.metric in _AUDITED and of in ("", base):
                    if m.value is not None:
                        values[method, _AUDITED[m.metric]][m.run] = m.value
                    if m.metric == "ain" and m.note not in ("", "exact"):
                        bounds.append((m.forget, f"{shown(method).name}: {m.note}"))
            for run in contents.runs:
                kept = run.series("kept")
                if len(kept) and run.base == base and (run.method, "A_r") in values:
                    values[run.method, "samples"][run.forget, run.seed] = kept.mean()
            values = {key: runs for key, runs in values.items() if runs}
            found.append(Block(dataset, arch, base, values, bounds, *beside))
    return found


def _accuracies(rows: list[Row]) -> Values:
    """A_f* and A_r* are from the best-on-test rows; original and DFKD get the accuracy on all classes twice."""
    values = defaultdict(dict)
    for row in rows:
        star = "*" if row.selection == BEST_TEST else ""
        both = (
            (row.acc_overall, row.acc_overall)
            if row.method in ("original", "dfkd")
            else (row.acc_forget, row.acc_retain)
        )
        for head, value in zip(("A_f", "A_r"), both):
            if value is not None:
                values[row.method, head + star][row.run] = value
    return values


def _table1(block: Block, sets: list[str]) -> Table:
    bounds = dict.fromkeys(text for forget, text in block.bounds if forget in sets)
    notes = (
        [f"AIN is a bound or undefined where a model did not relearn in time ({'; '.join(bounds)})."] if bounds else []
    )
    which = (
        f"forgetting class {sets[0]}" if len(sets) == 1 else f"mean over {len(sets)} classes, one forgotten at a time"
    )
    methods = [method for method in block.methods if method not in ("pd", "pd_is")]
    return _table(
        block, 1, which, (*_ACCURACIES, *_AUDITED.values()), sets, methods=methods, notes=[_TEXTS["whole"], *notes]
    )


def _table8(block: Block, sets: list[str]) -> Table:
    methods = [m for m in ("pd", "pd_is", "pf", "ispf", "retrain") if (m, "A_r") in block.values]
    return _table(block, 8, "PostFilter or zeroed probabilities", ("A_r", "A_r*", "MIA-II"), sets, methods=methods)


def _table(
    block: Block, number: int, title: str, heads, sets: list[str], kind="single", methods=None, notes=()
) -> Table:
    """A line per method with the means over the forget sets."""
    heads = _present(block, heads)
    methods = [m for m in methods or block.methods if any(block.runs(m, head, sets) for head in heads)]
    lines = [_line(block, number, m, heads, sets, kind) for m in methods]
    fewer = not all(_whole({*block.runs(m, "A_r", sets), *block.runs(m, "A_r*", sets)}) for m in methods)
    about = (
        {"single": [_TEXTS["single"]], "multi": [_TEXTS["multi"]]}.get(kind, [])
        if number == 2
        else [_TEXTS["fewer"]] * fewer
    )
    notes = [*block.notes(lines), *(about if _compared(lines) else []), *notes]
    columns = [
        Column("method", small="sets x seeds", words=True),
        *(Column(h, small=_SMALL.get(h, "%")) for h in heads),
    ]
    return make_table(f"Table {number}: {block.title}, {title}", columns, lines, [*notes, *_star(heads)])


def _table6(block: Block, sets: list[str]) -> Table:
    """Mean number of distilled samples per step, and A_r, of every set of several classes."""
    heads = _present(block, ("samples", "A_r", "A_r*"))
    columns, lines = [Column("method", words=True)], []
    for method in (m for m in block.methods if (m, "samples") in block.values):
        of_sets = [_line(block, 6, method, heads, [s], _kind(s)) for s in sets]
        lines.append([Cell(shown(method).name), *(cell for line in of_sets for cell in line[1:])])
    for forget in sets:
        group = _kind(forget).capitalize() or f"classes {forget}"
        columns += [Column("#Sample" if head == "samples" else head, group) for head in heads]
    notes = [*block.notes(lines), *_star(heads), *[_TEXTS["multi"]] * any(_kind(s) == "distributed" for s in sets)]
    return make_table(f"Table 6: {block.title}, samples per step that the student learns from", columns, lines, notes)


def _table9(block: Block, sets: list[str]) -> Table:
    """A_r and, below it, A_f of every forgotten class."""
    lines = []
    for method in (m for m in block.methods if m not in (*REFERENCES, "dfkd")):
        for i, head in enumerate(h for h in ("A_r", "A_f", "A_r*", "A_f*") if block.runs(method, h, sets)):
            cells = [_line(block, 9, method, [head], [forget], forget)[1] for forget in sets]
            lines.append([Cell("" if i else shown(method).name), Cell(head), *cells])
    columns = [Column("method", words=True), Column("", words=True), *(Column(s, "forgotten class") for s in sets)]
    notes = [*block.notes(lines), *_star([line[1].text for line in lines])]
    return make_table(f"Table 9: {block.title}, class by class", columns, lines, notes)


def _line(block: Block, number: int, method: str, heads: list[str], sets: list[str], kind: str) -> list[Cell]:
    """The cells of one method; one that is over fewer runs than the line says so."""
    runs = {head: block.runs(method, head, sets) for head in heads}
    every = set().union(*runs.values())
    cells = [Cell(shown(method).name, count(every) if every else "")]
    for head, mine in runs.items():
        theirs, plain = None, head.rstrip("*")
        if head.endswith("*") == bool(block.runs(method, plain + "*", sets)):  # the paper's epoch, where it was kept
            theirs = _theirs(block, number, method, plain, kind, set(mine) or every)
        fewer = f"{len(mine)} of {len(every)} runs" if 0 < len(mine) < len(every) else ""
        cells.append(_cell(average(mine), theirs, head, fewer))
    return cells


def _theirs(block: Block, number: int, method: str, head: str, kind: str, runs: set[RunKey]) -> Average | None:
    """The paper's number over the same classes as `runs`; table 8 prints PF, ISPF and Retrain as table 1 does.

    Ten classes are averaged in tables 1, 7 and 8; of fewer, table 9 has A_f and A_r. Original and DFKD do not depend on
    the class.
    """
    table = 1 if number == 8 and method in ("pf", "ispf", "retrain") else number
    if table in (2, 6, 9) or _whole(runs) or (method in ("original", "dfkd") and head in ("A_f", "A_r")):
        return block.printed(table, method, head, kind)
    theirs = {run: block.printed(9, method, head, run[0]) for run in runs}
    if table != 1 or None in theirs.values():
        return None
    classes = {forget for forget, _ in runs}
    return (
        next(iter(theirs.values()))
        if len(classes) == 1
        else Average(average({r: a.mean for r, a in theirs.items()}).mean)
    )


def _cell(ours: Average | None, theirs: Average | None, head: str, fewer: str) -> Cell:
    text = ours.text() if ours else "-"
    if not ours or not theirs:
        return Cell(text, f"paper {theirs.text()}" if theirs else fewer)
    difference = ours.mean - theirs.mean
    mark = "near" if abs(difference) <= NEAR.get(head, 1.0) else "above" if difference > 0 else "below"
    return Cell(text, ", ".join(filter(None, (f"paper {theirs.text()}", f"{difference:+.2f}", fewer))), mark)


def _present(block: Block, heads: tuple[str, ...]) -> list[str]:
    return [head for head in heads if any(head == known for _, known in block.values)]


def _star(heads: list[str]) -> list[str]:
    return [_TEXTS["star"]] if "A_r*" in heads else []


def _compared(lines: list[list[Cell]]) -> bool:
    return any(cell.small.startswith("paper ") for line in lines for cell in line)


def _whole(runs: set[RunKey]) -> bool:
    """Whether every seed forgot each of ten classes by itself."""
    return {forget for forget, _ in runs} == _TEN and len(runs) == 10 * len({seed for _, seed in runs})


def _kind(forget: str) -> str:
    """ "shared" or "distributed" for the paper's sets of ten classes of CIFAR-100, else empty."""
    configuration = _configuration("cifar100_multi")
    sets = configuration.SETS if configuration else {}
    return next((name for name, ids in sets.items() if set(forget_order(ids)) == set(forget_order(forget))), "")


def _differences(dataset: str, arch: str, config: dict[str, Any]) -> list[str]:
    """ "distill.epochs=2 (paper: 100)" for every key with another value than in the configuration of the paper's runs."""
    if not any(key[1:3] == (dataset, arch) for key in printed()):
        return []
    if not (configuration := _configuration(dataset)):
        return [_TEXTS["no_settings"]]
    theirs = _flat(configuration.get_config(arch).to_dict())
    same = {  # 0 is a default of ours; the paper's text, unlike its program, has no warm-up
        "data.image_size": [32],
        "data.channels": [3],
        "distill.warmup_epochs": [0],
        "distill.threshold": [0.1 / theirs["data.classes"]],
        "distill.cosine_epochs": [0] if theirs["distill.cosine_epochs"] == theirs["distill.epochs"] else [],
    }
    found = []
    for key in sorted(config.keys() & theirs.keys()):
        values = [_plain(value) for value in (theirs[key], *same.get(key, []))]
        if key.startswith(_COMPARED) and key not in _EITHER and _plain(config[key]) not in values:
            paper = "all images" if key.startswith("data.max") else _text(values[0])
            found.append(f"{key}={_text(_plain(config[key]))} (paper: {paper})")
    return found


@cache
def _configuration(name: str) -> ModuleType | None:
    """The configuration of the paper's runs on a data set."""
    try:
        return importlib.import_module(f"configs.{name}_ispf")
    except ImportError:
        return None


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in config.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _plain(value: Any) -> tuple:
    """A value of a configuration, which may be a list or its text, for comparison; one number for equal ones."""
    parts = value if isinstance(value, (list, tuple)) else str(value).split(",")
    try:
        numbers = tuple(map(float, filter(lambda part: part != "", parts)))
        return numbers[:1] if len(set(numbers)) == 1 else numbers
    except ValueError:
        return tuple(map(str, parts))


def _text(values: tuple) -> str:
    return ",".join(f"{value:g}" if isinstance(value, float) else value for value in values) or "none"
