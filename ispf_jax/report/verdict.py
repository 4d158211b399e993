"""What is left of the forgotten classes: averages over runs, places between retraining and original, and tables."""

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import median

from scipy.special import stdtrit

from ispf_jax.report.names import TEXTS, model_name, model_order, shown
from ispf_jax.report.results import Average, average, count, grouped
from ispf_jax.report.tables import MISSING, Cell, Column, Place, Table, make_table
from ispf_jax.runtime.measurements import Audit, Measurement
from ispf_jax.runtime.metrics import TIERS, metric, metric_order
from ispf_jax.runtime.rows import RunKey, forget_order, write_csv

Runs = dict[RunKey, Measurement]

_NOTES = TEXTS["notes"]
_GROUPS = {"residue": "what can be recovered", "paper": "the paper's", "weights": "from the weights alone"}
_GROUPS |= {"closeness": "how close it is", "attack": "attacks"}

_BOUNDS = {"at most": "\u2264", "at least": "\u2265", "not reached": "\u2265"}
"""Words in a note that make the number a bound."""


@dataclass(frozen=True)
class Finding:
    """One metric of one model over all its runs; the place has the 95 % interval of one run or the range of several.

    `defined` are the runs that have a value.
    """

    model: str
    metric: str
    runs: Runs
    defined: Runs
    average: Average
    place: Place | None

    @property
    def text(self) -> str:
        """The number with its unit, and whether it is only a bound."""
        if not self.defined:
            return "undefined" if any(m.n for m in self.runs.values()) else "no images"
        kind, value = metric(self.metric), self.average.mean
        bounds = {sign for m in self.defined.values() for words, sign in _BOUNDS.items() if words in m.note}
        number = f"{value:.{kind.digits}f}" + (" %" if kind.unit == "%" and math.isfinite(value) else "")
        return (f"{''.join(bounds)} " if len(bounds) == 1 else "") + number + (" of bounds" if len(bounds) > 1 else "")

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval: over three seeds or more Student's of their means, else from the images of the runs."""
        mean, seeds = self.average.mean, len({seed for _, seed in self.defined})
        if seeds > 2:
            arm = float(stdtrit(seeds - 1, 0.975)) * self.average.sample_std / math.sqrt(seeds)
            return mean - arm, mean + arm
        found = list(self.defined.values())
        return (mean - _arm(found, "low"), mean + _arm(found, "high")) if found else (math.nan, math.nan)

    @property
    def small(self) -> str:
        """Interval and n of a single run; interval, spread over seeds and the number of runs of several."""
        digits, (a, runs) = metric(self.metric).digits, (self.average, len(self.runs))
        if runs > 1:
            spread = f"sd {a.std:.{digits}f}, sample sd {a.sample_std:.{digits}f}, " if a.std == a.std else ""
            grid, incomplete, _ = count(self.runs).partition(" (")
            undefined = f", {runs - len(self.defined)} of them undefined" if len(self.defined) < runs else ""
            low, high = self.interval
            spread = (f"{low:.{digits}f} to {high:.{digits}f}, " if low < high else "") + spread
            return spread + (f"{runs} of " if incomplete else "") + f"{grid} runs{undefined}"
        (m,) = self.runs.values()
        interval = [] if m.low is None or m.high is None else [f"{m.low:.{digits}f} to {m.high:.{digits}f}"]
        return ", ".join(interval + ([f"n {m.n}"] if m.n is not None else []))

    def cell(self, unit: bool = True) -> Cell:
        """The number, with its place or, where it has none, what it is over."""
        return Cell(self.text if unit else self.text.removesuffix(" %"), self.small, place=self.place)


