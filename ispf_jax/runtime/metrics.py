"""All that is known of each metric, in one table (`metrics.csv`): what it asks, its unit, what it needs, how it is
shown."""

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources

TIERS = ("weights only", "test images", "training data", "retrained models")
"""What a number needs, from least to most."""

NEEDS = {
    "generator": ("weights only", "a model with its generator, as unlearning returns it"),
    "test": ("test images", "test images"),
    "forgotten": ("test images", "test images of the forgotten classes"),
    "train": ("training data", "training images of all classes"),
    "shadows": ("training data", "shadow models, which are trained on training images"),
    "retrained": ("retrained models", "a model that was trained without the forgotten classes"),
    "oracles": ("retrained models", "two or more models that were trained without the forgotten classes"),
}
"""What a metric may need besides the weights of original and model: {name: (tier, in words)}."""

HEADLINE = ("", "penultimate")
"""Layers whose number is the metric itself; other layers are shown below it."""


@dataclass(frozen=True)
class Metric:
    """A line of `metrics.csv`.

    Attributes:
      label, asks: "{}" stands for the number in the metric's name.
      kind: "accuracy"; "residue" (how much of the class can be recovered from the final features or weights); "layers"
        (the same, of one layer); "closeness" (to retraining or to the original); "paper" (the paper's
        own); "attack"; "classes" (one number per class, in a separate table); "generator" (about synthetic images).
      unit: shown with it; measured_in: as it is recorded.
      verdict: whether the verdict table has a column for it.
      asked: the name in the audit's setting `metrics` that asks for it; empty: always measured.
      needs: names of `NEEDS`, what must be there to measure it.
      eps: where original and retrained model differ by no more, no value is placed between them; None: none ever is.
      family: its name in `metrics.csv`; empty if it is not there.
      number: the number in the metric's name.
      order: sort key.
    """

    label: str
    asks: str = ""
    unit: str = ""
    digits: int = 3
    kind: str = "other"
    verdict: bool = False
    asked: str = ""
    needs: tuple[str, ...] = ()
    measured_in: str = ""
    eps: float | None = None
    family: str = ""
    number: str = ""
    order: tuple = ()

    @property
    def tier(self) -> str:
        """The most of what is needed, one of `TIERS`; empty for an unknown metric."""
        tiers = [NEEDS[name][0] for name in self.needs] or ["weights only"] * bool(self.family)
        return max(tiers, key=TIERS.index, default="")

    def place(self, value, original, retrained) -> float | None:
        """(value - retrained) / (original - retrained): 0 like the retrained model, 1 like the original, or beyond.

        None if the metric is not placed, one of the three is None, or the ends differ by no more than `eps`.
        """
        if self.eps is None or None in (value, original, retrained) or abs(original - retrained) <= self.eps:
            return None
        return (value - retrained) / (original - retrained)


@cache
def metric(name: str) -> Metric:
    """The metric of a name such as "probe_shots5/bn3"; an unknown one is shown under its own name."""
    family, number, rest = _parts(name)
    digits = int("".join(filter(str.isdigit, rest)) or 0)
    order = (list(_metrics()).index(family) if family else len(_metrics()), float(number or 0))
    order = (*order, rest in HEADLINE, digits, name)  # the layers of a family in order, the headline last
    if not family:
        return Metric(name, order=order)
    known = _metrics()[family]
    label, asks = known.label.format(number), known.asks.format(number)
    known = replace(known, label=label, asks=asks, family=family, number=number, order=order)
    if rest in HEADLINE:
        return known
    kind = "layers" if known.kind in ("residue", "closeness") else known.kind
    return replace(known, label=f"{label}, {rest}", kind=kind, verdict=False)


def metric_order(name: str) -> tuple:
    """Sort key: the order of `metrics.csv`; within one family layer by layer, numbers as numbers; unknown ones last."""
    return metric(name).order


def plan(have: set[str], asked: Iterable[str]) -> tuple[list[str], dict[str, list[str]]]:
    """What can be measured of the families `asked`, with what there is (names of `NEEDS`).

    Returns:
      (metrics as `metrics.csv` names them, {what is missing, in words: labels of the metrics that need it}).
    """
    possible, missing = [], {}
    for name, known in _metrics().items():
        if known.asked and known.asked not in asked:
            continue
        lacking = [NEEDS[need][1] for need in known.needs if need not in have]
        if lacking:
            missing.setdefault(" and ".join(lacking), []).append(known.label.format("k"))
        else:
            possible.append(name)
    return possible, missing


@cache
def _metrics() -> dict[str, Metric]:
    """`metrics.csv` by name: "#" for a number, or the part before the "/" where a layer or a kind follows."""
    text = resources.files(__package__).joinpath("metrics.csv").read_text(encoding="utf-8")
    lines = {line.pop("metric"): line for line in csv.DictReader(text.splitlines())}
    whole = {"digits": int, "verdict": bool, "eps": lambda text: float(text) if text else None}
    whole["needs"] = lambda text: tuple(text.split())
    return {name: Metric(**{k: whole.get(k, str)(v) for k, v in line.items()}) for name, line in lines.items()}


def _parts(name: str) -> tuple[str, str, str]:
    """(family or "", number in the name, what follows the family)."""
    for head, rest in ((name, ""), (name.partition("/")[0], name.partition("/")[2])):
        if head in _metrics():
            return head, "", rest
        found = re.fullmatch(r"(.*?)(\d+(?:\.\d+)?)", head)
        if found and found[1] + "#" in _metrics():
            return found[1] + "#", found[2], rest
    return "", "", ""
