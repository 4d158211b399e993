"""What is left of the forgotten classes: every number averaged over runs, and its place between retraining and the original."""

import math
from collections import defaultdict
from dataclasses import dataclass

from ispf_jax.report.audits import Measurement
from ispf_jax.report.averages import Average, RunKey, average, count
from ispf_jax.report.cells import Place
from ispf_jax.report.names import TIERS, metric, metric_order, model_name, model_order
from ispf_jax.report.table import BEST_TEST
from ispf_jax.report.workdir import Contents
from ispf_jax.runtime.rows import REFERENCES

ACCURACIES = {"accuracy/forget": "acc_forget", "accuracy/retain": "acc_retain", "accuracy/overall": "acc_overall"}
"""Metrics that the result rows hold too: the field to fall back on where no audit was run."""

Runs = dict[RunKey, Measurement]


_BOUNDS = {"at most": "\u2264", "at least": "\u2265", "not reached": "\u2265"}
"""Words in a note that make the number a bound."""


@dataclass(frozen=True)
class Finding:
    """One metric of one model over all its runs.

    Attributes:
      value, std, sample_std: see `averages.average`.
      place: with the 95 % interval of a single run, or with the range over several.
    """

    model: str
    metric: str
    runs: Runs
    value: float
    std: float
    sample_std: float
    place: Place | None

    @property
    def defined(self) -> Runs:
        """The runs that have a value."""
        return {run: m for run, m in self.runs.items() if m.value is not None}

    @property
    def text(self) -> str:
        """The number with its unit, and whether it is a bound only."""
        if not self.defined:
            return "undefined"
        bounds = {sign for m in self.defined.values() for words, sign in _BOUNDS.items() if words in m.note}
        return (
            ("".join(bounds) + " " if len(bounds) == 1 else "")
            + number(self.value, self.metric)
            + (" of bounds" if len(bounds) > 1 else "")
        )

    @property
    def small(self) -> str:
        """Interval and n of a single run; spread over seeds and the number of runs of several."""
        kind = metric(self.metric)
        if len(self.runs) > 1:
            spread = (
                f"sd {self.std:.{kind.digits}f}, sample sd {self.sample_std:.{kind.digits}f}, "
                if self.std == self.std
                else ""
            )
            undefined = len(self.runs) - len(self.defined)
            grid = count(self.runs).partition(" (")[0]
            missing = f"{len(self.runs)} of " if "(" in count(self.runs) else ""
            return f"{spread}{missing}{grid} runs" + (f", {undefined} of them undefined" if undefined else "")
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
        """The findings of kind "residue" with a place between ends that can be told apart, the lowest first."""
        found = [
            f
            for (m, name), f in self.findings.items()
            if m == model and metric(name).kind == "residue" and f.place and f.place.sure
        ]
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


def number(value: float, name: str) -> str:
    """A value in the digits of its metric; percent with its sign."""
    kind = metric(name)
    return f"{value:.{kind.digits}f}" + (" %" if kind.unit == "%" and math.isfinite(value) else "")


def interval(m: Measurement) -> str:
    """`30.1 to 57.0`, empty if the number has no interval."""
    digits = metric(m.metric).digits
    return "" if m.low is None or m.high is None else f"{m.low:.{digits}f} to {m.high:.{digits}f}"


def _finding(model: str, name: str, pool: dict[tuple[str, str], Runs]) -> Finding:
    runs = pool[model, name]
    found = average({run: m.value for run, m in runs.items() if m.value is not None}) or Average(math.nan, math.nan)
    return Finding(
        model,
        name,
        runs,
        found.mean,
        found.std,
        found.sample_std,
        _place(runs, pool.get(("original", name), {}), pool.get(("retrain", name), {})),
    )


def _place(runs: Runs, original: Runs, retrain: Runs) -> Place | None:
    """The recorded place of a single run; over several, the average distance to retraining in averages of the whole distance.

    The ratio of averages is used because single runs whose ends nearly meet would rule an average of ratios. All runs count: to leave
    out those whose ends overlap would choose runs by the whole distance that they happened to have, and with it bias the ratio.
    """
    places = {
        run: m.place
        for run, m in runs.items()
        if m.value is not None and m.place is not None and math.isfinite(m.place)
    }
    if not places:
        return None
    ends = {
        run: (retrain[run], original[run])
        for run, m in runs.items()
        if m.value is not None and _valued(run, original, retrain)
    }
    zeros, ones = ({run: pair[i] for run, pair in ends.items()} for i in (0, 1))
    sure = not ends or not _overlap(zeros, ones)
    if len(places) == 1 and len(ends) < 2:
        ((run, at),) = places.items()
        m = runs[run]
        if None in (m.low, m.high) or run not in ends or ends[run][0].value == ends[run][1].value:
            return Place(at, sure=sure)
        zero, one = (end.value for end in ends[run])
        low, high = sorted((v - zero) / (one - zero) for v in (m.low, m.high))
        return Place(at, low, high, sure)
    at = sum(places.values()) / len(places)
    if set(places) <= set(ends):
        zero, one = _mean(zeros), _mean(ones)
        at = (_mean({run: runs[run] for run in ends}) - zero) / (one - zero) if one != zero else at
    return Place(at, min(places.values()), max(places.values()), sure)


def _valued(run: RunKey, *models: Runs) -> bool:
    return all(run in model and model[run].value is not None for model in models)


def _overlap(a: Runs, b: Runs) -> bool:
    """Whether the 95 % intervals of two averages overlap; numbers without an interval count as exact."""
    lower, upper = sorted((a, b), key=_mean)
    return _mean(upper) - _mean(lower) <= _arm(lower, lambda m: m.high) + _arm(upper, lambda m: m.low)


def _mean(runs: Runs) -> float:
    return average({run: m.value for run, m in runs.items()}).mean


def _arm(runs: Runs, end) -> float:
    """From an average to that end of its interval. Seeds share the test images, so more of them do not shorten it; forget sets have images of their own."""
    arms = defaultdict(list)
    for (forget, _), m in runs.items():
        arms[forget].append(0.0 if end(m) is None else abs(end(m) - m.value))
    return math.hypot(*(sum(by_seed) / len(by_seed) for by_seed in arms.values())) / len(arms)


def _from_rows(contents: Contents, dataset: str, arch: str):
    """(model, metric, run, measurement) of the accuracies in the result rows; these know neither n nor interval."""
    rows = [r for r in contents.rows if (r["dataset"], r["arch"]) == (dataset, arch) and r["selection"] != BEST_TEST]
    for name, field in ACCURACIES.items():
        for r in rows:
            if isinstance(r.get(field), (int, float)):
                base = "" if r["method"] in REFERENCES else str(r.get("base") or "")
                model = r["method"] + (f"/{base}" if base else "")
                yield model, name, (r["forget"], r["seed"]), Measurement(model, name, r[field], "%", tier="test images")
