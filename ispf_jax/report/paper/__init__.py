"""The numbers that the paper prints (arXiv 2412.13790), and which of them a run may be compared with (its settings: `settings.py`).

`tables.csv` holds tables 1, 2, 6, 7 and 8, `table9.csv` table 9: facts, one per line. A standard deviation is the population one
over the authors' trials; MIA and AIN are printed without. Original and DFKD rows of tables 1 and 2 print the accuracy on the whole
test set as both A_f and A_r. Rows of table 8 that table 1 has too (PF, ISPF, Retrain) stand in table 1 only.
"""

import csv
import functools
from dataclasses import dataclass
from importlib import resources
from pathlib import PurePath
from typing import Any

from ispf_jax.report.paper.settings import differences

DATASETS = ("svhn", "cifar10", "cifar100")

SHARED = frozenset({4, 30, 55, 72, 95, 1, 32, 67, 73, 91})
"""The forget set "Shared" of table 6: CIFAR-100's aquatic mammals and fish."""

DISTRIBUTED = frozenset({4, 1, 54, 9, 0, 22, 5, 6, 3, 12})
"""Our stand-in for "Distributed", one class of each of ten superclasses; which ones the paper took is not in the public text."""


@dataclass(frozen=True)
class Printed:
    """A number of the paper; `std` is None where it prints none."""

    mean: float
    std: float | None = None

    def text(self, digits: int = 2) -> str:
        """`92.68 +/- 0.13`."""
        return f"{self.mean:.{digits}f}" + (f" +/- {self.std:.{digits}f}" if self.std is not None else "")


def printed(
    table: int, dataset: str | None, arch: str, method: str, metric: str, sets: str = "single"
) -> Printed | None:
    """The paper's number, None if it prints none.

    Args:
      table: 1, 2, 6, 7 or 8; metric: as the paper heads it, "A_f", "A_r", "MIA-I", "MIA-II", "AIN" or "samples" (table 6).
      sets: "single"; table 2: or "multi"; table 6: "shared" or "distributed".
    """
    return _tables().get((str(table), dataset, arch, sets, method, metric))


def printed_class(dataset: str | None, arch: str, method: str, metric: str, number: int) -> Printed | None:
    """The paper's number of one forgotten class (table 9), None if it prints none."""
    return _table9().get((dataset, arch, method, metric, number))


def counterpart(dataset: str, arch: str, config: dict[str, Any], note: str = "") -> tuple[str | None, list[str]]:
    """The paper's data set that a run is to be read beside, and why the two are not comparable, in words (empty: they are).

    Reasons are the note on the data, and every key of the configuration with another value than in the paper.

    An image folder whose name says svhn, cifar10 or cifar100 is read beside it, though never called comparable: such folders
    usually hold JPEG copies.
    """
    name = dataset.lower()
    reasons = [note] if note else []
    if name not in DATASETS:
        path = PurePath(str(config.get("data.path") or "")).name
        found = [
            known
            for known in ("cifar100", "cifar10", "svhn")
            if known in path.lower().replace("-", "").replace("_", "")
        ]
        if not found:
            return None, []
        name, reasons = (
            found[0],
            [f"the images come from {path}, not from the official archives (JPEG copies differ)", *reasons],
        )
    return name, reasons + differences(name, arch, config)


@functools.cache
def _tables() -> dict[tuple, Printed]:
    keys = ("table", "dataset", "arch", "sets", "method", "metric")
    return {tuple(line[key] for key in keys): _number(line) for line in _lines("tables.csv")}


@functools.cache
def _table9() -> dict[tuple, Printed]:
    numbers = {}
    for line in _lines("table9.csv"):
        dataset, arch = line["setting"].lower().split("-")
        numbers[dataset, arch, line["method"].lower(), line["metric"], int(line["class"])] = _number(line)
    return numbers


def _number(line: dict[str, str]) -> Printed:
    return Printed(float(line["mean"]), float(line["std"]) if line["std"] else None)


def _lines(name: str) -> list[dict[str, str]]:
    text = resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))
