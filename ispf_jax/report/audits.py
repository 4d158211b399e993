"""The audits in a work directory, `audit/<forget>/seed<k>/audit.json`: reading them, checking them, writing `audit.csv`."""

import csv
import io
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ispf_jax.report.averages import RunKey
from ispf_jax.report.names import metric_order, model_order
from ispf_jax.runtime.atomic import atomic_write_text, from_plain, to_plain
from ispf_jax.runtime.rows import forget_order, set_aside

FORMAT = 1


@dataclass(frozen=True)
class Measurement:
    """One number about one model.

    Attributes:
      value: None where the metric is not defined; the note says why.
      low, high: 95 % interval, None if there is none; n: examples it was counted on.
      tier: what the number needed, see `names.TIERS`.
      place: (value - retrained) / (original - retrained): 0 like retrained, 1 like the original; None where these do not differ.
    """

    model: str
    metric: str
    value: float | None
    unit: str = ""
    low: float | None = None
    high: float | None = None
    n: int | None = None
    tier: str = ""
    place: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Audit:
    """One audit: what was measured of all models of one forget set and seed. Parts that an audit did not run are empty.

    Attributes:
      forget: as in the rows, "3" or "1,7"; forget_names: what these classes are called.
      curves: {"model", "kind", "steps" [K], "accuracy" [K] in percent}, one per model and kind of relearning.
      confusion: {model: per forgotten class, in the order of `forget`, the counts of predicted classes}.
      mean_prediction: {model: probability per class, averaged over forgotten test images}.
      weights: {model: hash of its weights}.
      embedding: {"title", "points" [N, 2], "kind" [N]}, and "method": what was embedded and how.
      representation: {"title": the model, "points" [N, 2], "classes" [N]} of real test images, each in the model's own features.
      not_run: {"metric", "why"}.
    """

    forget: str
    seed: int
    dataset: str
    arch: str
    models: list[str]
    measurements: list[Measurement]
    forget_names: list[str] = field(default_factory=list)
    class_names: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    curves: list[dict[str, Any]] = field(default_factory=list)
    confusion: dict[str, list[list[float]]] = field(default_factory=dict)
    mean_prediction: dict[str, list[float]] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)
    embedding: list[dict[str, Any]] = field(default_factory=list)
    representation: list[dict[str, Any]] = field(default_factory=list)
    not_run: list[dict[str, str]] = field(default_factory=list)

    @property
    def key(self) -> RunKey:
        return self.forget, self.seed

    @property
    def slug(self) -> str:
        """What tells audits apart in the name of a file."""
        return f"{self.forget.replace(',', '-')}_seed{self.seed}"


def read_audits(workdir: str | os.PathLike) -> list[Audit]:
    """All audits, by forget set and seed.

    A damaged one is renamed to `audit.json.damaged`, so that the next start measures again, and a warning says so.
    """
    audits = []
    for path in sorted(Path(workdir).glob("audit/*/seed*/audit.json")):
        try:
            audits.append(parse_audit(path.read_text(encoding="utf-8")))
        except ValueError as error:
            set_aside(path, error)
    return sorted(audits, key=lambda a: (a.dataset, a.arch, forget_order(a.forget), a.seed))


def parse_audit(text: str) -> Audit:
    """One audit from its JSON text; ValueError, in words for the user, if it is not a complete one."""
    try:
        content = from_plain(json.loads(text))
    except ValueError:
        raise ValueError("not valid JSON") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"not an audit of format {FORMAT}")
    known = {f.name for f in fields(Audit)}
    try:
        content["measurements"] = [_measurement(entry) for entry in content["measurements"]]
        audit = Audit(**{name: value for name, value in content.items() if name in known})
        _check(audit)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"incomplete: {error}") from None
    return audit


def write_audit_csv(workdir: str | os.PathLike, audits: Iterable[Audit]) -> Path:
    """Write `audit.csv`: one line per measurement, in the order of models and metrics."""
    head = ["dataset", "arch", "forget", "seed", *(f.name for f in fields(Measurement))]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(head)
    for audit in audits:
        for m in sorted(audit.measurements, key=lambda m: (model_order(m.model), metric_order(m.metric))):
            values = to_plain([getattr(m, f.name) for f in fields(Measurement)])
            table.writerow(
                [audit.dataset, audit.arch, audit.forget, audit.seed, *("" if v is None else v for v in values)]
            )
    return atomic_write_text(Path(workdir) / "audit.csv", text.getvalue())


def _measurement(entry: dict[str, Any]) -> Measurement:
    known = {f.name for f in fields(Measurement)}
    return Measurement(
        **{name: value for name, value in entry.items() if name in known}
    )  # TypeError for missing fields


def _check(audit: Audit) -> None:
    """ValueError for what the tables and pictures could not show; TypeError from wrong types is the caller's to translate."""
    if not isinstance(audit.forget, str) or not isinstance(audit.seed, int):
        raise ValueError("forget must be text and seed a whole number")
    for m in audit.measurements:
        numbers = [v for v in (m.value, m.low, m.high, m.n, m.place) if v is not None]
        if not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in numbers):
            raise ValueError(f"{m.model} {m.metric}: value, low, high, n and place must be numbers")
    for curve in audit.curves:
        if len(curve["steps"]) != len(curve["accuracy"]) or not isinstance(curve["model"] + curve["kind"], str):
            raise ValueError(
                f"the curve {curve['kind']} of {curve['model']} has {len(curve['steps'])} steps, {len(curve['accuracy'])} values"
            )
    for of_point, pictures in (("kind", audit.embedding), ("classes", audit.representation)):
        for picture in pictures:
            if len(picture["points"]) != len(picture[of_point]) or any(len(point) != 2 for point in picture["points"]):
                raise ValueError(f"the picture {picture['title']} needs {of_point} and two coordinates for every point")
    for counts in audit.confusion.values():
        if not counts or any(len(line) != len(counts[0]) for line in counts):
            raise ValueError("a confusion needs the counts of all classes for every forgotten class")
    if any(not isinstance(entry["metric"] + entry["why"], str) for entry in audit.not_run):
        raise ValueError("not_run needs a metric and why")
    if len({len(p) for p in audit.mean_prediction.values()}) > 1:
        raise ValueError("the mean predictions have different numbers of classes")
