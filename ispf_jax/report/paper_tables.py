"""Tables 1, 2, 6, 7, 8 and 9 in the paper's layout for whatever was run, the paper's own numbers in small print below ours."""

from ispf_jax.report import paper
from ispf_jax.report.averages import Average, RunKey, average, count
from ispf_jax.report.blocks import Block, blocks
from ispf_jax.report.cells import Cell, Column, Table
from ispf_jax.report.names import METHOD_NAMES
from ispf_jax.report.workdir import Contents
from ispf_jax.runtime.rows import forget_order

NEAR = {"AIN": 0.1, "samples": 5.0}
"""A difference to the paper up to this (else one percentage point) is marked as near."""

_STAR = "A_f* and A_r* are of the epoch with the best A_r on the test images, as the paper selects; all other numbers are the last epoch's."
_STAND_IN = "The public text does not say which classes the paper's Distributed set has; this one is a stand-in."
_SINGLE = "The paper averages over three single classes, which its public text does not name; those forgotten here may be others."
_FEWER = (
    "Where fewer than all ten classes were forgotten, A_f and A_r stand beside the mean of the paper's table 9 over the same classes; what it "
    "prints as a mean over all ten only is not compared."
)
_TEN = {str(number) for number in range(10)}


def paper_tables(contents: Contents) -> list[Table]:
    """All tables that the runs of a work directory fill at least partly."""
    tables = []
    for block in blocks(contents):
        singles, multis = [s for s in block.sets if "," not in s], [s for s in block.sets if "," in s]
        if block.base == "zskt":
            tables += [_accuracies(block, 7, "ZSKT base", singles)] if singles else []
            continue
        if singles and block.beside != "cifar100":
            tables.append(_table1(block, singles))
        if multis or block.beside == "cifar100":
            distributed = [s for s in multis if frozenset(forget_order(s)) == paper.DISTRIBUTED]
            others = [s for s in multis if s not in distributed]
            tables += [
                _accuracies(block, 2, words, sets, kind)
                for kind, words, sets in (
                    ("single", "single classes", singles),
                    ("multi", "ten classes at once, distributed", distributed),
                    ("", "several classes at once", others),
                )
                if sets
            ]
        if multis and any((method, "samples") in block.values for method in block.methods):
            tables.append(_table6(block, multis))
        if any(method in ("pd", "pd_is") for method in block.methods):
            tables.append(_table8(block, singles or multis))
        if len(singles) > 1:
            tables += _table9(block, singles)
    return tables


def _table1(block: Block, sets: list[str]) -> Table:
    methods = [m for m in block.methods if m not in ("pd", "pd_is")]
    heads = _heads(block, ("A_f", "A_r", "A_f*", "A_r*", "MIA-I", "MIA-II", "AIN"))
    lines, compared = _lines(block, methods, heads, sets, 1)
    notes = ("Original and DFKD show the accuracy on all classes in both columns, as the paper does.",)
    bounds = dict.fromkeys(said for forget, said in block.bounds if forget in sets)
    notes += (
        (f"AIN is a bound or undefined where a model did not relearn in time ({'; '.join(bounds)}).",) if bounds else ()
    )
    which = (
        f"forgetting class {sets[0]}" if len(sets) == 1 else f"mean over {len(sets)} classes, one forgotten at a time"
    )
    return _table(
        f"Table 1: {block.title}, {which}",
        heads,
        lines,
        block.notes(compared) + _fewer(block, methods, sets, compared) + notes,
    )


def _accuracies(block: Block, number: int, words: str, sets: list[str], kind: str = "single") -> Table:
    """Tables 2 and 7: A_f and A_r."""
    heads = _heads(block, ("A_f", "A_r", "A_f*", "A_r*"))
    lines, compared = _lines(block, block.methods, heads, sets, number, kind)
    notes = (
        (
            {"single": (_SINGLE,), "multi": (_STAND_IN,)}[kind]
            if number == 2
            else _fewer(block, block.methods, sets, compared)
        )
        if compared
        else ()
    )
    return _table(f"Table {number}: {block.title}, {words}", heads, lines, block.notes(compared) + notes)


