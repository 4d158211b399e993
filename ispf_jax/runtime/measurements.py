"""The files of audits, `audit/<forget>/seed<k>/audit.json`: what a measurement is, and what else an audit holds."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np

from ispf_jax.runtime import layout
from ispf_jax.runtime.atomic import to_plain
from ispf_jax.runtime.rows import RunKey, forget_order
from ispf_jax.runtime.schema import Count, Finite, Forget, Misfit, Percent, Rule, Seed, Setting, fit, read_json

FORMAT = 1


class Measurement(NamedTuple):
    """One number about one model; the fields are the columns of `audit.csv`.

    Attributes:
      forget, seed: the run, as in the result rows.
      value: None where the metric is not defined; the note says why.
      low, high: 95 % interval, None if there is none.
      n: number of examples.
      tier: what the number needed, see `metrics.TIERS`.
      place: (value - retrained) / (original - retrained): 0 like retrained, 1 like the original; None where these do
        not differ.
    """

    dataset: str
    arch: str
    forget: Forget
    seed: Seed
    model: str
    metric: str
    value: Finite | None
    unit: str = ""
    low: Finite | None = None
    high: Finite | None = None
    n: Count | None = None
    tier: str = ""
    place: Finite | None = None
    note: str = ""

    @property
    def run(self) -> RunKey:
        return self.forget, self.seed


@dataclass(frozen=True)
class Audit:
    """One audit: what was measured of all models of one forget set and seed. Parts that an audit did not run are empty.

    Attributes:
      forget: as in the rows, "3" or "1,7"; forget_names: the names of these classes.
      curves: (model, kind of relearning, steps and accuracies in percent [2, K]).
      confusion: {model: counts of predicted classes [forgotten classes in the order of `forget`, C]}.
      mean_prediction: {model: probabilities [C], averaged over forgotten test images}.
      weights: {model: hash of its weights}.
      embedding: (model, points [N, 2], kind of every point [N], what was embedded and how).
      representation: (model, points [N, 2], classes [N], "") of real test images, each in the model's own features.
      not_run: (metric, why).
      paired: `Paired` of every two models.
      by: who computed it; empty: not stated.
    """

    forget: str
    seed: int
    dataset: str
    arch: str
    measurements: list
    models: list
    forget_names: list = field(default_factory=list)
    class_names: list = field(default_factory=list)
    settings: dict = field(default_factory=dict)
    curves: list = field(default_factory=list)
    confusion: dict = field(default_factory=dict)
    mean_prediction: dict = field(default_factory=dict)
    weights: dict = field(default_factory=dict)
    embedding: list = field(default_factory=list)
    representation: list = field(default_factory=list)
    not_run: list = field(default_factory=list)
    paired: list = field(default_factory=list)
    by: str = ""

    @property
    def run(self) -> RunKey:
        return self.forget, self.seed

    @property
    def slug(self) -> str:
        """The part of a file name that identifies the audit."""
        return f"{self.forget.replace(',', '-')}_seed{self.seed}"

    @property
    def forgotten(self) -> list[int]:
        return forget_order(self.forget)


Share = Annotated[float, Rule(lambda share: not (share < -1e-5 or share > 1 + 1e-5), "from 0 to 1, or nan")]
"""A probability; without test images of a class its mean is NaN."""


@dataclass(frozen=True)
class Curve:
    """Relearning: accuracies in percent after so many steps, both [K]."""

    model: str
    kind: str
    steps: list[Count]
    accuracy: list[Percent]


@dataclass(frozen=True)
class Points:
    """A picture of features: points [N, 2] with what kind, or of what class, each is."""

    points: list[list[Finite]]
    title: str = ""
    kind: list[str] | None = None
    classes: list[Count] | None = None
    method: str = ""

    def arrays(self) -> tuple[str, np.ndarray, np.ndarray, str]:
        """(title, points [N, 2], labels [N], how they were made)."""
        labels = np.array((self.classes if self.kind is None else self.kind) or [])
        return self.title, _array(self.points, "points", len(labels), 2), labels, self.method


class Paired(NamedTuple):
    """Two models on the same `n` test images: how many only one of them gets right, and McNemar's exact p."""

    metric: str
    first: str
    second: str
    n: Count
    only_first: Count
    only_second: Count
    p: Share


class NotRun(NamedTuple):
    """A metric that was not measured, and why."""

    metric: str
    why: str


