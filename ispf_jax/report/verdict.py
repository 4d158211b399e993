"""What is left of the forgotten classes: every number averaged over runs, and its place between retraining and the original."""

import math
from collections import defaultdict
from dataclasses import dataclass
from statistics import median
from typing import Sequence

from ispf_jax.report.audits import Measurement
from ispf_jax.report.averages import RunKey, average, count
from ispf_jax.report.cells import Cell, Column, Place, Table
from ispf_jax.report.names import METHOD_NOTES, TIERS, metric, metric_order, model_name, model_order
from ispf_jax.report.results import REFERENCES
from ispf_jax.report.table import BEST_TEST
from ispf_jax.report.workdir import Contents

ACCURACIES = {"accuracy/forget": "acc_forget", "accuracy/retain": "acc_retain", "accuracy/overall": "acc_overall"}
"""Metrics that the result rows hold too: the field to fall back on where no audit was run."""

Runs = dict[RunKey, Measurement]


@dataclass(frozen=True)
class Finding:
    """One metric of one model over all its runs.

    Attributes:
      value, std: see `averages.average`.
      place: with the 95 % interval of a single run, or with the range over several.
    """

    model: str
    metric: str
    runs: Runs
    value: float
    std: float
    place: Place | None

    @property
    def text(self) -> str:
        """The number with its unit."""
        return number(self.value, self.metric)

    @property
    def small(self) -> str:
        """Interval and n of a single run; spread over seeds and the number of runs of several."""
        kind = metric(self.metric)
        if len(self.runs) > 1:
            spread = f"+/- {self.std:.{kind.digits}f}, " if self.std == self.std else ""
            return f"{spread}{count(self.runs)} runs"
        (only,) = self.runs.values()
        parts = [interval(only), f"n {only.n}" if only.n is not None else ""]
        return ", ".join(part for part in parts if part)


@dataclass(frozen=True)
class Verdict:
    """All findings of one data set and network, by (model, metric)."""

    findings: dict[tuple[str, str], Finding]
    bases: bool = False

    @property
    def models(self) -> list[str]:
        return sorted({model for model, _ in self.findings}, key=model_order)

    @property
    def metrics(self) -> list[str]:
        return sorted({name for _, name in self.findings}, key=metric_order)

    def name(self, model: str) -> str:
        return model_name(model, self.bases)

    def residue(self, model: str) -> list[Finding]:
        """The findings of kind "residue" that have a place, the lowest first; the ends of the scale have no residue of their own."""
        found = [f for (m, name), f in self.findings.items() if m == model and metric(name).kind == "residue" and f.place]
        return sorted(found, key=lambda f: f.place.at)

    def tier(self, name: str) -> str:
        """What a metric needed, the most of all its numbers."""
        tiers = {run.tier for (_, m), f in self.findings.items() if m == name for run in f.runs.values() if run.tier}
        return max(tiers, key=lambda tier: TIERS.index(tier) if tier in TIERS else len(TIERS), default="")


def judge(contents: Contents, dataset: str, arch: str, forget: set[str] | None = None) -> Verdict:
    """The findings of one data set and network, of the given forget sets or of all."""
    pool: dict[tuple[str, str], Runs] = defaultdict(dict)
    for model, name, run, measured in _from_rows(contents, dataset, arch):
        pool[model, name][run] = measured
    for audit in contents.audits:
        if (audit.dataset, audit.arch) == (dataset, arch):
            for measured in audit.measurements:
                pool[measured.model, measured.metric][audit.key] = measured
    if forget is not None:
        pool = {key: {run: m for run, m in runs.items() if run[0] in forget} for key, runs in pool.items()}
    return Verdict({key: _finding(*key, pool) for key, runs in pool.items() if runs}, contents.bases)


def verdict_table(verdict: Verdict, title: str) -> Table:
    """Method by metric: the metrics that the first screen shows, each with its place, and the span of all residue first."""
    shown = [name for name in verdict.metrics if metric(name).verdict]
    spans = {model: _span(verdict.residue(model)) for model in verdict.models}
    has_span = any(spans.values())
    columns = [Column("", words=True)]
    columns += [Column("Residue", "all that brings it back", "median; least to most")] if has_span else []
    columns += [Column(metric(name).label, _GROUPS.get(metric(name).kind, "other"), metric(name).unit) for name in shown]
    rows = []
    for model in verdict.models:
        cells = [Cell(verdict.name(model), METHOD_NOTES.get(model, ""))]
        cells += [spans[model] or Cell()] if has_span else []
        cells += [_cell(verdict.findings.get((model, name))) for name in shown]
        rows.append(tuple(cells))
    notes = ["Place: 0 = like the retrained model, 1 = like the original. Hiding a class leaves it near 1."] if has_span else []
    if len({count(f.runs) for f in verdict.findings.values()}) > 1:
        notes.append("Not every number is over the same runs; those of several runs say over how many.")
    return Table(title, tuple(columns), tuple(rows), tuple(notes))