def _table6(block: Block, sets: list[str]) -> Table:
    """Mean number of distilled samples per step, and A_r, of every set of several classes."""
    columns, any_compared = [Column("method", words=True)], False
    heads = _heads(block, ("samples", "A_r", "A_r*"))
    lines = {m: [Cell(METHOD_NAMES.get(m, m))] for m in block.methods if (m, "samples") in block.values}
    for forget in sets:
        ids = frozenset(forget_order(forget))
        kind = "shared" if ids == paper.SHARED else "distributed" if ids == paper.DISTRIBUTED else ""
        for method, cells in lines.items():
            part, compared = _line(block, method, heads, [forget], 6, kind)
            cells += part[1:]
            any_compared |= compared
        columns += [
            Column({"samples": "#Sample"}.get(head, head), group=kind.capitalize() or f"classes {forget}")
            for head in heads
        ]
    notes = block.notes(any_compared) + ((_STAR,) if "A_r*" in heads else ())
    if any(frozenset(forget_order(f)) == paper.DISTRIBUTED for f in sets):
        notes += (_STAND_IN,)
    return Table(
        f"Table 6: {block.title}, samples per step that the student learns from",
        tuple(columns),
        tuple(map(tuple, lines.values())),
        notes,
    )


def _table8(block: Block, sets: list[str]) -> Table:
    methods = [m for m in ("pd", "pd_is", "pf", "ispf", "retrain") if (m, "A_r") in block.values]
    heads = _heads(block, ("A_r", "A_r*", "MIA-II"))
    lines, compared = _lines(block, methods, heads, sets, 8)
    notes = block.notes(compared) + _fewer(block, methods, sets, compared)
    return _table(f"Table 8: {block.title}, PostFilter or zeroed probabilities", heads, lines, notes)


def _table9(block: Block, sets: list[str], wide: int = 10) -> list[Table]:
    """A_r and, below it, A_f of every forgotten class; ten classes to a table."""
    tables = []
    methods = [m for m in block.methods if m not in ("dfkd", "original", "masked_head", "retrained_head", "retrain")]
    for start in range(0, len(sets), wide):
        part, lines, compared = sets[start : start + wide], [], False
        for method in methods:
            for i, head in enumerate(h for h in ("A_r", "A_f", "A_r*", "A_f*") if block.over(method, h, part)):
                cells = [Cell("" if i else METHOD_NAMES.get(method, method)), Cell(head)]
                for forget in part:
                    beside = _papers_epoch(block, method, head, [forget])
                    theirs = (
                        paper.printed_class(block.beside, block.arch, method, head.rstrip("*"), int(forget))
                        if beside
                        else None
                    )
                    compared |= theirs is not None
                    cells.append(_cell(block.over(method, head, [forget]), theirs, head))
                lines.append(tuple(cells))
        columns = (
            Column("method", words=True),
            Column("", words=True),
            *(Column(forget, group="forgotten class") for forget in part),
        )
        notes = block.notes(compared) + ((_STAR,) if any(cells[1].text == "A_r*" for cells in lines) else ())
        tables.append(Table(f"Table 9: {block.title}, class by class", columns, tuple(lines), notes))
    return tables


def _heads(block: Block, heads: tuple[str, ...]) -> list[str]:
    """Those that some method has a number for."""
    return [h for h in heads if any((m, h) in block.values for m in block.methods)]


def _lines(
    block: Block, methods, heads, sets, number: int, kind: str = "single"
) -> tuple[list[tuple[Cell, ...]], bool]:
    """Lines of the methods that have any of the numbers, and whether a line holds a number of the paper."""
    found = [
        _line(block, m, heads, sets, number, kind) for m in methods if any(block.over(m, head, sets) for head in heads)
    ]
    return [line for line, _ in found], any(compared for _, compared in found)


