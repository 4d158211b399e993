"""The paper's tables 1, 2, 6, 7, 8 and 9 in their layout for whatever was run, with the paper's numbers in small print.

`paper.csv` holds the numbers that the paper prints (arXiv 2412.13790), one per line; "sets" is "single", "multi",
"shared", "distributed" or (table 9) the forgotten class. A standard deviation is the population one over the authors'
trials; MIA and AIN are printed without. Original and DFKD rows of tables 1 and 2 print the accuracy on the whole test
set as both A_f and A_r.
"""

import csv
import runpy
from collections import defaultdict
from dataclasses import dataclass
from functools import cache, reduce
from pathlib import PurePath
from typing import Any

from ispf_jax.report.names import TEXTS, read_text, shown
from ispf_jax.report.results import Average, average, by_setting, count
from ispf_jax.report.tables import MISSING, Cell, Column, Table, make_table
from ispf_jax.report.workdir import Contents
from ispf_jax.runtime.rows import BEST_TEST, REFERENCES, Row, RunKey, forget_order, method_order

_TEXTS = TEXTS["paper"]
_ACCURACIES = ("A_f", "A_r", "A_f*", "A_r*")
_AUDITED = _TEXTS["audited"]
_BOUNDS = ("at least", "at most", "undefined")
_DATASETS = ("cifar100", "cifar10", "svhn")

_COMPARED = ("model.", "generator.", "train.", "distill.", "evaluate.every", "data.mean", "data.std")
_COMPARED += ("data.image_size", "data.channels", "data.max_train", "data.max_test", "data.val_fraction")
"""The keys, or beginnings of keys, that change what a run computes."""

_EITHER = ("model.name", "train.augment_validation", "distill.thresholded_post_filter")
"""Not compared: the network is a column of the tables; of the others one value is the paper's, one its program's."""


@dataclass(frozen=True)
class Block:
    """All runs of one data set and network with one base, and the paper's data set to compare them with.

    Attributes:
      values: {(method, head of the column): {run: value}}.
      bounds: {forget set: why its AIN is not an exact number}.
      paper_dataset, reasons: see `counterpart`.
    """

    dataset: str
    arch: str
    base: str
    values: dict[tuple[str, str], dict[RunKey, float]]
    bounds: dict[str, list[str]]
    paper_dataset: str | None
    reasons: list[str]

    @property
    def sets(self) -> list[str]:
        return sorted({forget for runs in self.values.values() for forget, _ in runs}, key=forget_order)

    @property
    def methods(self) -> list[str]:
        return sorted({method for method, _ in self.values}, key=method_order)

    def runs(self, method: str, head: str, sets: list[str]) -> dict[RunKey, float]:
        return {run: value for run, value in self.values.get((method, head), {}).items() if run[0] in sets}


@cache
def printed() -> dict[tuple[str, ...], Average]:
    """The paper's numbers by (table, dataset, arch, sets, method, metric)."""
    _, *lines = csv.reader(read_text("paper.csv").splitlines())
    return {tuple(key): Average(float(mean), float(std or "nan")) for *key, mean, std in lines}


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
    return [table for block in _blocks(contents) for table in _tables(block) if table.rows]


def _blocks(contents: Contents) -> list[Block]:
    """All blocks of a work directory, by data set, network and base."""
    found = []
    for (dataset, arch), rows in by_setting(contents.rows).items():
        compared = counterpart(dataset, arch, contents.config, contents.data_note)
        for base in sorted({row.of_base for row in rows} - {""}) or [""]:
            values, bounds = _accuracies([row for row in rows if row.of_base in ("", base)]), defaultdict(list)
            for m in contents.verdicts[dataset, arch].measurements:
                method, _, of = m.model.partition("/")
                if m.metric in _AUDITED and of in ("", base):
                    values[method, _AUDITED[m.metric]] |= {} if m.value is None else {m.run: m.value}
                    if m.metric == "ain" and (bound := [word for word in _BOUNDS if word in m.note]):
                        bounds[m.forget].append(f"{shown(method).name}: {' or '.join(bound)}")
            for run in contents.runs:
                kept = run.series("kept")
                if len(kept) and run.base == base and (run.method, "A_r") in values:
                    values[run.method, "#Sample"][run.forget, run.seed] = kept.mean()
            found.append(Block(dataset, arch, base, values, bounds, *compared))
    return found


def _accuracies(rows: list[Row]) -> dict[tuple[str, str], dict[RunKey, float]]:
    """A_f* and A_r* are from the best-on-test rows; original and DFKD get the accuracy on all classes twice."""
    values = defaultdict(dict)
    for row in rows:
        star, whole = "*" if row.selection == BEST_TEST else "", row.method in ("original", "dfkd")
        for head, value in (("A_f", row.acc_forget), ("A_r", row.acc_retain)):
            value = row.acc_overall if whole else value
            values[row.method, head + star] |= {} if value is None else {row.run: value}
    return values