@dataclass(frozen=True)
class _Model:
    """What was measured of one model, and of what it was made: the part of an audit that has a file of its own."""

    measurements: list[dict[str, Setting]]
    curves: list[Curve]
    confusion: list[list[Count]]
    mean_prediction: list[Share]
    representation: Points | None
    settings: dict[str, Setting]
    weights: str
    inputs: dict[str, Setting | dict[str, str]]
    format: Count
    hits: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _File:
    """What an `audit.json` holds."""

    format: Literal[1]
    forget: Forget
    seed: Seed
    dataset: str
    arch: str
    measurements: list[dict[str, Setting]]
    models: list[str]
    forget_names: list[str] = field(default_factory=list)
    class_names: list[str] = field(default_factory=list)
    settings: dict[str, Setting] = field(default_factory=dict)
    curves: list[Curve] = field(default_factory=list)
    confusion: dict[str, list[list[Count]]] = field(default_factory=dict)
    mean_prediction: dict[str, list[Share]] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)
    embedding: list[Points] = field(default_factory=list)
    representation: list[Points] = field(default_factory=list)
    not_run: list[NotRun] = field(default_factory=list)
    paired: list[Paired] = field(default_factory=list)
    by: str = ""


def parse_model(content: Any) -> dict[str, Any]:
    """The content of a file with the measurements of one model; ValueError if it is not whole or contradicts itself."""
    file = fit(_Model, content)
    run = {"dataset": "", "arch": "", "forget": "0", "seed": 0}
    measurements = [fit(Measurement, entry | run) for entry in file.measurements]
    check_measurements(measurements, [m.model for m in measurements[:1]])
    return content


def parse_audit(content: Any) -> Audit:
    """The audit in the content of an `audit.json`.

    Raises:
      ValueError: it is not a complete one, or contradicts itself; in words for the user.
    """
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"not an audit of format {FORMAT}")
    file = fit(_File, to_plain(content))
    classes = len(file.class_names) or None
    run = {name: getattr(file, name) for name in ("dataset", "arch", "forget", "seed")}
    read = vars(file) | {
        "measurements": [fit(Measurement, entry | run) for entry in file.measurements],
        "curves": [(c.model, c.kind, _array([c.steps, c.accuracy], "curves", 2, len(c.steps))) for c in file.curves],
        "confusion": _arrays(file, "confusion", len(forget_order(file.forget)), classes),
        "mean_prediction": _arrays(file, "mean_prediction", classes),
        "embedding": [points.arrays() for points in file.embedding],
        "representation": [points.arrays() for points in file.representation],
    }
    read.pop("format")
    audit = Audit(**read)
    check_measurements(audit.measurements, audit.models)
    return audit


def check_measurements(measurements: list[Measurement], models: list[str]):
    """Raise a ValueError where numbers contradict one another: shares, intervals, places between the two ends."""
    values = {(m.model, m.metric): m.value for m in measurements}
    for m in measurements:
        name = f"{m.metric} of {m.model}"
        if m.model not in models:
            raise Misfit(name, m.value, "of one of the models")
        if m.value is None:
            continue
        if m.unit == "%" and not -1e-6 <= m.value <= 100 + 1e-6:
            raise Misfit(name, m.value, "from 0 to 100")
        low, high = (m.value if end is None else end for end in (m.low, m.high))
        if not low - 1e-6 <= m.value <= high + 1e-6:
            raise Misfit(name, m.value, f"in its interval from {low} to {high}")
        original, retrain = (values.get((model, m.metric)) for model in ("original", "retrain"))
        if m.place is not None and original is not None and retrain is not None and original != retrain:
            place = (m.value - retrain) / (original - retrain)
            if not abs(place - m.place) <= 1e-6 * (1 + abs(place)):
                raise Misfit(f"place of {name}", m.place, f"{place}, where its value lies")


def _array(values: Any, name: str, *shape: int | None) -> np.ndarray:
    """Numbers as an array of a shape, where None is any length; ValueError if they have another."""
    found = np.array(values, float)  # a ValueError for lists of different lengths
    found = found.reshape([length or 0 for length in shape]) if not found.size and 0 in shape else found
    if found.ndim != len(shape) or any(n not in (None, m) for n, m in zip(shape, found.shape)):
        raise ValueError(f"{name} has the shape {list(found.shape)}, but must have {list(shape)}")
    return found


def _arrays(file: _File, name: str, *shape: int | None) -> dict[str, np.ndarray]:
    """One array per model, all of the same shape."""
    found = {model: _array(values, f"{name} of {model}", *shape) for model, values in getattr(file, name).items()}
    if len({array.shape for array in found.values()}) > 1:
        raise ValueError(f"{name} has another shape for every model")
    return found


def read_audits(workdir: str | os.PathLike) -> list[Audit]:
    """All `audit/<forget>/seed<k>/audit.json`, by forget set and seed.

    A damaged one, or that of another run, is set aside, so that the next start measures again.
    """
    found = [_read(job, path) for job, path in layout.files(Path(workdir), "audit", layout.AUDIT)]
    return sorted(filter(None, found), key=lambda a: (a.dataset, a.arch, a.forgotten, a.seed))


def _read(job, path) -> Audit | None:
    def parse(content):
        audit = parse_audit(content)
        if audit.run != (job.forgets, job.seed):
            raise ValueError(f"it is the audit of {audit.forget} seed {audit.seed}, which does not belong here")
        return audit

    return read_json(path, parse)
