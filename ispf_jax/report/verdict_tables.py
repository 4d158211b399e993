"""The verdict as tables and sentences: method by metric for the first screen, all metrics below, places for the console."""

from collections import defaultdict
from dataclasses import replace
from statistics import median

from ispf_jax.report.names import TEXTS, metric, shown
from ispf_jax.report.results import count
from ispf_jax.report.tables import MISSING, Cell, Column, Place, Table, make_table
from ispf_jax.report.verdict import Finding, Verdict

_NOTES = TEXTS["notes"]
_GROUPS = {"residue": "what can be recovered", "paper": "the paper's"}


def verdict_table(verdict: Verdict, title: str) -> Table:
    """Method by metric: the metrics of the first screen, each with its place, after the range of all residue."""
    names = _one_per_family([name for name in verdict.metrics if metric(name).verdict])
    spans = {model: _span(verdict.residue(model)) for model in verdict.models}
    residue = [Column("Residue", small="median place, range")] if any(spans.values()) else []
    heads = [Column("", words=True), *residue]
    for name in names:
        label, kind = metric(name).label, metric(name).kind
        label = label.removeprefix("Accuracy, ").capitalize() if kind == "accuracy" else label
        heads.append(Column(label, _GROUPS.get(kind, kind), verdict.tier(name)))
    rows = [
        [
            Cell(verdict.name(model), shown(model).note),
            *([spans[model] or Cell()] if residue else []),
            *(_cell(verdict.findings.get((model, name))) for name in names),
        ]
        for model in verdict.models
    ]
    grids = {count(f.runs) for (_, name), f in verdict.findings.items() if name in names}
    spread = any(f.average.std == f.average.std for f in verdict.findings.values())
    notes = (
        [_NOTES["reading"]] * bool(residue) + [_NOTES["deviations"]] * spread + [_NOTES["uneven"]] * (len(grids) > 1)
    )
    return make_table(title, heads, rows, notes)


def places_table(verdict: Verdict) -> Table | None:
    """The verdict for a narrow console: places alone; None if nothing has a place."""
    table = verdict_table(verdict, "What is left: 0 = like the retrained model, 1 = like the original")
    chosen = [i for i in range(len(table.columns)) if any(cells[i].place for cells in table.rows)]
    heads = ["model", *(table.columns[i].label.lower() for i in chosen)]
    rows = [[cells[0].text, *(str(cells[i].place or MISSING) for i in chosen)] for cells in table.rows]
    unsure = any(text.endswith("?") for cells in rows for text in cells[1:])
    notes = ["? = the intervals of retrained and original overlap"] * unsure
    return make_table(table.title, heads, rows, notes, words=["model"]) if chosen else None


def full_table(verdict: Verdict, title: str) -> Table:
    """Every metric (rows) of every model (columns), with what it needed and what it asks."""
    rows = []
    for name in (name for name in verdict.metrics if metric(name).kind != "classes"):
        kind, found = metric(name), verdict.line(name)
        smalls = [f.small for f in found if f]
        shared = smalls[0] if len(smalls) > 1 and len(set(smalls)) == 1 else ""  # said once, in the second column
        cells = [_cell(f, unit=False) for f in found]
        cells = [replace(cell, small="") for cell in cells] if shared else cells
        label = kind.label + (f" [{kind.unit}]" if kind.unit else "")
        rows.append([Cell(label, kind.asks), Cell(verdict.tier(name) or MISSING, shared), *cells])
    heads = ["metric", "needed", *map(verdict.name, verdict.models)]
    return make_table(title, heads, rows, _notes(verdict), words=heads[:2])


def class_table(verdict: Verdict, title: str) -> Table | None:
    """Accuracy of every class (rows) of every model (columns) with its interval; None where no audit counted them."""
    rows = []
    for name in (name for name in verdict.metrics if metric(name).kind == "classes"):
        found = verdict.line(name)
        counts = sorted({m.n for f in found if f for m in f.runs.values()})
        cells = [Cell(f.text.removesuffix(" %"), f.small.partition(", n ")[0]) if f else Cell() for f in found]
        rows.append([metric(name).number, ", ".join(map(str, counts)), *cells])
    heads = [Column("class", words=True), "images", *(Column(verdict.name(m), small="%") for m in verdict.models)]
    return make_table(title, heads, rows, [_NOTES["classes"]]) if rows else None


def sentences(verdict: Verdict) -> list[tuple[str, str]]:
    """(model, what its numbers say) for the masked head and every method: arithmetic in words, no judgement."""
    said = []
    for model in verdict.models:
        residue, accuracy = verdict.residue(model), verdict.findings.get((model, "accuracy/forget"))
        words = [f"classifies {accuracy.text} of the forgotten test images correctly."] if accuracy else []
        if residue:
            least, most = residue[0], residue[-1]
            words.append(
                f"What can be recovered: most by {metric(most.metric).label} (place {most.place}), least by "
                f"{metric(least.metric).label} ({least.place}); median {_span(residue).text} of {len(residue)} measures."
            )
        if words and model not in ("original", "retrain"):
            said.append((verdict.name(model), " ".join(words)))
    return said


def _one_per_family(names: list[str]) -> list[str]:
    """Of metrics that differ only by a number (1, 5, 20 images per class) the middle one."""
    groups = defaultdict(list)
    for name in names:
        groups[metric(name).family].append(name)
    return [members[len(members) // 2] for members in groups.values()]


def _notes(verdict: Verdict) -> list[str]:
    """The notes of the numbers; one that all models share names none of them."""
    said, models = defaultdict(dict), defaultdict(set)
    for (model, name), finding in sorted(verdict.findings.items(), key=lambda item: metric(item[0][1]).order):
        for m in finding.runs.values():
            said[metric(name).label, m.note].setdefault(verdict.name(model))
            models[metric(name).label].add(verdict.name(model))
    return [
        label + ("" if len(names) == len(models[label]) else f" ({', '.join(names)})") + f": {note}."
        for (label, note), names in said.items()
        if note
    ]


def _cell(finding: Finding | None, unit: bool = True) -> Cell:
    if finding is None:
        return Cell()
    return Cell(finding.text if unit else finding.text.removesuffix(" %"), finding.small, place=finding.place)


def _span(residue: list[Finding]) -> Cell | None:
    """Median and range of the places of all residue."""
    if not residue:
        return None
    places = [f.place.at for f in residue]
    span = Place(median(places), places[0], places[-1])
    return Cell(str(span), f"{residue[0].place} to {residue[-1].place}, {len(places)} measures", place=span)
