"""The files of audits, `audit/<forget>/seed<k>/audit.json`: what a measurement is, and what else an audit holds."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ispf_jax.runtime.rows import RunKey, forget_order, parse_json, parse_record, set_aside

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
    forget: str
    seed: int
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


def parse_audit(content: Any) -> Audit:
    """The audit in the content of an `audit.json`; ValueError, in words for the user, if it is not a complete one."""
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"not an audit of format {FORMAT}")
    try:
        run = {name: content[name] for name in ("dataset", "arch", "forget", "seed")}
        curves, not_run = content.get("curves", []), content.get("not_run", [])
        read = {
            "measurements": [parse_record(Measurement, entry | run) for entry in content["measurements"]],
            "curves": [(c["model"], c["kind"], np.array([c["steps"], c["accuracy"]], float)) for c in curves],
            "confusion": _arrays(content.get("confusion", {})),
            "mean_prediction": _arrays(content.get("mean_prediction", {})),
            "embedding": [_points(entry, "kind") for entry in content.get("embedding", [])],
            "representation": [_points(entry, "classes") for entry in content.get("representation", [])],
            "not_run": [(entry["metric"], entry["why"]) for entry in not_run],
        }
        return parse_record(Audit, content | read)
    except (KeyError, TypeError, AttributeError, ValueError) as error:  # numpy refuses what has not the right shape
        raise ValueError(f"incomplete: {error}") from None


def _points(entry: dict[str, Any], labels: str) -> tuple[str, np.ndarray, np.ndarray, str]:
    """(title, points [N, 2], labels [N], how they were made)."""
    points = np.array(entry["points"], float).reshape(len(entry[labels]), 2)
    return entry["title"], points, np.array(entry[labels]), entry.get("method", "")


def _arrays(values: dict[str, Any]) -> dict[str, np.ndarray]:
    """One array per model, all of the same shape."""
    return dict(zip(values, np.array(list(values.values()), float)))


def read_audits(workdir: str | os.PathLike) -> list[Audit]:
    """All `audit/<forget>/seed<k>/audit.json`, by forget set and seed.

    A damaged one is renamed to `audit.json.damaged`, so that the next start measures again, and a warning says so.
    """
    audits = []
    for path in Path(workdir).glob("audit/*/seed*/audit.json"):
        try:
            audits.append(parse_audit(parse_json(path.read_text(encoding="utf-8"))))
        except ValueError as error:
            set_aside(path, error)
    return sorted(audits, key=lambda a: (a.dataset, a.arch, a.forgotten, a.seed))