@dataclass(frozen=True)
class Verdict:
    """All measurements of one data set and network.

    Attributes:
      bases: whether names must say the base.
      title: what they are of, in words.
    """

    measurements: list[Measurement]
    bases: bool = False
    title: str = ""

    @cached_property
    def findings(self) -> dict[tuple[str, str], Finding]:
        """By (model, metric), in their order."""
        pool: dict[tuple[str, str], Runs] = defaultdict(dict)
        for m in self.measurements:
            pool[m.model, m.metric][m.run] = m
        found = {}
        for model, name in sorted(pool, key=lambda key: (model_order(key[0]), metric_order(key[1]))):
            runs, *ends = (
                {run: m for run, m in pool.get((of, name), {}).items() if m.value is not None}
                for of in (model, "retrain", "original")
            )
            known = average({run: m.value for run, m in runs.items()}) or Average(math.nan)
            found[model, name] = Finding(model, name, pool[model, name], runs, known, _place(runs, *ends))
        return found

    @property
    def models(self) -> list[str]:
        return list(dict.fromkeys(model for model, _ in self.findings))

    @property
    def metrics(self) -> list[str]:
        return sorted({name for _, name in self.findings}, key=metric_order)

    def of(self, forget: str, name: str = "") -> "Verdict":
        """The same for one forget set."""
        mine = [m for m in self.measurements if m.forget == forget]
        return Verdict(mine, self.bases, f"{self.title}: forgetting {name or forget}")

    @property
    def forget_sets(self) -> list[str]:
        return sorted({m.forget for m in self.measurements}, key=forget_order)

    def name(self, model: str) -> str:
        return model_name(model, self.bases)

    def line(self, name: str) -> list[Finding | None]:
        """The findings of all models for one metric."""
        return [self.findings.get((model, name)) for model in self.models]

    def residue(self, model: str) -> list[Finding]:
        """The findings of kind "residue" with a place between distinct ends, the lowest first."""
        mine = (f for (of, name), f in self.findings.items() if of == model and metric(name).kind == "residue")
        return sorted((f for f in mine if f.place and f.place.sure), key=lambda f: f.place.at)

    def tier(self, name: str) -> str:
        """What a metric needed, the most of all its numbers."""
        return max({m.tier for m in self.measurements if m.metric == name}, key=tier_order, default="")


def tier_order(tier: str) -> int:
    """Sort key: from least to most; no tier is less than any, an unknown one more."""
    return ("", *TIERS).index(tier) if tier in ("", *TIERS) else len(TIERS) + 1


def write_audit_csv(path: Path, audits: Iterable[Audit]) -> None:
    """Write one line per measurement, in the order of models and metrics."""
    order = lambda m: (model_order(m.model), metric_order(m.metric))
    lines = (m._asdict() for audit in audits for m in sorted(audit.measurements, key=order))
    write_csv(path, Measurement._fields, lines)


def write_averages_csv(path: Path, verdicts: dict[tuple[str, str], Verdict]) -> None:
    """Write every metric of every model over all its runs, for those who compute on.

    Standard deviations are empty with one seed; `undefined` of the `runs` have no value and are not in the mean.
    """
    names = ("dataset", "arch", "model", "metric", "mean", "population_std", "sample_std")
    names += ("forget_sets", "seeds", "runs", "undefined", "place")
    lines = []
    for setting, f in ((setting, f) for setting, verdict in verdicts.items() for f in verdict.findings.values()):
        numbers = [None if x != x else x for x in vars(f.average).values()]
        counts = [len(set(axis)) for axis in zip(*f.runs)] + [len(f.runs), len(f.runs) - len(f.defined)]
        lines.append(dict(zip(names, [*setting, f.model, f.metric, *numbers, *counts, f.place and f.place.at])))
    write_csv(path, names, lines)


