"""What models and metrics are called, how they look, what they ask, and the order in which they are shown."""

import csv
import re
import tomllib
import zlib
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources

from ispf_jax.runtime.rows import method_order


def read_text(name: str) -> str:
    """A file of this package."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def read_table(name: str) -> list[dict[str, str]]:
    """The lines of a table (.csv) of this package."""
    return list(csv.DictReader(read_text(name).splitlines()))


TEXTS = tomllib.loads(read_text("texts.toml"))
"""What the report says to its readers, by section and name."""

TIERS = ("weights only", "test images", "training data", "retrained models")
"""What a number needed, from least to most."""

HEADLINE = ("", "penultimate")
"""Layers whose number is the metric itself; other layers are shown below it."""


@dataclass(frozen=True)
class Model:
    """How the report shows a method: its name, colour and marker, and what a reader must know about a reference."""

    name: str
    color: str
    marker: str
    note: str = ""


MODELS = {line.pop("method"): Model(**line) for line in read_table("models.csv")}
"""Colours are those of Okabe & Ito and of P. Tol, distinct for colour-blind readers; markers work without colour."""

_OWN = (("#332288", "*"), ("#117733", "h"), ("#88CCEE", "<"), ("#661100", ">"), ("#DDCC77", "8"))
"""Colour and marker of methods that users added; the name chooses, so a method looks the same in all pictures."""


def shown(model: str) -> Model:
    """How a method ("ispf") or model ("ispf/dfq") is shown."""
    method = model.partition("/")[0]
    return MODELS.get(method) or Model(method, *_OWN[zlib.crc32(method.encode()) % len(_OWN)])


def model_name(model: str, bases: bool = False) -> str:
    """How the page calls a model, with its base if `bases`."""
    base = model.partition("/")[2]
    return shown(model).name + (f" ({base})" if bases and base else "")


def model_order(model: str) -> tuple:
    """Sort key: references, then base by base in the order of the methods."""
    method, _, base = model.partition("/")
    return base, method_order(method)


@dataclass(frozen=True)
class Metric:
    """A line of `metrics.csv`.

    Attributes:
      label, asks: "{}" stands for the number in the metric's name.
      kind: "accuracy"; "residue" (how much of the class can be recovered from the final features or weights); "layers"
        (the same, read from an earlier layer); "closeness" (to retraining or to the original); "paper" (the paper's
        own); "attack"; "classes" (one number per class, in a separate table); "generator" (about synthetic images).
      verdict: whether the verdict table has a column for it.
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
    family: str = ""
    number: str = ""
    order: tuple = ()


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
    kind = "layers" if known.kind == "residue" else known.kind
    return replace(known, label=f"{label}, {rest}", kind=kind, verdict=False)


def metric_order(name: str) -> tuple:
    """Sort key: the order of `metrics.csv`; within one family layer by layer, numbers as numbers; unknown ones last."""
    return metric(name).order


@cache
def _metrics() -> dict[str, Metric]:
    """`metrics.csv` by name: "#" for a number, or the part before the "/" where a layer or a kind follows."""
    lines = {line.pop("metric"): line for line in read_table("metrics.csv")}
    whole = {"digits": int, "verdict": bool}
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