def full_table(verdict: Verdict, title: str) -> Table:
    """Every metric (lines) of every model (columns), with what it needed and what it asks."""
    columns = (Column("metric", words=True), Column("needed", words=True), *(Column(verdict.name(model)) for model in verdict.models))
    rows = []
    for name in verdict.metrics:
        kind = metric(name)
        unit = f" [{kind.unit}]" if kind.unit else ""
        cells = [_cell(verdict.findings.get((model, name)), unit=False) for model in verdict.models]
        rows.append((Cell(kind.label + unit, kind.asks), Cell(verdict.tier(name) or "-"), *cells))
    notes = {f"{verdict.name(f.model)}, {metric(f.metric).label}: {run.note}": None
             for f in verdict.findings.values() for run in f.runs.values() if run.note}
    return Table(title, columns, tuple(rows), tuple(notes))


def sentences(verdict: Verdict) -> list[tuple[str, str]]:
    """(model, what its numbers say) for the masked head and every method: arithmetic in words, no judgement."""
    said = []
    for model in verdict.models:
        residue, accuracy = verdict.residue(model), verdict.findings.get((model, "accuracy/forget"))
        if model in ("original", "retrain") or not (residue or accuracy):
            continue
        words = [f"gives the forgotten class to {accuracy.text} of its test images"] if accuracy else []
        if residue:
            most, least = residue[-1], residue[0]
            words.append(
                f"on {len(residue)} measures of what can be had back it lies between {least.place.at:.2f} ({metric(least.metric).label}) and "
                f"{most.place.at:.2f} ({metric(most.metric).label}), median {median(f.place.at for f in residue):.2f}"
            )
        said.append((verdict.name(model), "; ".join(words) + "."))
    return said


def number(value: float, name: str, unit: bool = True) -> str:
    """A value in the digits of its metric; percent with its sign."""
    kind = metric(name)
    text = f"{value:.{kind.digits}f}"
    return f"{text} %" if unit and kind.unit == "%" and math.isfinite(value) else text


def interval(m: Measurement) -> str:
    """`30.1 to 57.0`, empty if the number has no interval."""
    digits = metric(m.metric).digits
    return "" if m.low is None or m.high is None else f"{m.low:.{digits}f} to {m.high:.{digits}f}"


_GROUPS = {"accuracy": "accuracy", "residue": "what can be had back", "closeness": "closeness", "paper": "the paper's", "attack": "attack"}


def _cell(finding: Finding | None, unit: bool = True) -> Cell:
    if finding is None:
        return Cell()
    return Cell(number(finding.value, finding.metric, unit), finding.small, place=finding.place)


def _span(residue: Sequence[Finding]) -> Cell | None:
    """Median and range of the places of all residue."""
    if not residue:
        return None
    places = [f.place.at for f in residue]
    small = f"{places[0]:.2f} to {places[-1]:.2f}, {len(places)} measures"
    return Cell(f"{median(places):.2f}", small, place=Place(median(places), places[0], places[-1]))


def _finding(model: str, name: str, pool: dict[tuple[str, str], Runs]) -> Finding:
    runs = pool[model, name]
    found = average({run: m.value for run, m in runs.items()})
    return Finding(model, name, runs, found.mean, found.std, _place(runs, pool, name))


def _place(runs: Runs, pool: dict[tuple[str, str], Runs], name: str) -> Place | None:
    """The recorded place of a single run; over several, the average distance to retraining in averages of the whole distance.

    The ratio of averages is used because single runs whose ends nearly meet would rule an average of ratios.
    """
    placed = {run: m for run, m in runs.items() if m.place is not None and math.isfinite(m.place)}
    if not placed or not metric(name).placed:
        return None
    original, retrain = pool.get(("original", name), {}), pool.get(("retrain", name), {})
    if len(placed) == 1:
        ((run, m),) = placed.items()
        if m.low is None or m.high is None or run not in original or run not in retrain or original[run].value == retrain[run].value:
            return Place(m.place)
        ends = [(v - retrain[run].value) / (original[run].value - retrain[run].value) for v in (m.low, m.high)]
        return Place(m.place, min(ends), max(ends))
    places = [m.place for m in placed.values()]
    at = sum(places) / len(places)
    whole = average({run: original[run].value - retrain[run].value for run in placed if run in original and run in retrain})
    if whole and whole.mean and all(run in original and run in retrain for run in placed):
        at = average({run: m.value - retrain[run].value for run, m in placed.items()}).mean / whole.mean
    return Place(at, min(places), max(places))


def _from_rows(contents: Contents, dataset: str, arch: str):
    """(model, metric, run, measurement) of the accuracies in the result rows; these know neither n nor interval."""
    rows = [r for r in contents.rows if (r["dataset"], r["arch"]) == (dataset, arch) and r["selection"] != BEST_TEST]
    for name, field in ACCURACIES.items():
        ends = {(r["method"], r["forget"], r["seed"]): r[field] for r in rows if r["method"] in ("original", "retrain")}
        for r in rows:
            if not isinstance(r.get(field), (int, float)):
                continue
            run, base = (r["forget"], r["seed"]), "" if r["method"] in REFERENCES else str(r.get("base") or "")
            original, retrain = (ends.get((end, *run)) for end in ("original", "retrain"))
            known = isinstance(original, (int, float)) and isinstance(retrain, (int, float)) and original != retrain
            place = (r[field] - retrain) / (original - retrain) if known and metric(name).placed else None
            model = r["method"] + (f"/{base}" if base else "")
            yield model, name, run, Measurement(model, name, r[field], "%", tier="test images", place=place)
