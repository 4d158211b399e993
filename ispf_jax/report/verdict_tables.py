"""The verdict as tables and sentences: method by metric for the first screen, every metric below, places for the console."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import median

from ispf_jax.report.averages import count
from ispf_jax.report.cells import MISSING, Cell, Column, Place, Table
from ispf_jax.report.names import METHOD_NOTES, family, metric
from ispf_jax.report.verdict import Finding, Verdict

READING = (
    "Place: 0 = like the retrained model, 1 = like the original; beyond 0 or 1 = beyond that model. A place with a question mark (hollow): "
    "the 95 % intervals of these two overlap, the metric hardly tells them apart; such places are not part of the residue."
)

_GROUPS = {
    "accuracy": "accuracy",
    "residue": "what can be had back",
    "closeness": "closeness",
    "paper": "the paper's",
    "attack": "attack",
}


def verdict_table(verdict: Verdict, title: str) -> Table:
    """Method by metric: the metrics that the first screen shows, each with its place, and the span of all residue first."""
    shown = _one_of_each([name for name in verdict.metrics if metric(name).verdict])
    spans = {model: _span(verdict.residue(model)) for model in verdict.models}
    has_span = any(spans.values())
    columns = [Column("", words=True)]
    columns += [Column("Residue", small="median place, range")] if has_span else []
    columns += [
        Column(_short(metric(name).label), _GROUPS.get(metric(name).kind, "other"), verdict.tier(name))
        for name in shown
    ]
    rows = []
    for model in verdict.models:
        cells = [Cell(verdict.name(model), METHOD_NOTES.get(model, ""))]
        cells += [spans[model] or Cell()] if has_span else []
        cells += [_cell(verdict.findings.get((model, name))) for name in shown]
        rows.append(tuple(cells))
    notes = [READING] if has_span else []
    if any(f.std == f.std for f in verdict.findings.values()):
        notes.append(
            "sd: population standard deviation (ddof=0) of the seeds' means, as the paper's; sample sd: that of a sample (ddof=1)."
        )
    if len({count(f.runs) for (_, name), f in verdict.findings.items() if name in shown}) > 1:
        notes.append("Not every number is over the same runs; those of several runs say over how many.")
    return Table(title, tuple(columns), tuple(rows), tuple(notes))


def places_table(verdict: Verdict) -> Table | None:
    """The verdict for a narrow console: places alone; None if nothing has a place."""
    table = verdict_table(verdict, "What is left: 0 = like the retrained model, 1 = like the original")
    chosen = [i for i in range(len(table.columns)) if any(cells[i].place for cells in table.rows)]
    if not chosen:
        return None
    columns = (Column("model", words=True), *(Column(table.columns[i].label.lower()) for i in chosen))
    rows = [(Cell(cells[0].text), *(Cell(str(cells[i].place or MISSING)) for i in chosen)) for cells in table.rows]
    return Table(
        table.title,
        columns,
        tuple(rows),
        ("? = the intervals of retrained and original overlap",)
        if any(cells[i].place and not cells[i].place.sure for cells in table.rows for i in chosen)
        else (),
    )


def _one_of_each(names: list[str]) -> list[str]:
    """Of metrics that differ by a number only (1, 5, 20 images per class) the middle one."""
    groups = defaultdict(list)
    for name in names:
        groups[family(name)[0] or name].append(name)
    return [members[len(members) // 2] for members in groups.values()]


def full_table(verdict: Verdict, title: str) -> Table:
    """Every metric (lines) of every model (columns), with what it needed and what it asks."""
    columns = (
        Column("metric", words=True),
        Column("needed", words=True),
        *(Column(verdict.name(model)) for model in verdict.models),
    )
    rows = []
    for name in (name for name in verdict.metrics if metric(name).kind != "classes"):
        kind = metric(name)
        unit = f" [{kind.unit}]" if kind.unit else ""
        found = [verdict.findings.get((model, name)) for model in verdict.models]
        smalls = {f.small for f in found if f}
        shared = (
            smalls.pop() if len(smalls) == 1 and sum(f is not None for f in found) > 1 else ""
        )  # what all models share is said once
        cells = [replace(_cell(f, unit=False), small="") if shared else _cell(f, unit=False) for f in found]
        rows.append((Cell(kind.label + unit, kind.asks), Cell(verdict.tier(name) or MISSING, shared), *cells))
    return Table(title, columns, tuple(rows), tuple(_notes(verdict)))


def class_table(verdict: Verdict, title: str) -> Table | None:
    """Accuracy of every class (lines) of every model (columns) with its interval; None where no audit counted them."""
    names = [name for name in verdict.metrics if metric(name).kind == "classes"]
    if not names:
        return None
    rows = []
    for name in names:
        found = [verdict.findings.get((model, name)) for model in verdict.models]
        counts = {run.n for f in found if f for run in f.runs.values()}
        rows.append(
            (
                Cell(family(name)[1]),
                Cell(", ".join(map(str, sorted(counts)))),
                *(
                    Cell() if f is None else Cell(f.text.removesuffix(" %"), f.small.partition(", n ")[0])
                    for f in found
                ),
            )
        )
    columns = (
        Column("class", words=True),
        Column("images"),
        *(Column(verdict.name(model), small="%") for model in verdict.models),
    )
    return Table(
        title,
        columns,
        tuple(rows),
        ("Test images of each class that get it; small print: 95 % Wilson interval, or the spread over runs.",),
    )


def _notes(verdict: Verdict) -> list[str]:
    """What was noted beside the numbers; a note that all models share names none of them."""
    said = defaultdict(dict)
    for name in verdict.metrics:
        for model in verdict.models:
            if finding := verdict.findings.get((model, name)):
                for run in finding.runs.values():
                    said[metric(name).label, run.note].setdefault(verdict.name(model))
    models = {
        metric(name).label: sum((m, name) in verdict.findings for m in verdict.models) for name in verdict.metrics
    }
    return [
        f"{label}{'' if len(names) == models[label] else _bracketed(names)}: {note}."
        for (label, note), names in said.items()
        if note
    ]


def _bracketed(names: Iterable[str]) -> str:
    return f" ({', '.join(names)})"


def sentences(verdict: Verdict) -> list[tuple[str, str]]:
    """(model, what its numbers say) for the masked head and every method: arithmetic in words, no judgement."""
    said = []
    for model in verdict.models:
        residue, accuracy = verdict.residue(model), verdict.findings.get((model, "accuracy/forget"))
        if model in ("original", "retrain") or not (residue or accuracy):
            continue
        words = [f"calls {accuracy.text} of the forgotten test images by their class."] if accuracy else []
        if residue:
            most, least = residue[-1], residue[0]
            words.append(
                f"What can be had back: most by {metric(most.metric).label} (place {most.place}), least by {metric(least.metric).label} "
                f"({least.place}); median {_span(residue).text} of {len(residue)} measures."
            )
        said.append((verdict.name(model), " ".join(words)))
    return said


def _short(label: str) -> str:
    """ "Accuracy, retained" under a heading that says accuracy: "Retained"."""
    return label.removeprefix("Accuracy, ").capitalize() if label.startswith("Accuracy, ") else label


def _cell(finding: Finding | None, unit: bool = True) -> Cell:
    if finding is None:
        return Cell()
    text = finding.text if unit else finding.text.removesuffix(" %")
    return Cell(text, finding.small, place=finding.place)


def _span(residue: Sequence[Finding]) -> Cell | None:
    """Median and range of the places of all residue."""
    if not residue:
        return None
    places = [f.place.at for f in residue]
    span = Place(median(places), places[0], places[-1])
    return Cell(str(span), f"{residue[0].place} to {residue[-1].place}, {len(places)} measures", place=span)