def _line(block: Block, method: str, heads, sets, number: int, kind: str) -> tuple[tuple[Cell, ...], bool]:
    """One line; a number that is over fewer runs than the line says so."""
    runs = {head: set(block.runs(method, head, sets)) for head in heads}
    every = set().union(*runs.values())
    cells, compared = [Cell(METHOD_NAMES.get(method, method), count(every) if every else "")], False
    for head in heads:
        theirs = (
            _printed(number, block, method, head.rstrip("*"), kind, runs[head] or every)
            if _papers_epoch(block, method, head, sets)
            else None
        )
        compared |= theirs is not None
        fewer = f"{len(runs[head])} of {len(every)} runs" if 0 < len(runs[head]) < len(every) else ""
        cells.append(_cell(block.over(method, head, sets), theirs, head, fewer))
    return tuple(cells), compared


def _papers_epoch(block: Block, method: str, head: str, sets) -> bool:
    """Whether a number is of the epoch that the paper prints, the best on test images, where that was kept; the last one elsewhere."""
    return head.endswith("*") == bool(block.runs(method, head.rstrip("*") + "*", sets))


def _printed(number: int, block: Block, method: str, head: str, kind: str, runs: set[RunKey]) -> paper.Printed | None:
    """The paper's number over the same classes as `runs`; table 8 prints PF, ISPF and Retrain as table 1 does.

    Ten classes are averaged in tables 1, 7 and 8; of fewer, table 9 has A_f and A_r. Original and DFKD do not depend on the class.
    """
    table = 1 if number == 8 and method in ("pf", "ispf", "retrain") else number
    if table in (2, 6) or _whole(runs) or (method in ("original", "dfkd") and head in ("A_f", "A_r")):
        return paper.printed(table, block.beside, block.arch, method, head, kind)
    theirs = {
        run: paper.printed_class(block.beside, block.arch, method, head, int(run[0]))
        for run in runs
        if run[0].isdecimal()
    }
    if table != 1 or len(theirs) < len(runs) or None in theirs.values():
        return None
    if len({forget for forget, _ in runs}) == 1:
        return next(iter(theirs.values()))
    return paper.Printed(average({run: one.mean for run, one in theirs.items()}).mean)


def _whole(runs) -> bool:
    """Whether every seed forgot each of ten classes by itself."""
    sets, seeds = ({run[axis] for run in runs} for axis in (0, 1))
    return sets == _TEN and len(runs) == len(sets) * len(seeds)


def _fewer(block: Block, methods, sets, compared: bool) -> tuple[str, ...]:
    """A note where a line is over fewer than the ten classes that the paper averages."""
    found = [runs for m in methods if (runs := {**block.runs(m, "A_r", sets), **block.runs(m, "A_r*", sets)})]
    return (_FEWER,) if compared and not all(map(_whole, found)) else ()


def _cell(ours: Average | None, theirs: paper.Printed | None, head: str, fewer: str = "") -> Cell:
    text = "-" if ours is None else f"{ours.mean:.2f}" + (f" +/- {ours.std:.2f}" if ours.std == ours.std else "")
    if theirs is None:
        return Cell(text, fewer)
    if ours is None:
        return Cell(text, f"paper {theirs.text()}")
    difference = ours.mean - theirs.mean
    near = abs(difference) <= NEAR.get(head, 1.0)
    return Cell(
        text,
        f"paper {theirs.text()}, {difference:+.2f}" + (f", {fewer}" if fewer else ""),
        "near" if near else "above" if difference > 0 else "below",
    )


def _table(title: str, heads: list[str], lines: list[tuple[Cell, ...]], notes: tuple[str, ...]) -> Table:
    small = {"samples": "of the batch", "AIN": "1 is like retraining", "MIA-II": "F1 x 100"}
    columns = (Column("method", small="sets x seeds", words=True), *(Column(h, small=small.get(h, "%")) for h in heads))
    return Table(title, columns, tuple(lines), notes + ((_STAR,) if "A_r*" in heads else ()))