def verdict_table(verdict: Verdict) -> Table:
    """Method by metric: the metrics of the first screen, each with its place, after the range of all residue."""
    families = grouped((n for n in verdict.metrics if metric(n).verdict), lambda name: metric(name).family)
    names = [members[len(members) // 2] for members in families.values()]  # of 1, 5, 20 images per class the middle one
    spans = {model: _span(verdict.residue(model)) for model in verdict.models}
    heads = [Column("", words=True), *[Column("Residue", small="median place, range")] * any(spans.values())]
    rows = [[Cell(verdict.name(m), shown(m).note), *[spans[m] or Cell()] * any(spans.values())] for m in verdict.models]
    for name in names:
        label, kind = metric(name).label, metric(name).kind
        label = label.removeprefix("Accuracy, ").capitalize() if kind == "accuracy" else label
        heads.append(Column(label, _GROUPS.get(kind, kind), verdict.tier(name)))
        for row, finding in zip(rows, verdict.line(name)):
            row.append(finding.cell() if finding else Cell())
    shown_here = [f for (_, name), f in verdict.findings.items() if name in names]
    spread = any(f.average.std == f.average.std for f in verdict.findings.values())
    uneven = len({count(f.runs) for f in shown_here}) > 1
    said = {"reading": any(spans.values()), "deviations": spread, "uneven": uneven}
    return make_table(f"{verdict.title}: what is left", heads, rows, [_NOTES[name] for name in said if said[name]])


def verdict_tables(verdict: Verdict) -> list[Table]:
    """The same in small tables, one per group of metrics, for the page."""
    whole = verdict_table(verdict)
    groups = grouped(range(1, len(whole.columns)), lambda i: whole.columns[i].group.replace("accuracy", ""))
    parts = []
    for name, chosen in groups.items():
        columns = (whole.columns[0], *(whole.columns[i]._replace(group="") for i in chosen))
        heads = [row[0] if not parts else Cell(row[0].text) for row in whole.rows]  # how a model was made is said once
        rows = tuple((head, *(row[i] for i in chosen)) for head, row in zip(heads, whole.rows))
        parts.append(Table(name.capitalize() or "In short", columns, rows))
    return [*parts[:-1], parts[-1]._replace(notes=whole.notes)] if parts else []


def places_table(verdict: Verdict) -> Table | None:
    """The verdict for a narrow console: places alone; None if nothing has a place."""
    table = verdict_table(verdict)
    chosen = [i for i in range(len(table.columns)) if any(cells[i].place for cells in table.rows)]
    heads = ["model", *(table.columns[i].label.lower() for i in chosen)]
    rows = [[cells[0].text, *(str(cells[i].place or MISSING) for i in chosen)] for cells in table.rows]
    unsure = any(text.endswith("?") for cells in rows for text in cells[1:])
    title = "What is left: 0 = like the retrained model, 1 = like the original"
    return make_table(title, heads, rows, [_NOTES["undecided"]] * unsure, words=["model"]) if chosen else None


def full_table(verdict: Verdict) -> Table:
    """Every metric (rows) of every model (columns), with what it needed and what it asks."""
    rows = []
    for name in (name for name in verdict.metrics if metric(name).kind != "classes"):
        kind, cells = metric(name), [f.cell(unit=False) if f else Cell() for f in verdict.line(name)]
        smalls = {cell.small for cell, f in zip(cells, verdict.line(name)) if f}
        shared = smalls.pop() if len(smalls) == 1 and sum(map(bool, verdict.line(name))) > 1 else ""
        cells = (
            [replace(cell, small="") for cell in cells] if shared else cells
        )  # it is said once, in the second column
        label = kind.label + (f" [{kind.unit}]" if kind.unit else "")
        rows.append([Cell(label, kind.asks), Cell(verdict.tier(name) or MISSING, shared), *cells])
    heads = ["metric", "needed", *map(verdict.name, verdict.models)]
    return make_table(f"{verdict.title}: all measurements", heads, rows, _notes(verdict), words=heads[:2])


def class_table(verdict: Verdict) -> Table | None:
    """Accuracy of every class (rows) of every model (columns) with its interval; None where no audit counted them."""
    rows = []
    for name in (name for name in verdict.metrics if metric(name).kind == "classes"):
        found = verdict.line(name)
        counts = sorted({m.n for f in found if f for m in f.runs.values()})
        cells = [Cell(f.text.removesuffix(" %"), f.small.partition(", n ")[0]) if f else Cell() for f in found]
        rows.append([metric(name).number, ", ".join(map(str, counts)), *cells])
    heads = [Column("class", words=True), "images", *(Column(verdict.name(m), small="%") for m in verdict.models)]
    title = f"{verdict.title}: accuracy class by class"
    return make_table(title, heads, rows, [_NOTES["classes"]]) if rows else None


def sentences(verdict: Verdict) -> list[tuple[str, str]]:
    """(model, what its numbers say) for the masked head and every method: arithmetic in words, no judgement."""
    said = []
    for model in (model for model in verdict.models if model not in ("original", "retrain")):
        residue, accuracy = verdict.residue(model), verdict.findings.get((model, "accuracy/forget"))
        words = []
        if accuracy and accuracy.defined:
            words.append(f"classifies {accuracy.text} of the forgotten test images correctly.")
        if residue:
            (least, low), *_, (most, high) = ((metric(f.metric).label, f.place) for f in (residue[0], residue[-1]))
            span = f"median {_span(residue).text} of {len(residue)} measures"
            words.append(f"What can be recovered: most by {most} (place {high}), least by {least} ({low}); {span}.")
        said += [(verdict.name(model), " ".join(words))] if words else []
    return said


def _notes(verdict: Verdict) -> list[str]:
    """The notes of the numbers; one that all models share names none of them."""
    said, models = defaultdict(dict), defaultdict(set)
    for f in sorted(verdict.findings.values(), key=lambda f: metric_order(f.metric)):
        label, name = metric(f.metric).label, verdict.name(f.model)
        models[label].add(name)
        for m in f.runs.values():
            said[label, m.note][name] = None
    return [
        label + ("" if len(names) == len(models[label]) else f" ({', '.join(names)})") + f": {note}."
        for (label, note), names in said.items()
        if note
    ]


def _span(residue: list[Finding]) -> Cell | None:
    """Median and range of the places of all residue."""
    if not residue:
        return None
    places = [f.place.at for f in residue]
    span = Place(median(places), places[0], places[-1])
    return Cell(str(span), f"{residue[0].place} to {residue[-1].place}, {len(places)} measures", place=span)


def _place(runs: Runs, retrain: Runs, original: Runs) -> Place | None:
    """The recorded place of a single run; over several, the mean distance to retraining over the mean whole distance.

    The ratio of averages is used because single runs whose ends nearly meet would dominate an average of ratios. All
    runs count: leaving out those whose ends overlap would select runs by the whole distance that they happened to have,
    and so bias the ratio.
    """
    places = {run: m.place for run, m in runs.items() if m.place is not None and math.isfinite(m.place)}
    if not places:
        return None
    both = [run for run in runs if run in retrain and run in original]
    mine, zeros, ones = ([of[run] for run in both] for of in (runs, retrain, original))
    zero = _mean(zeros) if both else 0.0
    distance = _mean(ones) - zero if both else 0.0
    exact = distance and set(places) <= set(both)
    ends, at = [*places.values()], (_mean(mine) - zero) / distance if exact else sum(places.values()) / len(places)
    if len(places) == 1 and len(both) < 2:
        (m,) = (runs[run] for run in places)
        interval = [x for x in (m.low, m.high) if x is not None]
        ends = [(x - zero) / distance for x in interval] if exact and len(interval) == 2 else [None]
    low, high = (None, None) if None in ends else (min(ends), max(ends))
    return Place(at, low, high, sure=not both or not _overlap(zeros, ones))


def overlap(a: Finding, b: Finding) -> bool:
    """Whether the 95 % intervals of two findings overlap, so that their difference is undecided."""
    return a.interval[0] <= b.interval[1] and b.interval[0] <= a.interval[1]


def _mean(measurements: list[Measurement]) -> float:
    return average({m.run: m.value for m in measurements}).mean


def _overlap(a: list[Measurement], b: list[Measurement]) -> bool:
    """Whether the 95 % intervals of two averages overlap; numbers without an interval count as exact."""
    lower, upper = sorted((a, b), key=_mean)
    return _mean(upper) - _mean(lower) <= _arm(lower, "high") + _arm(upper, "low")


def _arm(measurements: list[Measurement], end: str) -> float:
    """The distance from an average to that end of its interval.

    Seeds share the test images, so more of them do not shorten it; different forget sets have different images.
    """
    by_set = grouped(measurements, lambda m: m.forget).values()
    arms = ([0.0 if getattr(m, end) is None else abs(getattr(m, end) - m.value) for m in group] for group in by_set)
    return math.hypot(*(sum(by_seed) / len(by_seed) for by_seed in arms)) / len(by_set)