def _tables(block: Block) -> list[Table]:
    singles, multis = ([s for s in block.sets if ("," in s) == several] for several in (False, True))
    if block.base == "zskt":
        return [_table(block, 7, "ZSKT base", _ACCURACIES, singles)] if singles else []
    tables, ours = [], [method for method in block.methods if method not in ("pd", "pd_is")]
    if singles and block.paper_dataset != "cifar100":
        several = f"mean over {len(singles)} classes, one forgotten at a time"
        title = several if len(singles) > 1 else f"forgetting class {singles[0]}"
        tables.append(_table(block, 1, title, (*_ACCURACIES, *_AUDITED.values()), singles, methods=ours))
    if multis or block.paper_dataset == "cifar100":
        distributed = [s for s in multis if _kind(s) == "distributed"]
        others = [s for s in multis if s not in distributed]
        for kind, sets in (("single", singles), ("multi", distributed), ("", others)):
            title = _TEXTS["table2"][kind or "others"]
            tables += [_table(block, 2, title, _ACCURACIES, sets, kind)] if sets else []
    if multis and any(head == "#Sample" for _, head in block.values):
        tables.append(_table6(block, multis))
    if len(ours) < len(block.methods):
        methods, title = ("pd", "pd_is", "pf", "ispf", "retrain"), "PostFilter or zeroed probabilities"
        tables.append(_table(block, 8, title, ("A_r", "A_r*", "MIA-II"), singles or multis, methods=methods))
    tens = range(0, len(singles), 10) if len(singles) > 1 else ()
    return tables + [_table9(block, singles[i : i + 10]) for i in tens]


def _table(block: Block, number: int, title: str, heads, sets: list[str], kind="single", methods=()) -> Table:
    """A line per method with the means over the forget sets."""
    heads = _present(block, heads)
    wanted, lines, runs = [(head, sets, kind) for head in heads], [], []
    for method in methods or block.methods:
        if every := {run for head in heads for run in block.runs(method, head, sets)}:
            lines.append([Cell(shown(method).name, count(every)), *_cells(block, number, method, wanted)])
            runs.append({*block.runs(method, "A_r", sets), *block.runs(method, "A_r*", sets)})
    notes = [_TEXTS["fewer"]] * (not all(map(_whole, filter(None, runs))))
    bounds = dict.fromkeys(text for forget in sets for text in block.bounds[forget])
    about = [_TEXTS["whole"], bounds and _TEXTS["bounds"].format("; ".join(bounds))] * (number == 1)
    columns = [Column("method", "", "sets x seeds", words=True)]
    columns += [Column(head, "", _TEXTS["small"].get(head, "%")) for head in heads]
    notes = [kind and _TEXTS[kind]] if number == 2 else notes
    return _noted(block, f"Table {number}: {{}}, {title}", columns, lines, notes, about)


def _table6(block: Block, sets: list[str]) -> Table:
    """Mean number of distilled samples per step, and A_r, of every set of several classes."""
    wanted = [
        (head, [forget], _kind(forget)) for forget in sets for head in _present(block, ("#Sample", "A_r", "A_r*"))
    ]
    methods = [method for method in block.methods if (method, "#Sample") in block.values]
    lines = [[Cell(shown(method).name), *_cells(block, 6, method, wanted)] for method in methods]
    heads = [Column(head, kind.capitalize() or f"classes {forget}") for head, (forget,), kind in wanted]
    notes = [_TEXTS["multi"]] * any(kind == "distributed" for _, _, kind in wanted)
    title = "Table 6: {}, samples per step that the student learns from"
    return _noted(block, title, [Column("method", words=True), *heads], lines, (), notes)


def _table9(block: Block, sets: list[str]) -> Table:
    """A_r and, below it, A_f of every forgotten class."""
    lines = []
    for method in (m for m in block.methods if m not in (*REFERENCES, "dfkd")):
        for i, head in enumerate(h for h in ("A_r", "A_f", "A_r*", "A_f*") if block.runs(method, h, sets)):
            cells = _cells(block, 9, method, [(head, [forget], forget) for forget in sets])
            lines.append([Cell("" if i else shown(method).name), Cell(head), *cells])
    columns = [Column("method", words=True), Column("", words=True), *(Column(s, "forgotten class") for s in sets)]
    return _noted(block, "Table 9: {}, class by class", columns, lines)


def _noted(block: Block, title: str, columns: list[Column], lines: list[list[Cell]], compared=(), always=()) -> Table:
    """A table with the notes on how to read it next to the paper; `compared` are those for numbers of the paper."""
    name = ", ".join(_TEXTS["titles"].get(name, name) for name in (block.dataset, block.arch))
    name += f" ({block.base})" if block.base else ""
    notes = [f"The paper has no numbers for {name}{', forgetting these classes' if block.paper_dataset else ''}."]
    if any(cell.small.startswith("paper ") for line in lines for cell in line):
        reasons = block.reasons and "Not comparable: " + "; ".join(block.reasons) + "."
        notes = [_TEXTS["print"], reasons, *compared]
    starred = any("A_r*" in words for words in ([c.label for c in columns], [line[1].text for line in lines]))
    return make_table(title.format(name), columns, lines, [*notes, *always, starred and _TEXTS["star"]])


def _cells(block: Block, number: int, method: str, wanted: list[tuple[str, list[str], str]]) -> list[Cell]:
    """A method's cell for every (head, forget sets, kind of sets); one that is over fewer runs than others says so."""
    cells = []
    for head, sets, kind in wanted:
        every = {run for other, of, _ in wanted if of == sets for run in block.runs(method, other, sets)}
        mine, plain, theirs = block.runs(method, head, sets), head.rstrip("*"), None
        if head.endswith("*") == bool(block.runs(method, plain + "*", sets)):  # the paper's epoch, where it was kept
            theirs = _theirs(block, number, method, plain, kind, set(mine) or every)
        ours, small, mark = average(mine), [f"paper {theirs.text()}"] if theirs else [], ""
        if ours and theirs:
            difference = ours.mean - theirs.mean
            small.append(f"{difference:+.2f}")
            near = abs(difference) <= _TEXTS["near"].get(head, 1.0)
            mark = "near" if near else "above" if difference > 0 else "below"
        small += [f"{len(mine)} of {len(every)} runs"] if 0 < len(mine) < len(every) else []
        cells.append(Cell(ours.text() if ours else MISSING, ", ".join(small), mark))
    return cells


def _theirs(block: Block, table: int, method: str, head: str, kind: str, runs: set[RunKey]) -> Average | None:
    """The paper's number over the same classes as `runs`.

    Ten classes are averaged in tables 1, 7 and 8; of fewer, table 9 has A_f and A_r. Original and DFKD do not depend on
    the class.
    """

    def number(table: int, sets: str) -> Average | None:
        return printed().get((str(table), block.paper_dataset, block.arch, sets, method, head))

    if table in (2, 6, 9) or _whole(runs) or (method in ("original", "dfkd") and head in ("A_f", "A_r")):
        return number(table, kind)
    theirs = {run: number(9, run[0]) for run in runs}
    if table == 7 or None in theirs.values():
        return None
    if len({forget for forget, _ in runs}) == 1:
        return next(iter(theirs.values()))
    return Average(average({run: one.mean for run, one in theirs.items()}).mean)


def _present(block: Block, heads: tuple[str, ...]) -> list[str]:
    return [head for head in heads if any(runs and head == known for (_, known), runs in block.values.items())]


def _whole(runs: set[RunKey]) -> bool:
    """Whether every seed forgot each of ten classes by itself."""
    sets, seeds = ({run[axis] for run in runs} for axis in (0, 1))
    return sets == set("0123456789") and len(runs) == 10 * len(seeds)


def _kind(forget: str) -> str:
    """ "shared" or "distributed" for the paper's sets of ten classes of CIFAR-100, else empty."""
    sets = _configuration("cifar100_multi")["SETS"]
    return next((name for name, ids in sets.items() if set(forget_order(ids)) == set(forget_order(forget))), "")


@cache
def _configuration(name: str) -> dict[str, Any]:
    """What the configuration of the paper's runs on a data set defines."""
    from ispf_jax.config import presets  # here, because it knows the networks and with them JAX

    return runpy.run_path(str(presets() / f"{name}_ispf.py"))


def _differences(dataset: str, arch: str, config: dict[str, Any]) -> list[str]:
    """ "distill.epochs=2 (paper: 100)" for every key with another value than in the paper's configuration."""
    if not any(key[1:3] == (dataset, arch) for key in printed()):
        return []
    paper, found = _configuration(dataset)["get_config"](arch), []  # where it has 0, a default, `same` has the value
    same = {"data.image_size": 32, "data.channels": 3, "distill.threshold": 0.1 / paper.data.classes}
    same["distill.warmup_epochs"] = 0  # the paper's text, unlike its program, has none
    same |= {"distill.cosine_epochs": 0} if paper.distill.cosine_epochs == paper.distill.epochs else {}
    for key in sorted(key for key in config if key.startswith(_COMPARED) and key not in _EITHER):
        theirs = reduce(lambda node, name: node.get(name), key.split("."), paper)
        if _plain(config[key]) not in (_plain(theirs), _plain(same.get(key, theirs))):
            text = "all images" if key.startswith("data.max") else _text(theirs or same.get(key, theirs))
            found.append(f"{key}={_text(config[key])} (paper: {text})")
    return found


def _plain(value: Any) -> tuple:
    """A value of a configuration, which may be a list or its text, for comparison; one number for equal ones."""
    parts = value if isinstance(value, (list, tuple)) else str(value).split(",")
    try:
        numbers = tuple(float(part) for part in parts if part != "")
        return numbers[:1] if len(set(numbers)) == 1 else numbers
    except ValueError:
        return tuple(map(str, parts))


def _text(value: Any) -> str:
    return ",".join(f"{part:g}" if isinstance(part, float) else part for part in _plain(value)) or "none"
